"""Pure. Ages of the waiting and the delayed jobs: a table by email type or domain, like Postfix' qshape; and five bars.

Of a long list only samples are read: the figures are then scaled to its length and marked as estimates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from attrs import field

from trio_worker.records import define, frozen

# Upper bounds in seconds; the last column has none.
COLUMNS_SECONDS = (5, 10, 20, 40, 80, 160, 320, 640)
# A table must fit a screen: rare names are added up in one row.
MAX_ROWS = 20
OTHER_TYPES = "other"
UNDATED = len(COLUMNS_SECONDS) + 1
# Upper bounds in seconds; the last bar has none.
BAR_BOUNDS = (1.0, 10.0, 30.0, 60.0)
# Pairs: for a list up to this length, this many samples. Redis walks a list to reach an element in its middle; these
# take it a few milliseconds. A longer list is not sampled.
SAMPLES = ((20_000, 200), (200_000, 20))


# The column of a job in the table, and whether the job is delayed.
_Cell: TypeAlias = tuple[int, bool]


@frozen
class AgeRow:
    """Jobs of one name: in total, and by age; the last figure counts jobs of unknown age; how many are delayed."""

    name: str
    total: int
    by_age: tuple[int, ...]
    delayed: int = 0


@define
class AgeTable:
    """Collects ages of jobs into a table.

    ``looked_at`` of the ``waiting`` jobs were counted, and ``delayed_looked_at`` of the ``delayed`` ones.
    """

    waiting: int
    delayed: int = 0
    looked_at: int = 0
    delayed_looked_at: int = 0
    estimated: int = 0  # of all those, the ones whose age comes from the push history
    _counts: dict[str, Counter[_Cell]] = field(factory=dict)

    def add(
        self, names: Sequence[str], age_seconds: float | None, *, is_estimate: bool = False, is_delayed: bool = False
    ) -> None:
        """Count one job, once for each of its names: it may go to several domains."""
        self.looked_at += not is_delayed
        self.delayed_looked_at += is_delayed
        self.estimated += is_estimate
        cell = (UNDATED if age_seconds is None else column_of(age_seconds), is_delayed)
        for name in names or ("?",):
            self._counts.setdefault(name, Counter())[cell] += 1
        self._counts.setdefault("", Counter())[cell] += 1

    @property
    def is_sampled(self) -> bool:
        return self.looked_at < self.waiting or self.delayed_looked_at < self.delayed

    def rows(self) -> list[AgeRow]:
        """Return the total, then the most frequent names, then all others in one row."""
        named = sorted(
            ((name, counts) for name, counts in self._counts.items() if name),
            key=lambda item: (-item[1].total(), item[0]),
        )
        rest: Counter[_Cell] = Counter()
        for _, counts in named[MAX_ROWS:]:
            rest.update(counts)
        shown = [("TOTAL", self._counts.get("", Counter())), *named[:MAX_ROWS]]
        return [self._row(name, counts) for name, counts in (*shown, *([(OTHER_TYPES, rest)] if rest else []))]

    def _row(self, name: str, counts: Counter[_Cell]) -> AgeRow:
        scale = self.waiting / self.looked_at if self.looked_at else 0.0
        delayed_scale = self.delayed / self.delayed_looked_at if self.delayed_looked_at else 0.0
        figures = [
            counts[column, False] * scale + counts[column, True] * delayed_scale for column in range(UNDATED + 1)
        ]
        delayed = sum(number for (_, is_delayed), number in counts.items() if is_delayed)
        return AgeRow(name, round(sum(figures)), tuple(map(round, figures)), round(delayed * delayed_scale))


def column_of(age_seconds: float) -> int:
    """Return the index of the first column whose bound is above the age; the column after the last bound if none is."""
    return next((place for place, bound in enumerate(COLUMNS_SECONDS) if age_seconds < bound), len(COLUMNS_SECONDS))


def sample_places(waiting: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` different places in a list, evenly spaced from its head to its end."""
    if waiting <= wanted:
        return list(range(waiting))
    return sorted({round(number * (waiting - 1) / (wanted - 1)) for number in range(wanted)})


@frozen
class AgeBars:
    """Waiting jobs by age, from ``looked_at`` samples; ``jobs`` of all bars and ``undated`` add up to ``waiting``."""

    waiting: int
    looked_at: int
    jobs: tuple[int, ...]
    undated: int
    is_estimate: bool  # some ages come from the push history


def bars_of(ages: Iterable[tuple[float | None, bool]], waiting: int) -> AgeBars:
    """Return the bars of samples, each an age in seconds (None if unknown) and whether it is an estimate."""
    bars = [0] * (len(BAR_BOUNDS) + 2)
    is_estimate = False
    for age_seconds, is_guess in ages:
        bars[-1 if age_seconds is None else bisect_right(BAR_BOUNDS, age_seconds)] += 1
        is_estimate |= is_guess and age_seconds is not None
    looked_at = sum(bars)
    scaled, seen = [], 0
    for bar in bars:
        # The running sum is rounded, not each bar: so the bars add up.
        before = round(seen * waiting / looked_at) if looked_at else 0
        seen += bar
        scaled.append((round(seen * waiting / looked_at) if looked_at else 0) - before)
    *jobs, undated = scaled
    return AgeBars(waiting, looked_at, tuple(jobs), undated, is_estimate)
