"""Pure. History of a queue: totals of each minute of the past day, and when the n-th job was pushed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from attrs import field

from trio_worker.records import define, frozen

MINUTE_SECONDS = 60
# How far back the marks between the minutes go.
MARKS_SECONDS = 120
# One sample a second for an hour; older pushes are then dated by the oldest sample kept, so their age is a lower bound.
PUSH_SAMPLE_SECONDS = 1.0
SAMPLES_KEPT = 3600


@frozen
class MinuteSample:
    """Totals since the queue was created and three numbers of jobs, at the last heartbeat in a minute.

    ``minute`` counts from the epoch. Without ``releases`` the fields would not fit the stored samples.
    """

    minute: int
    popped: int
    sent: int
    delays: int
    releases: int
    holds: int
    deaths: int
    uncertain: int
    waiting: int
    delayed: int
    dead: int

    @property
    def pushed(self) -> int:
        """Jobs ever pushed: taken from the list or still in it."""
        return self.popped + self.waiting


@frozen
class PushMark:
    """The number of jobs that had ever been pushed at a time (epoch seconds)."""

    at: float
    pushed: int


@frozen
class MinuteFigures:
    """Events of the ``minutes`` minutes up to ``minute``; the last three fields count the jobs at their end."""

    minute: int
    minutes: int
    pushed: int
    sent: int
    delays: int
    deaths: int
    uncertain: int
    waiting: int
    delayed: int
    dead: int


def read_sample(wire: bytes) -> MinuteSample | None:
    """Read one sample of the ring buffer of a day; None if it is not one."""
    numbers = wire.split()
    if len(numbers) != len(MinuteSample.__attrs_attrs__) or not all(number.isdigit() for number in numbers):
        return None
    return MinuteSample(*map(int, numbers))


def figures_of(samples: Sequence[MinuteSample]) -> list[MinuteFigures]:
    """Return what happened between each sample and the next; totals that fell (a deleted queue) count from 0.

    Minutes in which no worker ran are counted with the next minute that has a sample: ``minutes`` is their number.
    """
    found = []
    for before, after in pairwise(samples):
        is_new = after.popped < before.popped or after.sent < before.sent
        base = MinuteSample(before.minute, *(0,) * 10) if is_new else before
        found.append(
            MinuteFigures(
                minute=after.minute,
                minutes=after.minute - before.minute,
                pushed=max(0, after.pushed - base.pushed),
                sent=after.sent - base.sent,
                delays=max(0, after.delays - base.delays),
                deaths=max(0, after.deaths - base.deaths),
                uncertain=max(0, after.uncertain - base.uncertain),
                waiting=after.waiting,
                delayed=after.delayed,
                dead=after.dead,
            )
        )
    return found


def waiting_growth(samples: Sequence[MinuteSample], at: float, waiting: int) -> float | None:
    """Return the growth of the waiting list (jobs per second) over the last minute; None if no sample is of that time.

    A sample is dated at the end of its minute, up to two seconds late: one of the last 15 seconds would not do.
    """
    for sample in reversed(samples):
        seconds = at - (sample.minute + 1.0) * MINUTE_SECONDS
        if 15.0 <= seconds <= 2 * MINUTE_SECONDS:
            return (waiting - sample.waiting) / seconds
    return None


def read_mark(wire: bytes) -> PushMark | None:
    """Read one mark of the ring buffer of two minutes; None if it is not one."""
    numbers = wire.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return None
    return PushMark(int(numbers[0]) / 1000, int(numbers[1]))


def marks_of(samples: Sequence[MinuteSample], fine: Sequence[PushMark], now: PushMark) -> tuple[PushMark, ...]:
    """Return all marks, oldest first: those of minutes, then the ``fine`` ones, then ``now``.

    A minute's totals are dated at its end. Fine marks older than two minutes are left out: they are leftovers in the
    ring buffer.
    """
    young = sorted((mark for mark in fine if now.at - MARKS_SECONDS < mark.at <= now.at), key=lambda mark: mark.at)
    began = young[0].at if young else now.at
    ends = [PushMark((sample.minute + 1.0) * MINUTE_SECONDS, sample.pushed) for sample in samples]
    return (*(mark for mark in ends if mark.at <= began), *young, now)


def pushed_at(marks: Sequence[PushMark], place: int) -> float | None:
    """Return when the ``place``-th job (1 is the first ever) was pushed, in epoch seconds; None if no mark is older.

    Between two marks the pushes are assumed to be spread evenly.
    """
    for after, before in pairwise(reversed(marks)):
        if before.pushed < place <= after.pushed:
            share = (place - before.pushed) / (after.pushed - before.pushed)
            return before.at + share * (after.at - before.at)
    return None


@define
class PushHistory:
    """Samples of the total number of pushed jobs (taken from the list, plus waiting in it) over time.

    They date the n-th job by the first sample that counted n. Without an older sample its time is unknown.
    """

    _times: list[float] = field(factory=list)
    _totals: list[int] = field(factory=list)

    def note(self, at: float, pushed: int) -> None:
        """Add a sample; ``at`` in epoch seconds of Redis' clock."""
        if self._totals and pushed < self._totals[-1]:
            # The list was deleted or jobs were put back: earlier counts are not comparable.
            self._times.clear()
            self._totals.clear()
        if self._totals and pushed == self._totals[-1]:
            return
        if len(self._times) > 1 and at - self._times[-2] < PUSH_SAMPLE_SECONDS:
            self._times[-1], self._totals[-1] = at, pushed
        else:
            self._times.append(at)
            self._totals.append(pushed)
        if len(self._times) > SAMPLES_KEPT:
            del self._times[0], self._totals[0]

    def pushed_at(self, place: int) -> float | None:
        """Return the latest time at which the ``place``-th job (1 is the first ever) was pushed; None if unknown."""
        at = bisect_left(self._totals, place)
        if at == 0 or at == len(self._totals):
            return None
        return self._times[at]
