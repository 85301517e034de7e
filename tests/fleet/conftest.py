"""Fixtures: workers whose heartbeats are quick."""

from __future__ import annotations

import pytest

from trio_worker.telemetry.heartbeat import BEAT_SECONDS


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process tell how they are ten times as often, so that nobody waits long to be heard."""
    monkeypatch.setattr("trio_worker.fleet.presence.BEAT_SECONDS", BEAT_SECONDS / 10)
