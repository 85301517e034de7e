"""Where a queue goes: nobody is told that it keeps up while nothing is sent."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from tests.support.snapshot import busy, fresh
from trio_worker.telemetry.heartbeat import Rates
from trio_worker.telemetry.outlook import Outlook, behind_seconds, outlook
from trio_worker.worker.queue_seen import QueueSeen


def queue(waiting: int = 0, due: int = 0, **more: Any) -> QueueSeen:
    return QueueSeen(waiting, due, 0, 0, 0, due=due, **more)


@pytest.mark.parametrize(
    ("seen", "slope", "rates", "words"),
    [
        (queue(), 0.0, Rates(), "empty"),
        (queue(), 0.0, Rates(delayed=3.0), "mails are delayed, none is sent"),
        (queue(), 0.0, Rates(sent=1.0, delayed=3.0), "empty"),
        (queue(50, oldest_seconds=0.5), 0.0, Rates(sent=90.0), "keeping up"),
        (queue(50, oldest_seconds=0.5), 0.0, Rates(), "none is sent"),
        (queue(50, oldest_seconds=250.0), 0.0, Rates(), "none is sent, 4m10s behind"),
        (queue(50, oldest_seconds=250.0), 0.0, Rates(sent=90.0), "4m10s behind"),
        (queue(50, oldest_seconds=250.0), 38.0, Rates(sent=90.0), "growing +38/s, 4m10s behind"),
        (queue(50, oldest_seconds=250.0), 38.0, Rates(), "growing +38/s, none is sent, 4m10s behind"),
        (queue(50, oldest_seconds=0.5), -5.0, Rates(sent=90.0), "shrinking, empty in 10s"),
        (queue(50, oldest_seconds=0.5), -5.0, Rates(delayed=5.0), "shrinking, none is sent"),
        (queue(due=600, next_due_seconds=-250.0), -10.0, Rates(sent=9.0), "shrinking, empty in 1m00s, 4m10s behind"),
        (queue(50, oldest_seconds=250.0, is_estimate=True), 0.0, Rates(), "none is sent, ~4m10s behind"),
        (queue(50, oldest_seconds=None), 0.0, Rates(sent=90.0), "keeping up"),
        (queue(50, oldest_seconds=250.0), None, Rates(sent=90.0), "4m10s behind"),
        (queue(50, oldest_seconds=0.5), None, Rates(sent=90.0), ""),
    ],
)
def test_outlook_says_where_the_queue_goes_and_whether_mails_are_sent(
    seen: QueueSeen, slope: float | None, rates: Rates, words: str
) -> None:
    """What waits and what is due again count alike."""
    assert outlook(evolve(busy(), queue=seen, waiting_slope=slope, rates=rates)).words == words


def test_a_queue_that_was_never_read_has_no_outlook() -> None:
    """Neither a trend nor a lateness."""
    assert outlook(fresh()) == Outlook(" ", "")
    assert behind_seconds(fresh()) is None


@pytest.mark.parametrize("slope", [0.0, -5.0, 38.0, None])
def test_late_mails_of_which_none_is_sent_are_worrying(slope: float | None) -> None:
    """Whichever way the queue goes; it may shrink because mails are delayed."""
    late = queue(50, oldest_seconds=250.0)

    assert outlook(evolve(busy(), queue=late, waiting_slope=slope, rates=Rates())).is_worrying
