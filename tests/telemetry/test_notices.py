"""Notices about a Redis that answers: what is shown, and for how long."""

from __future__ import annotations

from trio_worker.telemetry.notices import LOSS_SHOWN_SECONDS, Notices
from trio_worker.worker.events import DataLost, LossSign, WaitTroubled


def test_a_loss_is_shown_for_a_day_with_its_sum() -> None:
    """An operator sees it although it is over, and when it was last seen."""
    notices = Notices()
    notices.note(DataLost(LossSign.EVICTED, 1000), 0.0)
    notices.note(DataLost(LossSign.EVICTED, 234), 60.0)

    (shown,) = notices.at(120.0)

    assert shown.word == "LOSS"
    assert "1970-01-01 00:01:00Z" in shown.text
    assert "(1,234)" in shown.text
    assert notices.at(60.0 + LOSS_SHOWN_SECONDS) == ()


def test_polling_is_shown_while_it_lasts_and_names_nobody() -> None:
    """What Redis said is masked as everywhere."""
    notices = Notices()
    notices.note(WaitTroubled("OOM for ann@example.com"), 0.0)
    (shown,) = notices.at(1.0)
    notices.note(WaitTroubled(""), 2.0)

    assert shown.word == "WAIT"
    assert "ann@" not in shown.text
    assert notices.at(3.0) == ()
