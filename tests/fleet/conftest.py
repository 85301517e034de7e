"""Fixtures: workers whose heartbeats are quick."""

from __future__ import annotations

import pytest

from trio_worker.telemetry.heartbeat import BEAT_SECONDS


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process send heartbeats ten times as often, so that tests need not wait long."""
    monkeypatch.setattr("trio_worker.fleet.presence.BEAT_SECONDS", BEAT_SECONDS / 10)
