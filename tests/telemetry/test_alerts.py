"""What is wrong, and whether a worker is ready."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from tests.support.snapshot import NOW, busy, draining, fleet, fresh, without_redis, without_relay
from trio_worker.queue.losses import LossSign, LostData
from trio_worker.telemetry.alerts import Severity, alerts, is_stale, readiness, state
from trio_worker.telemetry.heartbeat import RelayDown, WorkerSeen
from trio_worker.telemetry.notice import Notice
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


@pytest.mark.parametrize(
    ("down", "words"),
    [
        (None, "mail.example:587 refuses the login; 2 of 4 workers"),
        (
            RelayDown("refuses the login (no such user)", 3, NOW + 42),
            "mail.example:587 refuses the login; 2 of 4 workers, next probe in 42s, 3 tries failed (no such user)",
        ),
        (
            RelayDown("refuses the login", 1),
            "mail.example:587 refuses the login; 2 of 4 workers, probing now, 1 try failed",
        ),
    ],
)
def test_the_relay_of_a_fleet_is_named_with_its_error_and_its_next_probe(down: RelayDown | None, words: str) -> None:
    """Also if an older version tells less of it."""
    beats = [evolve(each.beat, version="1") for each in fleet().workers]
    for place in (0, 1):
        beats[place] = evolve(beats[place], trouble="refuses the login", relay="mail.example:587", relay_down=down)
    workers = tuple(WorkerSeen(beat, 1.0) for beat in beats)

    (alert,) = alerts(evolve(fleet(), workers=workers))

    assert (alert.word, alert.text) == ("RELAY", words)


def test_notices_about_redis_are_alerts_of_their_workers() -> None:
    """Of a fleet with the number of workers, equal words together; of one worker as they are."""
    loss, wait = Notice("LOSS", "Redis lost data"), Notice("WAIT", "polls", is_severe=False)
    first, *rest = fleet().workers
    workers = (evolve(first, beat=evolve(first.beat, version="1", notices=(loss, wait))), *rest)
    same = tuple(evolve(each, beat=evolve(each.beat, version="1")) for each in workers)

    of_fleet = [(alert.word, alert.text, alert.severity) for alert in alerts(evolve(fleet(), workers=same))]
    of_one = [(alert.word, alert.text) for alert in alerts(evolve(busy(), notices=(loss, wait)))]

    assert of_fleet[:2] == [
        ("LOSS", "1 of 3 workers: Redis lost data", Severity.TROUBLE),
        ("WAIT", "1 of 3 workers: polls", Severity.CAUTION),
    ]
    assert of_one == [("LOSS", "Redis lost data"), ("WAIT", "polls")]


def test_a_redis_that_refuses_is_not_called_silent() -> None:
    """It answers: what a person must look at is what it says. Figures that are old are called so all the same."""
    refused = evolve(busy(), redis_down_seconds=36.0, redis_trouble="no permission for HINCRBY", redis_refuses=True)
    old = evolve(refused, queue_seen_seconds=60.0)

    assert state(refused).word == "REFUSED"
    first = alerts(refused)[0]
    assert (first.word, first.text) == (
        "REFUSED",
        "for 36s Redis refuses what a worker needs: no permission for HINCRBY",
    )
    assert not is_stale(refused)
    assert state(old).word == "STALE"


def test_what_redis_lost_is_shown_with_its_time() -> None:
    """Of every worker and command, from the queue's own note."""
    queue = busy().queue
    assert queue is not None
    lost = (LostData(LossSign.EVICTED, 60.0, 1234),)

    (alert,) = [each for each in alerts(evolve(busy(), queue=evolve(queue, losses=lost))) if each.word == "LOSS"]

    assert alert.severity is Severity.TROUBLE
    assert "last seen 1970-01-01 00:01:00Z: it deleted keys" in alert.text
    assert "(1,234); shown for a day" in alert.text


@pytest.mark.parametrize(("age_seconds", "words"), [(60.0, ["LOSS", "RELAY"]), (3600.0, ["RELAY", "LOSS"])])
def test_a_loss_hides_no_later_trouble_for_a_day(age_seconds: float, words: list[str]) -> None:
    """A screen of 24 lines has room for one alert."""
    snapshot = without_relay()
    assert snapshot.queue is not None
    lost = (LostData(LossSign.TOTALS, snapshot.at - age_seconds, 5),)

    found = [alert.word for alert in alerts(evolve(snapshot, queue=evolve(snapshot.queue, losses=lost)))]

    assert [word for word in found if word in words] == words
