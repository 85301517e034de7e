"""Pure. The past day minute by minute, from totals as they stood at the end of each minute."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from attrs import astuple, frozen

MINUTE_SECONDS = 60


@frozen
class MinuteSample:
    """Totals since the queue began, as they stood when ``minute`` (epoch minutes) was last seen, and three depths."""

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
class MinuteFigures:
    """What happened in ``minutes`` minutes that ended with ``minute``; depths as at their end."""

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
    """Read one sample of the ring, or None if it is none."""
    words = wire.split()
    if len(words) != len(MinuteSample.__attrs_attrs__) or not all(word.isdigit() for word in words):
        return None
    return MinuteSample(*map(int, words))


def write_sample(sample: MinuteSample) -> bytes:
    """Return the sample as the script that keeps it writes it."""
    return " ".join(map(str, astuple(sample))).encode()


def figures_of(samples: Sequence[MinuteSample]) -> list[MinuteFigures]:
    """Return what happened between each sample and the next; totals that went back (a deleted queue) count from 0.

    Minutes that no worker saw are counted with the next one that was: ``minutes`` says how many they are.
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


def head_pushed_at(samples: Sequence[MinuteSample], popped: int, now: float) -> float | None:
    """Return when the job behind ``popped`` others was pushed, within its minute, or None where no sample dates it.

    Times are epoch seconds. Between two samples pushes are taken to be even; one before the first sample is not dated.
    """
    place = popped + 1
    for before, after in pairwise(samples):
        if before.pushed < place <= after.pushed:
            share = (place - before.pushed) / (after.pushed - before.pushed)
            began = (before.minute + 1) * MINUTE_SECONDS
            ended = min((after.minute + 1) * MINUTE_SECONDS, now)
            return began + share * max(0.0, ended - began)
    return None
