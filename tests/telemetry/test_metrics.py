"""Metrics: a scrape has all of the table, sums agree with the ledger, and no label names a person or a host."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.support.snapshot import busy, fresh, without_redis, without_relay
from trio_worker.queue.claim import Source
from trio_worker.queue.losses import LossSign
from trio_worker.queue.operator_counts import DRAIN_BOUNDS, OperatorAction, drain_names, read_operator_counts
from trio_worker.queue.record import Cause
from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    PlacesRestored,
    PlacesSuspended,
)
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Loss, Trouble
from trio_worker.smtp.reply import Stage, reply_from
from trio_worker.telemetry.board import Board
from trio_worker.telemetry.heartbeat import DepthLimit, Suspended
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.ledger_entry import enter
from trio_worker.telemetry.metric_table import TABLE, Kind
from trio_worker.telemetry.metrics import JOBS_GATHERED, Metrics
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.worker.attempt import AttemptReport, AttemptResult
from trio_worker.worker.events import (
    BreakerChanged,
    Claimed,
    DataLost,
    Event,
    LeasesRecovered,
    RateLimited,
    RateLimitLifted,
    RedisFailed,
    SettingsRead,
    Settled,
    SettledJob,
)
from trio_worker.worker.phase import Disposition
from trio_worker.worker.queue_seen import QueueSeen
from trio_worker.worker.state import WorkerState

# Labels that could name a person or a host; `state`, `stage` and so on have fixed values.
FORBIDDEN_LABELS = {"host", "instance", "pod", "domain", "recipient", "job", "job_id", "worker", "address"}
causes = st.builds(
    Cause,
    st.sampled_from(["refused", "malformed", "expired", "something new"]),
    st.sampled_from(["", "550 5.1.1", "451 4.7.1", "timeout", "garbled", "eof"]),
    st.sampled_from(["", "rcpt", "final", "nowhere"]),
)
settlements = st.builds(
    SettledJob,
    job_id=st.just("id"),
    disposition=st.sampled_from(Disposition),
    attempt=st.integers(1, 40),
    cause=st.none() | causes,
    waited_seconds=st.none() | st.floats(0, 1e6),
    smtp_seconds=st.none() | st.floats(0, 1e3),
    total_seconds=st.floats(0, 1e3),
    is_uncertain=st.booleans(),
    tried=st.none()
    | st.builds(AttemptReport, st.sampled_from(AttemptResult), st.integers(0, 10**8), st.floats(0, 9), st.floats(0, 9)),
)
events = st.lists(
    st.builds(Claimed, st.lists(st.tuples(st.just("id"), st.sampled_from(Source), st.just(1)), min_size=1).map(tuple))
    | st.builds(Settled, st.lists(settlements, min_size=1, max_size=5).map(tuple))
    | st.builds(LeasesRecovered, st.integers(0, 9), held=st.integers(0, 9))
    | st.builds(ConnectionOpened, st.just(1), st.floats(0, 100), st.just(Capabilities()))
    | st.builds(
        ConnectionFailed, st.builds(Trouble, st.sampled_from(FailureKind), st.sampled_from(Stage), st.just("x"))
    )
    | st.builds(ConnectionClosed, st.just(1), st.text(max_size=9), st.just(0), st.just(0.0))
    | st.builds(DataLost, st.sampled_from(LossSign), st.integers(1, 9))
    | st.builds(RedisFailed, st.text(max_size=9), st.just("x")),
    max_size=40,
)


def scraped(metrics: Metrics) -> dict[str, float]:
    """Return every sample of a scrape, its labels in its name, but for the queue."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "queue")
            found[f"{sample.name.removeprefix('trio_worker_')}{{{labels}}}"] = sample.value
    return found


def families(metrics: Metrics) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}


def test_scrape_shows_what_the_table_says() -> None:
    """Every metric of the table is there, with its type, and nothing else but the process' own."""
    found = families(Metrics(busy))
    ours = {name: family for name, family in found.items() if not name.startswith(("process_", "python_gc_"))}
    expected = {metric.exported.removesuffix("_total") for metric in TABLE}

    assert set(ours) == expected
    for metric in TABLE:
        assert ours[metric.exported.removesuffix("_total")].type == metric.kind.value


