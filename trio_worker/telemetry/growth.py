"""Pure. How a queue grows: the time over which rates and growth are measured, and the growth itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# Rates are counted over this many whole seconds.
RATE_SECONDS = 10
# One column of the chart per second.
SPARK_SECONDS = 300
# The growth of the jobs that could be sent is measured over this time.
SLOPE_SECONDS = 30
# The last seconds, which correct it if they go the other way.
RECENT_SECONDS = 10
OUTCOMES_KEPT = 60


def heading(points: Sequence[tuple[float, int]]) -> float | None:
    """Return the current growth per second of a depth, from (seconds, depth); None below three points.

    A line through half a minute is steady, but after a burst of pushes it still rises when the list already falls. So
    it is used only if the last seconds, without their greatest jump, go the same way; else the last seconds are used.
    """
    line = slope(points)
    if line is None:
        return None
    recent = [(at, depth) for at, depth in points if points[-1][0] - at <= RECENT_SECONDS]
    steps = [after - before for (_, before), (_, after) in pairwise(recent)]
    if len(steps) < 3:
        return line
    lately = (sum(steps) - max(steps, key=abs)) / (recent[-1][0] - recent[0][0])
    return line if line * lately > 0 else lately


def slope(points: Sequence[tuple[float, int]]) -> float | None:
    """Return the growth per second of a depth: a least-squares line through (seconds, depth); None below 3 points."""
    if len(points) < 3:
        return None
    mean_at = sum(at for at, _ in points) / len(points)
    mean_depth = sum(depth for _, depth in points) / len(points)
    spread = sum((at - mean_at) ** 2 for at, _ in points)
    if spread == 0:
        return None
    return sum((at - mean_at) * (depth - mean_depth) for at, depth in points) / spread
