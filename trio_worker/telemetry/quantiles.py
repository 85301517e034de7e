"""Pure. Histograms and quantiles of measured times; histograms of several workers can be added."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import partial

from attrs import field

from trio_worker.records import define, frozen

# The time that quantiles cover; it moves in steps of one slot.
WINDOW_SECONDS = 300
SLOT_SECONDS = 10
# Each bucket is 12 % wider than the one before, so the error of a quantile is at most 6 %.
_GROWTH = math.log(1.12)
_MIN_SECONDS = 0.0001
# The longest time of each bucket, up to 25 years.
_BOUNDS = tuple(_MIN_SECONDS * math.exp(_GROWTH * bucket) for bucket in range(263))
_bucket_of = partial(bisect_left, _BOUNDS)


@frozen
class Quantiles:
    """The quantiles of one time over the last five minutes, in seconds; all None if nothing was measured."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    most: float | None = None


@frozen
class Histogram:
    """Counts of measured times by bucket, and the longest time."""

    counts: dict[int, int] = field(factory=dict)
    most_seconds: float = 0.0

    def quantiles(self) -> Quantiles:
        """Return the quantiles; none is above the longest time."""
        total = sum(self.counts.values())
        if not total:
            return Quantiles()
        ranks = (math.ceil(total * share) for share in (0.5, 0.95, 0.99))
        p50, p95, p99 = (min(self.most_seconds, self._at_rank(rank)) for rank in ranks)
        return Quantiles(total, p50, p95, p99, self.most_seconds)

    def mean_seconds(self) -> float | None:
        """Return the mean time, with the precision of a bucket; None if nothing was measured."""
        total = sum(self.counts.values())
        if not total:
            return None
        return sum(min(_seconds_of(bucket), self.most_seconds) * n for bucket, n in self.counts.items()) / total

    def _at_rank(self, rank: int) -> float:
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return _seconds_of(bucket)
        raise AssertionError("a rank beyond the count")


def _seconds_of(bucket: int) -> float:
    return _MIN_SECONDS * math.exp(_GROWTH * (bucket - 0.5)) if bucket else _MIN_SECONDS


def added(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum of histograms."""
    counts: Counter[int] = Counter()
    most_seconds = 0.0
    for histogram in histograms:
        counts.update(histogram.counts)
        most_seconds = max(most_seconds, histogram.most_seconds)
    return Histogram(dict(counts), most_seconds)


@define
class _Slot:
    """The times measured in ten seconds."""

    number: int
    counts: Counter[int] = field(factory=Counter)
    most_seconds: float = 0.0


@define
class Window:
    """Collects measured times of the last five minutes, in slots of ten seconds."""

    _slots: deque[_Slot] = field(factory=deque)

    def note(self, now: float, times: Sequence[float]) -> None:
        """Add measured times (seconds); ``now`` is a clock in seconds that never goes back."""
        if not times:
            return
        number = int(now // SLOT_SECONDS)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        slot = self._slots[-1]
        slot.counts.update(map(_bucket_of, times))
        slot.most_seconds = max(slot.most_seconds, *times)

    def histogram(self, now: float) -> Histogram:
        """Return the histogram of the last five minutes."""
        oldest = int(now // SLOT_SECONDS) - WINDOW_SECONDS // SLOT_SECONDS
        while self._slots and self._slots[0].number <= oldest:
            self._slots.popleft()
        return added(Histogram(slot.counts, slot.most_seconds) for slot in self._slots)
