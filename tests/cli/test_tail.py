"""``tail`` begins now."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.commands import Ask
from trio_worker.queue.keys import keys_of
from trio_worker.telemetry.feed import FeedOutcome, write_outcome
from trio_worker.worker.events import SettledJob
from trio_worker.worker.phase import Disposition


def tell(ask: Ask, line: FeedOutcome) -> None:
    ask(lambda redis: redis.command("XADD", keys_of("jobs").latest, "*", "outcome", write_outcome(line)))


def test_tail_begins_now(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries for an earlier watcher, minutes ago, are not shown as new."""
    for job_id, seconds_ago in (("old", 300.0), ("new", 1.0)):
        line = FeedOutcome(time.time() - seconds_ago, SettledJob(job_id, Disposition.SENT), "a:1")
        tell(ask, line)

    assert run("tail", "--for", "0.2") == 0
    shown = capsys.readouterr().out
    assert "new" in shown
    assert "old" not in shown
