"""The status line, which replaces the dashboard without a terminal."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.support.snapshot import (
    busy,
    without_redis,
)
from trio_worker.dashboard.cell_text import cut
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


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("next probe in 14m30s", 17, "next probe in…"),
        ("next probe in 14m30s", 20, "next probe in 14m30s"),
        ("next probe in 14m30s, 3 tries", 21, "next probe in 14m30s…"),
        ("behind ~4m10s", 12, "behind…"),
        ("127.0.0.1 alone", 6, "127.0…"),
        ("a word that is cut", 9, "a word t…"),
    ],
)
def test_a_time_is_left_out_rather_than_cut(text: str, width: int, shown: str) -> None:
    """The half of 14m30s would be another time."""
    assert cut(text, width) == shown
