"""Pure. How old the waiting jobs are, in five bars from evenly spaced samples of the list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from attrs import frozen

# Upper bounds in seconds; the last bar has none.
BAR_BOUNDS = (1.0, 10.0, 30.0, 60.0)
# An element in the middle of a list is found by walking to it: so many samples of a list of that length at the most are
# a few milliseconds of Redis' time. A longer one is not sampled.
SAMPLES = ((20_000, 200), (200_000, 20))


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