def test_names_follow_the_conventions() -> None:
    """Only counters end in _total; units are base units; no label names a person or a host."""
    for metric in TABLE:
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
        assert re.fullmatch(r"[a-z_]+", metric.name)
        assert not metric.labels.keys() & FORBIDDEN_LABELS
        assert not re.search(r"_(ms|minutes|mb|kb|percent)(_|$)", metric.name)


def test_all_label_sets_are_there_at_nothing() -> None:
    """Before anything happened every counter is 0, so that a rate of the first event is seen."""
    found = scraped(Metrics(fresh))

    for metric in TABLE:
        if metric.kind is Kind.COUNTER and not metric.is_in_redis:
            values = [value for name, value in found.items() if name.startswith(f"{metric.name}{{")]
            sets = 1
            for each in metric.labels.values():
                sets *= len(each)
            assert values == [0.0] * sets


@given(events)
def test_sums_are_those_of_the_ledger(happened: list[Event]) -> None:
    """After any events, metrics and the ledger have the same counts."""
    metrics, ledger = Metrics(busy), Ledger()
    for event in happened:
        metrics.note(event)
        enter(ledger, event)
    found = scraped(metrics)

    assert sum(v for name, v in found.items() if name.startswith("jobs_claimed_total")) == ledger.claimed
    for disposition in Disposition:
        assert found[f"jobs_settled_total{{outcome={disposition}}}"] == ledger.settled[disposition]
    assert found["jobs_uncertain_total{}"] == ledger.uncertain
    assert found["smtp_connections_opened_total{}"] == ledger.opened
    assert found["smtp_connect_seconds_sum{}"] == pytest.approx(ledger.opening_seconds)
    dead = sum(v for name, v in found.items() if name.startswith("dead_letters_total"))
    assert dead == sum(ledger.deaths.values())


def test_gauges_are_those_of_the_snapshot() -> None:
    """The scrape says what the dashboard shows."""
    found = scraped(Metrics(busy))

    assert found["queue_jobs{state=waiting}"] == 12_431
    assert found["queue_jobs{state=dead}"] == 7
    assert found["jobs_in_hand{}"] == 16
    assert (found["jobs_at_work{}"], found["jobs_at_work_limit{}"]) == (14, 16)
    assert (found["consumers{}"], found["consumers_busy{}"], found["idle_ratio{}"]) == (16, 14, 0.02)
    assert found["smtp_connections{state=busy}"] == 13
    assert found["relay_breaker_state{state=closed}"] == 1
    assert found["worker_state{state=running}"] == 1
    assert busy().at - found["queue_oldest_timestamp_seconds{}"] == pytest.approx(30.6)


def test_trouble_shows() -> None:
    """An open breaker and an absent Redis are states, not missing series."""
    without = scraped(Metrics(without_relay))

    assert (without["relay_breaker_state{state=open}"], without["relay_breaker_state{state=closed}"]) == (1, 0)
    assert scraped(Metrics(without_redis))["redis_up{}"] == 0


def test_what_is_not_known_is_absent() -> None:
    """A time that is not known has no sample, instead of the year 1970."""
    found = scraped(Metrics(fresh))

    assert not any(
        name.startswith(("queue_oldest", "last_sent", "redis_inspect", "drain", "admin_actions")) for name in found
    )


def test_scrapes_within_a_second_share_their_figures() -> None:
    """Two scrapers at once cost one reading."""
    taken = []

    def take() -> Snapshot:
        taken.append(1)
        return busy()

    metrics = Metrics(take)
    before = len(taken)

    assert metrics.exposition() is metrics.exposition()
    assert len(taken) == before + 1


def test_opened_breaker_is_counted_once() -> None:
    """Each opening is one; a probe that fails opens again."""
    metrics = Metrics(busy)
    metrics.note(BreakerChanged(without_relay().breaker))
    metrics.note(BreakerChanged(evolve(without_relay()).breaker))

    assert scraped(metrics)["breaker_opened_total{}"] == 2


def test_lost_log_lines_are_counted() -> None:
    """A log that cannot be written is seen from outside."""
    assert scraped(Metrics(busy, lambda: 7))["log_lines_dropped_total{}"] == 7


