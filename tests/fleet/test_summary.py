"""All workers in one snapshot: sums that agree with their parts, and states of the whole fleet."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.dashboard.lists import connections_panel, workers_panel
from trio_worker.fleet.summary import Fleet, QueueTotals
from trio_worker.queue.history import MinuteSample
from trio_worker.redis.calls import Unavailable
from trio_worker.telemetry.alerts import Severity, alerts, state
from trio_worker.telemetry.growth import heading
from trio_worker.telemetry.heartbeat import LOST_SECONDS, DepthLimit, Heartbeat, Rates, Suspended, WorkerSeen
from trio_worker.telemetry.snapshot import Scope
from trio_worker.telemetry.snapshot_json import document_of
from trio_worker.telemetry.words import work_words
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen

SEEN = QueueSeen(100, 5, 40, 0, 1, oldest_seconds=3.0)


def beat(name: str = "a:1", **changes: Any) -> Heartbeat:
    made = Heartbeat(name, "1.2.3", 900.0, Phase.RUNNING, 10, 4, rates=Rates(claimed=10, sent=9))
    return evolve(made, **changes)


def totals(at: float, sent: int, waiting: int = 100) -> QueueTotals:
    return QueueTotals(at, popped=sent, sent=sent, delays=0, deaths=0, waiting=waiting)


def fleet_of(*workers: WorkerSeen) -> Fleet:
    fleet = Fleet("jobs", "cache")
    fleet.note_poll(totals(1000, 50), SEEN, workers, now=10.0, redis_seconds=0.001)
    return fleet


settled = st.dictionaries(st.sampled_from([str(each) for each in Disposition]), st.integers(0, 1000))


@given(st.lists(settled, min_size=1, max_size=4))
def test_ledger_of_all_is_the_sum_and_balances(parts: list[dict[str, int]]) -> None:
    """The claims of all workers are the sum of all outcomes and of the jobs in hand."""
    beats = [
        beat(f"a:{place}", settled=part, claimed=sum(part.values()) + place, in_hand=place)
        for place, part in enumerate(parts)
    ]
    found = fleet_of(*(WorkerSeen(each, 1.0) for each in beats)).snapshot(10.0, 1001.0)

    assert found.scope is Scope.FLEET
    assert found.ledger.claimed == sum(each.claimed for each in beats)
    assert found.ledger.in_hand == found.in_hand == sum(range(len(parts)))


def test_what_is_uncertain_is_of_the_same_run_as_all_beside_it() -> None:
    """Not of the queue since it began: 121 of 199 mails that were sent would be an alarm."""
    fleet = fleet_of(WorkerSeen(beat("a:1", uncertain=2), 1.0), WorkerSeen(beat("a:2", uncertain=3), 1.0))

    assert fleet.snapshot(10.0, 1000.0).ledger.uncertain == 5


def test_rates_are_those_of_the_queue() -> None:
    """Between two polls the totals in Redis count what was sent, also by workers that have left."""
    fleet = fleet_of(WorkerSeen(beat(), 1.0))
    assert fleet.snapshot(10.0, 1000.0).rates.sent == pytest.approx(9)  # one poll: the figures of the workers

    fleet.note_poll(totals(1004, 450), SEEN, [], now=14.0, redis_seconds=0.001)

    assert fleet.snapshot(14.0, 1004.0).rates.sent == pytest.approx(100)


def test_rates_of_one_frame_are_of_one_span() -> None:
    """Two polls a second apart, as for one frame, do not combine the mails sent in that second with older claims."""
    fleet = fleet_of(WorkerSeen(beat(), 1.0))
    fleet.note_poll(totals(1001, 50), SEEN, [WorkerSeen(beat(), 1.0)], now=11.0, redis_seconds=0.001)

    rates = fleet.snapshot(11.0, 1001.0).rates
    assert (rates.claimed, rates.sent) == (10, 9)

    fleet.note_poll(totals(1008, 850), SEEN, [WorkerSeen(beat(), 1.0)], now=18.0, redis_seconds=0.001)
    assert fleet.snapshot(18.0, 1008.0).rates.sent == pytest.approx(100)


def test_chart_holds_all_that_was_sent() -> None:
    """The columns of the chart add up to the mails sent between the polls, at any intervals."""
    fleet = Fleet("jobs", "cache")
    for at, sent in ((1000.0, 0), (1001.5, 300), (1002.0, 400), (1007.0, 900)):
        fleet.note_poll(totals(at, sent), SEEN, [], now=at, redis_seconds=0.001)

    spark = fleet.snapshot(1007.0, 1007.0).spark_sent

    assert sum(spark) == pytest.approx(900, abs=len(spark) / 2)
    assert spark[-1] == 100
    assert sum(spark[-5:]) == pytest.approx(500, abs=3)


def test_growing_list_has_a_slope() -> None:
    """The trend of the list is taken from the polls of the last half minute."""
    fleet = Fleet("jobs", "cache")
    for second in range(5):
        seen = evolve(SEEN, waiting=100 + 7 * second)
        fleet.note_poll(totals(1000 + second, 0), seen, [], now=float(second), redis_seconds=0.001)

    assert fleet.snapshot(4.0, 1004.0).waiting_slope == pytest.approx(7)


@given(st.integers(1, 29), st.integers(50, 5000), st.integers(1, 40))
def test_list_that_falls_is_not_said_to_grow(seconds: int, burst: int, per_second: int) -> None:
    """Also after a burst of pushes within the half minute that the trend is taken from."""
    depths = [0] * (30 - seconds) + [max(1, burst - per_second * second) for second in range(seconds + 1)]
    found = heading([(float(second), depth) for second, depth in enumerate(depths)])

    assert found is not None
    assert found <= 0


@given(st.integers(1, 50), st.lists(st.integers(-3, 3), min_size=31, max_size=31))
def test_list_that_grows_steadily_is_said_to_grow(per_second: int, noise: list[int]) -> None:
    """By what it grows, within what single pushes make of it."""
    points = [(float(second), 100 + 8 * per_second * second + noise[second]) for second in range(31)]

    assert heading(points) == pytest.approx(8 * per_second, abs=1)


def test_without_a_worker_the_state_says_so() -> None:
    """A queue without a worker is not shown as running."""
    found = fleet_of().snapshot(10.0, 1000.0)

    assert state(found).word == "STOPPED"
    assert any("no worker is heard" in alert.text for alert in alerts(found))


def test_lost_worker_counts_for_nothing_but_an_alert() -> None:
    """A worker that is silent for too long is named; its consumers are not counted."""
    found = fleet_of(WorkerSeen(beat("gone:1"), LOST_SECONDS + 1), WorkerSeen(beat("here:2"), 1.0)).snapshot(
        10.0, 1000.0
    )

    assert found.number_workers == 10
    assert [alert.word for alert in alerts(found)] == ["LOST"]
    assert "gone:1" in alerts(found)[0].text


def test_worker_gets_lost_while_redis_is_away() -> None:
    """Without a poll the figures grow old, and the failure is shown."""
    fleet = fleet_of(WorkerSeen(beat(), 1.0))
    fleet.note_failure("no answer", 12.0)

    found = fleet.snapshot(40.0, 1030.0)

    assert found.queue_seen_seconds == pytest.approx(30)
    assert found.redis_down_seconds == pytest.approx(28)
    assert found.workers[0].is_lost


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ({}, {"version": "1.2.4"}, "VERSIONS"),
        ({"config": "aaaa"}, {"config": "bbbb"}, "SETTINGS"),
        ({}, {"trouble": "refuses the login with 535"}, "RELAY"),
    ],
)
def test_what_differs_among_workers_is_told(first: dict[str, str], second: dict[str, str], word: str) -> None:
    """Workers that differ where they should not, or of which some are in trouble, are an alert."""
    found = fleet_of(WorkerSeen(beat("a:1", **first), 1.0), WorkerSeen(beat("a:2", **second), 1.0))

    assert [alert.word for alert in alerts(found.snapshot(10.0, 1000.0))] == [word]


def test_a_relay_that_no_worker_reaches_is_a_state() -> None:
    """As each of them shows it by itself; one that reaches it is enough to run."""
    down = beat("a:1", trouble="refuses the login with 535", breaker="open")

    found = fleet_of(WorkerSeen(down, 1.0)).snapshot(10.0, 1000.0)
    assert state(found).word == document_of(found)["state"] == "NO RELAY"
    assert document_of(found)["alerts"] == [{"word": "RELAY", "severity": "trouble"}]
    both = fleet_of(WorkerSeen(down, 1.0), WorkerSeen(beat("a:2"), 1.0))
    assert state(both.snapshot(10.0, 1000.0)).word == "RUNNING"


def test_claims_are_counted_as_each_worker_counts_them() -> None:
    """Retries are claims too, even if few new jobs come from the list."""
    fleet = fleet_of(WorkerSeen(beat("a:1"), 1.0), WorkerSeen(beat("a:2"), 1.0))
    fleet.note_poll(totals(1004, 50), SEEN, [WorkerSeen(beat("a:1"), 1.0)] * 2, now=14.0, redis_seconds=0.001)

    assert fleet.snapshot(14.0, 1004.0).rates.claimed == pytest.approx(20)


def test_connections_of_all_workers_are_summed() -> None:
    """The page says so, and that each worker lists its own."""
    beats = [WorkerSeen(beat(f"a:{place}", connections=3, busy_connections=2), 1.0) for place in range(2)]
    head, *_ = connections_panel(fleet_of(*beats).snapshot(10.0, 1000.0), 100, 3)

    assert "6/8 open, 4 busy; each worker lists its own" in "".join(segment.text for segment in head)


def test_what_is_not_leased_any_more_is_in_nobodys_hand() -> None:
    """A heartbeat is older than the counts beside it: the figures of one screen must not contradict each other."""
    fleet = Fleet("jobs", "cache")
    busy = beat(in_hand=16, at_work=14, mails_in_flight=14, busy_consumers=8)
    fleet.note_poll(totals(1000, 50), evolve(SEEN, leased=3), [WorkerSeen(busy, 1.0)], now=10.0, redis_seconds=0.001)
    found = fleet.snapshot(10.0, 1000.0)

    assert (found.in_hand, found.at_work, found.mails_in_flight, found.busy_consumers) == (3, 3, 3, 3)


def test_a_chart_begins_with_what_the_workers_recorded() -> None:
    """Mails of the minutes before the first poll are spread over them, also where they are few; later polls go on."""
    fleet = Fleet("jobs", "cache")
    fleet.note_poll(totals(1000, 2203), SEEN, [], now=10.0, redis_seconds=0.001)
    blank = MinuteSample(0, *[0] * 10)
    ends = ((12, 0), (13, 3), (14, 603), (15, 1803), (16, 9999))
    minutes = [evolve(blank, minute=minute, sent=sent) for minute, sent in ends]

    fleet.note_past(minutes)
    chart = fleet.snapshot(10.0, 1000.0).spark_sent
    assert (sum(chart[-220:-160]), chart[-160:-100], chart[-100:-40], chart[-40:]) == (
        3,
        (10,) * 60,
        (20,) * 60,
        (10,) * 40,
    )

    fleet.note_poll(totals(1001, 2293), SEEN, [], now=11.0, redis_seconds=0.001)
    fleet.note_past(minutes)
    assert fleet.snapshot(11.0, 1001.0).spark_sent[-41:] == (*[10] * 40, 90)


def test_consumers_and_mails_in_flight_of_all_workers_are_summed() -> None:
    """As many as there are, and how many have a job; what is at work may be more."""
    beats = [
        WorkerSeen(beat(f"a:{place}", busy_consumers=8, at_work=17, mails_in_flight=17, depth=4), 1.0)
        for place in range(2)
    ]
    found = fleet_of(*beats).snapshot(10.0, 1000.0)

    assert work_words(found) == ("consumers busy 16/20", "34 mails in flight")
    assert found.at_work_limit == 80
    document = document_of(found)
    assert (document["busy_consumers"], document["number_workers"], document["at_work_limit"]) == (16, 20, 80)
    assert [each["busy_consumers"] for each in document["workers"]] == [8, 8]


def test_workers_of_a_version_without_consumers_say_so() -> None:
    """Its number is that of jobs at work: among others its consumers are not counted, and alone they are unknown."""
    old = WorkerSeen(beat("old:1", number_workers=640, depth=64, at_work=300, idle_share=0.5), 1.0)
    new = WorkerSeen(beat("new:2", busy_consumers=3, at_work=20, mails_in_flight=20, idle_share=0.9), 1.0)
    both, alone = fleet_of(old, new).snapshot(10.0, 1000.0), fleet_of(old).snapshot(10.0, 1000.0)

    assert work_words(both) == ("consumers busy 3/10", "20 mails in flight")
    assert both.idle_share == pytest.approx(0.9)
    assert both.at_work_limit == 640 + 10
    assert work_words(alone) == ("consumers busy -", "- mails in flight")
    assert (alone.busy_consumers, alone.number_workers) == (None, 640)
    assert alone.idle_share == pytest.approx(0.5)
    rows = ["".join(segment.text for segment in line).split() for line in workers_panel(both, 118, 2)[2:]]
    assert [(row[0], row[2]) for row in rows] == [("new:2", "3/10"), ("old:1", "-")]


def test_one_mail_at_a_time_is_seen_from_any_worker() -> None:
    """All workers have the same relay, and it is no trouble: mail goes."""
    limit = DepthLimit("the relay drops what is sent ahead of its answer (503 Bad sequence)", 4600.0)
    seen = fleet_of(WorkerSeen(beat("a:1"), 1.0), WorkerSeen(beat("a:2", depth_limit=limit), 1.0)).snapshot(
        10.0, 1000.0
    )

    assert seen.depth_limit == limit
    assert document_of(seen)["depth_limit"] == {"why": limit.why, "until": 4600.0}
    assert [each["depth_limit"] is None for each in document_of(seen)["workers"]] == [True, False]
    text = f"one mail at a time on each connection for 1h00m more: {limit.why}"
    assert [(alert.word, alert.text, alert.severity) for alert in alerts(seen)] == [("DEPTH", text, Severity.CAUTION)]


def test_suspended_connections_of_all_workers_are_summed() -> None:
    """In the words of the first, or of a refused login, until the last of them is tried again."""
    limited = Suspended(3, "refuses the connection with 421 4.7.0 (too many)", 1030.0, "greeting")
    refused = Suspended(2, "refuses the login with 535 5.7.8 (no)", 1010.0, "login")
    both = fleet_of(WorkerSeen(beat("a:1", suspended=limited), 1.0), WorkerSeen(beat("a:2", suspended=refused), 1.0))
    one = fleet_of(WorkerSeen(beat("a:1", suspended=limited), 1.0), WorkerSeen(beat("a:2"), 1.0))
    found = both.snapshot(10.0, 1000.0)

    assert found.suspended == Suspended(5, refused.why, 1030.0, "login")
    assert one.snapshot(10.0, 1000.0).suspended == limited
    assert document_of(found)["suspended"] == {"count": 5, "why": refused.why, "until": 1030.0, "how": "login"}
    assert [each["suspended"]["count"] for each in document_of(found)["workers"]] == [3, 2]
    assert [(alert.word, alert.text) for alert in alerts(found)] == [
        ("SUSPENDED", f"5 of 8 connections for 30s more: {refused.why}")
    ]
    head, *_ = connections_panel(found, 100, 3)
    assert "0 busy, 5 suspended for 30s; each worker lists its own" in "".join(segment.text for segment in head)
    lost = fleet_of(WorkerSeen(beat("a:1", suspended=limited), LOST_SECONDS + 1))
    assert lost.snapshot(10.0, 1000.0).suspended is None


def test_all_quiet_is_a_state() -> None:
    """If all workers are quiet, the state is quiet; if one is not, it is running."""
    quiet = beat("a:1", is_quiet=True)

    assert state(fleet_of(WorkerSeen(quiet, 1.0)).snapshot(10.0, 1000.0)).word == "QUIET"
    both = fleet_of(WorkerSeen(quiet, 1.0), WorkerSeen(beat("a:2"), 1.0))
    assert state(both.snapshot(10.0, 1000.0)).word == "RUNNING"


def test_another_server_begins_anew() -> None:
    """A clock that went back, as after a failover, gives no negative rate."""
    fleet = fleet_of(WorkerSeen(beat(), 1.0))
    fleet.note_poll(totals(900, 7), SEEN, [WorkerSeen(beat(), 1.0)], now=11.0, redis_seconds=0.001)

    assert fleet.snapshot(11.0, 901.0).rates.sent == pytest.approx(9)


def test_a_permission_that_our_login_lacks_says_nothing_of_the_workers() -> None:
    """Theirs may have it: one that was heard before is lost, and what is missing is said as our own."""
    found = fleet_of(WorkerSeen(beat("gone:1"), LOST_SECONDS + 1))
    found.note_refusal(Unavailable("no permission for ZADD", is_refusal=True, is_denied=True))
    shown = found.snapshot(10.0, 1000.0)

    assert shown.write_refusal == ""
    words = {alert.word: alert for alert in alerts(shown)}
    assert "LOST" in words
    assert words["LOGIN"].severity is Severity.CAUTION
    assert "if theirs is the same, none is heard: no permission for ZADD" in words["LOGIN"].text
    found.note_refusal(Unavailable("NOREPLICAS", is_refusal=True))
    assert found.snapshot(10.0, 1000.0).write_refusal == "NOREPLICAS"
