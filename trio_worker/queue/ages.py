"""Pure. How old the waiting jobs are: a table by type or domain, as qshape has it, and five bars.

Sampled where the list is long: figures are then scaled to its length, and said to be so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

# Upper bounds in seconds; the last column has none.
COLUMNS_SECONDS = (5, 10, 20, 40, 80, 160, 320, 640)
# A table longer than a screen is not looked at: what is rare is summed up.
MAX_ROWS = 20
OTHER_TYPES = "other"
UNDATED = len(COLUMNS_SECONDS) + 1
# Upper bounds in seconds; the last bar has none.
BAR_BOUNDS = (1.0, 10.0, 30.0, 60.0)
# An element in the middle of a list is found by walking to it: so many samples of a list of that length at the most are
# a few milliseconds of Redis' time. A longer one is not sampled.
SAMPLES = ((20_000, 200), (200_000, 20))


@frozen
class AgeRow:
    """Jobs of one name: in all, and by age; the last figure counts those that nothing dates."""

    name: str
    total: int
    by_age: tuple[int, ...]


@define
class AgeTable:
    """Jobs come in, rows go out; ``looked_at`` of ``waiting`` jobs were counted."""

    waiting: int
    looked_at: int = 0
    estimated: int = 0  # of those, dated by how many were pushed by when
    _counts: dict[str, Counter[int]] = field(factory=dict)

    def add(self, names: Sequence[str], age_seconds: float | None, *, is_estimate: bool = False) -> None:
        """Count one job; under several names where it goes to several domains."""
        self.looked_at += 1
        self.estimated += is_estimate
        column = UNDATED if age_seconds is None else column_of(age_seconds)
        for name in names or ("?",):
            self._counts.setdefault(name, Counter())[column] += 1
        self._counts.setdefault("", Counter())[column] += 1

    @property
    def is_sampled(self) -> bool:
        return self.looked_at < self.waiting

    def rows(self) -> list[AgeRow]:
        """Return the sum, then the most frequent names, then all others as one."""
        named = sorted(
            ((name, counts) for name, counts in self._counts.items() if name),
            key=lambda item: (-item[1].total(), item[0]),
        )
        rest: Counter[int] = Counter()
        for _, counts in named[MAX_ROWS:]:
            rest.update(counts)
        shown = [("TOTAL", self._counts.get("", Counter())), *named[:MAX_ROWS]]
        return [self._row(name, counts) for name, counts in (*shown, *([(OTHER_TYPES, rest)] if rest else []))]

    def _row(self, name: str, counts: Counter[int]) -> AgeRow:
        scale = self.waiting / self.looked_at if self.looked_at else 0.0
        figures = tuple(round(counts[column] * scale) for column in range(UNDATED + 1))
        return AgeRow(name, round(counts.total() * scale), figures)


def column_of(age_seconds: float) -> int:
    """Return the place of the first column whose bound is above the age; one past them is for the oldest."""
    return next((place for place, bound in enumerate(COLUMNS_SECONDS) if age_seconds < bound), len(COLUMNS_SECONDS))


def sample_places(waiting: int, wanted: int) -> list[int]:
    """Return places in a list, evenly spaced from its head to its end, each once."""
    if waiting <= wanted:
        return list(range(waiting))
    return sorted({round(number * (waiting - 1) / (wanted - 1)) for number in range(wanted)})


@frozen
class AgeBars:
    """Of ``waiting`` jobs ``looked_at`` were; ``jobs`` by bar scaled to all, with ``undated``, add up to them."""

    waiting: int
    looked_at: int
    jobs: tuple[int, ...]
    undated: int
    is_estimate: bool  # some were dated by how many were pushed by when


def bars_of(ages: Iterable[tuple[float | None, bool]], waiting: int) -> AgeBars:
    """Return the bars of samples, each an age in seconds (None where nothing dates it) and whether it is estimated."""
    bars = [0] * (len(BAR_BOUNDS) + 2)
    is_estimate = False
    for age_seconds, is_guess in ages:
        bars[-1 if age_seconds is None else bisect_right(BAR_BOUNDS, age_seconds)] += 1
        is_estimate |= is_guess and age_seconds is not None
    looked_at = sum(bars)
    scaled, seen = [], 0
    for bar in bars:
        # Rounded as a running sum, so that the bars add up.
        before = round(seen * waiting / looked_at) if looked_at else 0
        seen += bar
        scaled.append((round(seen * waiting / looked_at) if looked_at else 0) - before)
    *jobs, undated = scaled
    return AgeBars(waiting, looked_at, tuple(jobs), undated, is_estimate)