def test_every_metric_is_there_or_said_to_be_absent() -> None:
    """The meaning of a metric says if it may be absent, for authors of alerts."""
    for metric in TABLE:
        assert metric.is_always_there or "absent" in metric.help_text or metric.name == "config_info"


def test_try_adds_to_its_sums() -> None:
    """Attempts, recipients, bytes and times of one mail that two of three recipients were accepted for."""
    metrics = Metrics(busy)
    tried = AttemptReport(AttemptResult.OK, 1500, 0.0002, 0.02, accepted=2, refused=1)
    cause = Cause("deferred", "451")
    metrics.note(Settled((SettledJob("a", Disposition.DELAYED, smtp_seconds=0.1, cause=cause, tried=tried),)))
    found = scraped(metrics)

    assert found["smtp_attempts_total{result=ok}"] == 1
    assert found["recipients_total{result=accepted}"] == 2
    assert found["recipients_total{result=refused}"] == 1
    assert found["smtp_accepted_bytes_total{}"] == found["message_bytes_sum{}"] == 1500
    assert found["compose_seconds_sum{}"] == pytest.approx(0.0002)
    assert found["smtp_borrow_seconds_sum{}"] == pytest.approx(0.02)
    assert found["jobs_delayed_total{cause=deferred}"] == 1


def test_settlements_between_two_scrapes_are_all_counted() -> None:
    """At any number they do not collect without limit, and each is counted once."""
    metrics, many = Metrics(busy), 2 * JOBS_GATHERED + 7
    for _ in range(many):
        metrics.note(Settled((SettledJob("a", Disposition.SENT, attempt=1, total_seconds=0.5),)))
        assert len(metrics._gathered) < JOBS_GATHERED
    first = scraped(metrics)
    metrics._made = None

    for found in (first, scraped(metrics)):
        assert found["jobs_settled_total{outcome=sent}"] == found["job_attempts_count{}"] == many
        assert found["hands_busy_seconds_total{}"] == many * 0.5


def test_refusals_are_counted_by_code_and_no_relay_can_make_series() -> None:
    """Of mails and of connections; an unusual code counts as its class."""
    metrics = Metrics(busy)
    before = len(scraped(metrics))
    for code in range(400, 600):
        cause = Cause("refused", f"{code} 5.1.1", "rcpt")
        metrics.note(Settled((SettledJob("a", Disposition.DEAD, cause=cause),)))
    metrics.note(ConnectionFailed(Trouble(FailureKind.LOGIN, Stage.AUTH, "x", reply_from(535, "5.7.8 no", Stage.AUTH))))
    metrics._made = None
    found = scraped(metrics)

    assert len(found) == before
    assert found["smtp_refusals_total{code=550,stage=rcpt}"] == 1
    assert found["smtp_refusals_total{code=535,stage=auth}"] == 1
    refusals = sum(value for name, value in found.items() if name.startswith("smtp_refusals_total"))
    assert refusals == 201


def test_jobs_that_ended_their_workers_are_dead_letters_too() -> None:
    """They were buried by the claim, not by a settlement."""
    metrics = Metrics(busy)
    metrics.note(LeasesRecovered(0, crashed=2, held=0, too_large=3))
    found = scraped(metrics)

    assert (found["dead_letters_total{cause=crashed}"], found["dead_letters_total{cause=too_large}"]) == (2, 3)


def test_connections_close_for_known_reasons() -> None:
    """The word before the details; what is new counts as other."""
    metrics = Metrics(busy)
    loss = Loss(FailureKind.CLOSING, Stage.FINAL, "the relay is closing", reply_from(421, "bye", Stage.FINAL))
    for why in ("idle", str(loss), "something new"):
        metrics.note(ConnectionClosed(1, why, 0, 0.0))
    found = scraped(metrics)

    assert found["smtp_connections_closed_total{reason=idle}"] == 1
    assert found["smtp_connections_closed_total{reason=closing}"] == 1
    assert found["smtp_connections_closed_total{reason=other}"] == 1


