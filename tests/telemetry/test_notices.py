"""Notices about a Redis that answers, and refuses something."""

from __future__ import annotations

import pytest

from trio_worker.telemetry.notices import Notices
from trio_worker.worker.events import HeartbeatTroubled, WaitTroubled


def test_polling_is_shown_while_it_lasts_and_names_nobody() -> None:
    """What Redis said is masked as everywhere."""
    notices = Notices()
    notices.note(WaitTroubled("OOM for ann@example.com"))
    (shown,) = notices.now()
    notices.note(WaitTroubled(""))

    assert shown.word == "WAIT"
    assert "ann@" not in shown.text
    assert notices.now() == ()


@pytest.mark.parametrize(
    ("is_heard", "words"),
    [(True, "so no command can give it orders"), (False, "so no command shows it, or gives it orders")],
)
def test_a_refused_heartbeat_is_shown_with_what_follows_from_it(words: str, *, is_heard: bool) -> None:
    """At /readyz and in the dashboard of the worker, and in its heartbeat where Redis takes a plain one."""
    notices = Notices()
    notices.note(HeartbeatTroubled("no permission for HSET", is_heard))
    (shown,) = notices.now()
    notices.note(HeartbeatTroubled(""))

    assert shown.word == "MUTE"
    assert words in shown.text
    assert "no permission for HSET" in shown.text
    assert notices.now() == ()
