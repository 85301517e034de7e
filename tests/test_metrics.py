"""Metrics: the table is what a scrape shows, sums agree with the ledger, and nothing names anybody."""

from __future__ import annotations

import re
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sample_snapshot import busy, fresh, without_redis, without_relay

from trio_worker.events import (
    BreakerChanged,
    Claimed,
    ConnectionFailed,
    ConnectionOpened,
    Disposition,
    Event,
    LeasesRecovered,
    Ledger,
    RedisFailed,
    Settled,
    Source,
)
from trio_worker.metric_table import TABLE, Kind
from trio_worker.metrics import Metrics
from trio_worker.outcome import How, Trouble
from trio_worker.record import Cause
from trio_worker.reply import Stage
from trio_worker.smtp import Capabilities
from trio_worker.snapshot import Snapshot

# Words that would tell who or where; `state`, `stage` and so on are closed lists.
FORBIDDEN_LABELS = {"host", "instance", "pod", "domain", "recipient", "job", "job_id", "worker", "address"}
causes = st.builds(
    Cause,
    st.sampled_from(["refused", "malformed", "expired", "something new"]),
    st.sampled_from(["", "550 5.1.1", "451 4.7.1", "timeout", "garbled", "eof"]),
    st.sampled_from(["", "rcpt", "final", "nowhere"]),
)
settlements = st.builds(
    Settled,
    job_id=st.just("id"),
    disposition=st.sampled_from(Disposition),
    attempt=st.integers(1, 40),
    cause=st.none() | causes,
    waited_seconds=st.none() | st.floats(0, 1e6),
    smtp_seconds=st.none() | st.floats(0, 1e3),
    total_seconds=st.floats(0, 1e3),
    is_uncertain=st.booleans(),
)
events = st.lists(
    st.builds(Claimed, st.just("id"), st.sampled_from(Source), st.just(1))
    | settlements
    | st.builds(LeasesRecovered, st.integers(0, 9))
    | st.builds(ConnectionOpened, st.just(1), st.floats(0, 100), st.just(Capabilities()))
    | st.builds(ConnectionFailed, st.builds(Trouble, st.sampled_from(How), st.sampled_from(Stage), st.just("x")))
    | st.builds(RedisFailed, st.sampled_from(["claim", "settle", "renew"]), st.just("x")),
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
    ours = {name: family for name, family in found.items() if not name.startswith("process_")}
    expected = {metric.exported.removesuffix("_total") for metric in TABLE}

    assert set(ours) == expected
    for metric in TABLE:
        assert ours[metric.exported.removesuffix("_total")].type == metric.kind.value


def test_names_follow_the_conventions() -> None:
    """Counters end in _total and nothing else does; units are base units; no label tells who or where."""
    for metric in TABLE:
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
        assert re.fullmatch(r"[a-z_]+", metric.name)
        assert not metric.labels.keys() & FORBIDDEN_LABELS
        assert not re.search(r"_(ms|minutes|mb|kb|percent)(_|$)", metric.name)


def test_all_label_sets_are_there_at_nothing() -> None:
    """Before anything happened every counter is 0, so that a rate of the first event is seen."""
    found = scraped(Metrics(fresh))

    for metric in TABLE:
        if metric.kind is Kind.COUNTER:
            values = [value for name, value in found.items() if name.startswith(f"{metric.name}{{")]
            sets = 1
            for each in metric.labels.values():
                sets *= len(each)
            assert values == [0.0] * sets


@given(events)
def test_sums_are_those_of_the_ledger(happened: list[Event]) -> None:
    """Whatever happens, metrics and the exit ledger count the same."""
    metrics, ledger = Metrics(busy), Ledger()
    for event in happened:
        metrics.note(event)
        ledger.note(event)
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

    assert not any(name.startswith(("queue_oldest", "last_sent", "loop_lag")) for name in found)


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
