"""The status line, which replaces the dashboard without a terminal."""

from __future__ import annotations

from attrs import evolve

from tests.support.snapshot import (
    busy,
    without_redis,
)
from trio_worker.dashboard.status_line import status_line


def test_status_line_reads_like_a_sentence() -> None:
    """The line for runs without a terminal has the state, the queue, the rates and the losses."""
    assert status_line(busy()) == (
        "12:04:31Z running  waiting 12,431 oldest ~30s  claimed 99/s sent 96/s  delayed 961  dead 7  uncertain 2"
    )


def test_status_line_tells_trouble() -> None:
    """Trouble is appended to the status line, which stays one line."""
    line = status_line(evolve(without_redis(), redis_trouble="first\nsecond\x1b[31m"))

    assert "12:04:31Z stale" in line
    assert "! redis: no answer for 12s; queue figures are 13s old (first second?[31m)" in line
