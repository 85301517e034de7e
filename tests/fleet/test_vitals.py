"""What a process says of itself: its memory and its processor."""

from __future__ import annotations

from trio_worker.fleet.vitals import VitalsMeter
from trio_worker.telemetry.heartbeat import Vitals


def test_vitals_are_of_this_process() -> None:
    """A heartbeat says how much memory and processor its own process uses."""
    vitals = VitalsMeter().read(0.001)

    assert isinstance(vitals, Vitals)
    assert vitals.redis_seconds == 0.001
    assert vitals.rss_bytes is None or 10_000_000 < vitals.rss_bytes < 10**11