def test_calls_to_redis_are_counted_and_timed() -> None:
    """By operation; a refusal and a missing answer are different results."""
    metrics = Metrics(busy)
    metrics.note_call("claim", 0.002, None)
    metrics.note_call("settle", 0.004, Unavailable("OOM", is_refusal=True))
    metrics.note_call("LINDEX", 10.0, Unavailable("no answer"))
    found = scraped(metrics)

    assert found["redis_requests_total{op=claim,result=ok}"] == 1
    assert found["redis_requests_total{op=settle,result=refused}"] == 1
    assert found["redis_requests_total{op=other,result=error}"] == 1
    assert found["redis_request_seconds_sum{op=settle}"] == pytest.approx(0.004)


def test_worker_that_cannot_look_makes_no_queue_late() -> None:
    """Other workers may serve it: an alert on the age of this worker's last poll would be false."""
    metrics = Metrics(lambda: evolve(busy(), redis_down_seconds=400.0))

    assert "queue_oldest_timestamp_seconds{}" not in scraped(metrics)


def test_pause_and_next_retry_are_timestamps() -> None:
    """Each counted from the last poll of the queue."""
    queue = QueueSeen(0, 1, 0, 0, 0, paused="x", pause_seconds_left=600.0, next_due_seconds=-30.0)
    snapshot = evolve(busy(), queue=queue, queue_seen_seconds=2.0)
    found = scraped(Metrics(lambda: snapshot))

    assert found["queue_pause_until_timestamp_seconds{}"] == pytest.approx(snapshot.at - 2 + 600)
    assert found["queue_next_due_timestamp_seconds{}"] == pytest.approx(snapshot.at - 2 - 30)


def test_settings_that_were_read_anew_take_the_place_of_the_old() -> None:
    """One digest is shown, that of what is in force."""
    metrics = Metrics(busy, config="a1b2", profile="production")
    metrics.note_config("c3d4")
    found = scraped(metrics)

    assert [name for name in found if name.startswith("config_info")] == ["config_info{digest=c3d4,profile=production}"]


def test_settings_and_limits_are_shown() -> None:
    """The limit only where there is one; what people did, and what the log took."""
    metrics = Metrics(busy, logged_lines=lambda: {"warning": 3}, dead_limit=500, config="a1b2", profile="production")
    metrics.note(SettingsRead(faults=("smtp.port: must be a number",)))
    found = scraped(metrics)

    assert found["config_info{digest=a1b2,profile=production}"] == 1
    assert found["dead_letters_limit{}"] == 500
    assert "dead_letters_limit{}" not in scraped(Metrics(busy))
    assert found["config_reloads_total{result=fault}"] == 1
    assert found["log_messages_total{level=warning}"] == 3


def test_what_the_queue_counts_is_shown_as_it_stands() -> None:
    """It counts for all workers: it does not start at 0 with this one, and is absent before the first poll."""
    totals = {"dead_retried": 40, "act_dead_retry": 2, "drains_0": 3, "drains_8": 1, "drain_ms": 125_500}
    queue = QueueSeen(0, 0, 0, 0, 0, poll_seconds=0.002, operator_counts=read_operator_counts(totals))
    found = scraped(Metrics(lambda: evolve(busy(), queue=queue)))

    assert found["dead_letters_removed_total{reason=retried}"] == 40
    assert found["dead_letters_removed_total{reason=dropped}"] == 0
    assert {name for name in found if name.startswith("admin_actions_total")} == {
        f"admin_actions_total{{action={act}}}" for act in OperatorAction
    }
    assert found["admin_actions_total{action=dead_retry}"] == 2
    assert (found["drain_seconds_bucket{le=1.0}"], found["drain_seconds_bucket{le=120.0}"]) == (3, 3)
    assert (found["drain_seconds_count{}"], found["drain_seconds_sum{}"]) == (4, 125.5)
    assert found["redis_inspect_seconds{}"] == 0.002


@given(st.floats(0, 1e4))
def test_drain_is_counted_under_its_bound(seconds: float) -> None:
    """One drain is one in one place, and its time is in the sum."""
    name, summed_up = drain_names(seconds)
    operator_counts = read_operator_counts({name: 1, summed_up: round(seconds * 1000)})
    (place,) = (place for place, number in enumerate(operator_counts.drains) if number)

    assert sum(operator_counts.drains) == 1
    assert place == 0 or DRAIN_BOUNDS[place - 1] < seconds
    assert seconds <= [*DRAIN_BOUNDS, inf][place]
    assert operator_counts.drain_seconds == pytest.approx(seconds, abs=0.001)


