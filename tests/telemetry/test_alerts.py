"""What is wrong, and whether a worker is ready."""

from __future__ import annotations

import math

import pytest

from tests.support.snapshot import busy, draining, fresh, without_redis, without_relay
from trio_worker.telemetry.alerts import readiness
from trio_worker.telemetry.snapshot import Snapshot


@pytest.mark.parametrize(
    ("snapshot", "answered_seconds", "is_ready", "degraded"),
    [
        (busy(), 0.1, True, False),
        (busy(), 5.1, False, False),
        (without_relay(), 0.1, True, True),
        (without_redis(), 0.1, False, True),
        (draining(), 0.1, False, True),
        (fresh(), math.inf, False, False),
    ],
)
def test_ready_is_about_this_worker_and_redis(
    snapshot: Snapshot,
    answered_seconds: float,
    is_ready: bool,  # noqa: FBT001
    degraded: bool,  # noqa: FBT001
) -> None:
    """With a relay in trouble a worker is ready, as a restart would not help; in a drain or without Redis it is not."""
    found, document = readiness(snapshot, answered_seconds)

    assert (found, document["degraded"]) == (is_ready, degraded)