def test_each_wake_up_is_measured_and_connections_that_are_none_yet_are_counted() -> None:
    """A lag falls into its bucket; what is being opened is a state of the pool."""
    metrics = Metrics(lambda: evolve(busy(), connecting=2))
    metrics.note_lag(0.02)
    found = scraped(metrics)

    assert (found["loop_lag_seconds_bucket{le=0.01}"], found["loop_lag_seconds_bucket{le=0.025}"]) == (0, 1)
    assert found["smtp_connections{state=connecting}"] == 2


def test_one_mail_at_a_time_is_a_gauge() -> None:
    """0 while connections carry as many as the settings say."""
    limited = Metrics(lambda: evolve(busy(), depth_limit=DepthLimit("503", 1e9)))

    assert scraped(Metrics(busy))["smtp_one_mail_at_a_time{}"] == 0
    assert scraped(limited)["smtp_one_mail_at_a_time{}"] == 1


def test_suspended_connections_are_counted_and_say_until_when() -> None:
    """Now, and how often since the start, by how; the time is absent while there are none."""
    told = Suspended(8, "refuses the login with 535 5.7.8", 1e9, "login")
    calm, metrics = scraped(Metrics(busy)), Metrics(lambda: evolve(busy(), suspended=told))
    metrics.note(PlacesSuspended(Trouble(FailureKind.LOGIN, Stage.AUTH, ""), 60.0))
    metrics.note(PlacesSuspended(Trouble(FailureKind.LOGIN, Stage.AUTH, ""), 120.0))
    metrics.note(PlacesRestored(8))
    found = scraped(metrics)

    assert (found["smtp_connections{state=backoff}"], calm["smtp_connections{state=backoff}"]) == (8, 0)
    assert found["smtp_suspensions_total{how=login}"] == 2
    assert sum(value for name, value in found.items() if name.startswith("smtp_suspensions_total")) == 2
    assert found["smtp_suspended_until_timestamp_seconds{}"] == 1e9
    assert "smtp_suspended_until_timestamp_seconds{}" not in calm


def test_limit_of_jobs_at_work_is_that_of_all_windows() -> None:
    """The number of consumers, times the depth of a connection."""
    board = Board("jobs", "redis", "relay:25", started_at=0.0)
    state = WorkerState(number_workers=10, max_connections=10, depth=64)
    found = scraped(Metrics(lambda: board.snapshot(1.0, 1.0, state)))

    assert (found["consumers{}"], found["jobs_at_work_limit{}"]) == (10, 640)


def test_end_of_the_certificate_is_that_of_the_last_connection() -> None:
    """Absent where there is no TLS."""
    metrics = Metrics(busy)
    metrics.note(ConnectionOpened(1, 0.1, Capabilities(), "TLSv1.3", 1.9e9))
    assert scraped(metrics)["smtp_certificate_expiry_timestamp_seconds{}"] == 1.9e9

    metrics._made = None
    metrics.note(ConnectionOpened(2, 0.1, Capabilities()))
    assert "smtp_certificate_expiry_timestamp_seconds{}" not in scraped(metrics)


def test_a_rate_that_the_relay_limits_is_a_figure() -> None:
    """Counted each time that it says so; 0 when it does no more."""
    metrics = Metrics(busy)
    trouble = Trouble(FailureKind.RATE, Stage.FINAL, "refused")
    for per_second in (14.0, 13.5):
        metrics.note(RateLimited(trouble, 1.0, per_second))
    found = scraped(metrics)
    assert (found["smtp_rate_limits_total{}"], found["smtp_rate_limit_per_second{}"]) == (2, 13.5)
    lifted = Metrics(busy)
    lifted.note(RateLimited(trouble, 1.0, 14.0))
    lifted.note(RateLimitLifted())
    assert scraped(lifted)["smtp_rate_limit_per_second{}"] == 0
