"""Edge. The worker's metrics for Prometheus: one table of all of them, filled by the events, read at a scrape.

Labels are few and closed: no host, no address, no domain, no job. Every set of labels is there at 0 from the start, and
times are timestamps, from which whoever asks makes ages.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import product
from typing import Any, get_args

from attrs import define, field, frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from trio_worker import __version__
from trio_worker.breaker import Closed, HalfOpen, Open
from trio_worker.events import (
    BreakerChanged,
    Claimed,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Disposition,
    Event,
    JobBroke,
    JournalReplayed,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    Phase,
    RedisFailed,
    RedisRecovered,
    Settled,
    SettlementsKept,
    Source,
)
from trio_worker.fault import Reason
from trio_worker.outcome import How
from trio_worker.snapshot import Snapshot

# A second series for each counter, which says when the process began: process_start_time_seconds does.
disable_created_metrics()  # type: ignore[no-untyped-call]

PREFIX = "trio_worker_"
# A scrape within this time of the last one sees the same figures.
KEPT_SECONDS = 1.0

_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PATIENT = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_ATTEMPTS = (1, 2, 3, 4, 5, 7, 10, 15, 30)

_STATES = ("waiting", "leased", "delayed", "held", "dead")
_RESULTS = ("ok", "transient", "permanent", "timeout", "connection", "protocol")
_STAGES = ("greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "final")
_BREAKERS = ("closed", "open", "half_open")
# Of deaths: by the relay, by time, by the job itself.
_WORDS = ("refused", "exhausted", "too_old", "expired", "unfit", "not_allowed", "broke", *get_args(Reason), "other")


class Kind(Enum):
    """What a metric is, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@frozen
class Metric:
    """One metric: its name without the prefix, its meaning, and the values that each label can have."""

    name: str
    kind: Kind
    says: str
    labels: Mapping[str, tuple[str, ...]] = field(factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name as a scrape shows it."""
        return PREFIX + self.name


def _counter(name: str, says: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.COUNTER, says, labels)


def _gauge(name: str, says: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.GAUGE, says, labels)


def _histogram(name: str, says: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name, Kind.HISTOGRAM, says, {}, buckets)


TABLE: tuple[Metric, ...] = (
    _counter("jobs_claimed_total", "Jobs that came into this worker's hands.", source=tuple(map(str, Source))),
    _counter(
        "jobs_settled_total", "Jobs that left them, by what became of them.", outcome=tuple(map(str, Disposition))
    ),
    _counter("jobs_uncertain_total", "Mails that may have been delivered without anybody knowing."),
    _counter("jobs_broken_total", "Jobs whose handling raised: a bug, or a template of yours."),
    _counter("dead_letters_total", "Jobs that this worker buried, by cause.", cause=_WORDS),
    _counter("leases_expired_total", "Leases of other workers that had run out and were taken over."),
    _counter("leases_lost_total", "Jobs in hand that somebody else had taken over."),
    _counter("hands_busy_seconds_total", "Seconds that jobs were in hand, from claim to settlement, summed up."),
    _counter("smtp_attempts_total", "Mails tried at the relay, by what it said.", result=_RESULTS),
    _counter(
        "smtp_refusals_total", "Refusals by stage and class of the reply.", stage=_STAGES, reply_class=("4xx", "5xx")
    ),
    _counter("smtp_connections_opened_total", "Connections to the relay that were opened."),
    _counter(
        "smtp_connections_failed_total", "Connections that could not be opened, by how.", how=tuple(map(str, How))
    ),
    _counter("smtp_connections_closed_total", "Connections that ended."),
    _counter("breaker_opened_total", "Times that claiming stopped because the relay was in trouble."),
    _counter(
        "redis_errors_total",
        "Calls to Redis that failed first or in a new way, by what they were for.",
        op=("claim", "settle", "renew"),
    ),
    _counter("redis_recoveries_total", "Times that Redis answered again."),
    _counter("journal_settlements_total", "Settlements that Redis did not take, written to the journal."),
    _counter(
        "journal_replayed_total",
        "Settlements of processes that are gone, told to Redis.",
        result=("settled", "refused"),
    ),
    _counter("loop_complaints_total", "Things that the asyncio loop under the libraries complained of."),
    _counter("log_lines_dropped_total", "Log lines that found the disk too slow or gone."),
    _gauge("queue_jobs", "Jobs of the queue by state; every worker says the same: use max.", state=_STATES),
    _gauge("queue_due_jobs", "Delayed jobs whose time has come."),
    _gauge("queue_oldest_timestamp_seconds", "When the job at the head of the list was pushed; absent if unknown."),
    _gauge("queue_paused", "1 while the queue is paused."),
    _gauge("queue_seen_timestamp_seconds", "When the queue was last looked at."),
    _gauge("workers", "Workers with a heartbeat."),
    _gauge("worker_state", "1 for the phase that this worker is in.", state=tuple(map(str, Phase))),
    _gauge("worker_quiet", "1 while somebody wants this worker to claim nothing."),
    _gauge("jobs_in_hand", "Jobs in this worker's hands."),
    _gauge("jobs_in_hand_limit", "Jobs at work at once, at the most (number_workers)."),
    _gauge("idle_ratio", "Part of the hands that had nothing to do over the last minute."),
    _gauge("smtp_connections", "Connections to the relay.", state=("idle", "busy")),
    _gauge("smtp_connections_limit", "Most of them (smtp.pool.max_size)."),
    _gauge("relay_breaker_state", "1 for the state that the breaker is in.", state=_BREAKERS),
    _gauge("last_sent_timestamp_seconds", "When the last mail was sent; absent before the first."),
    _gauge("last_claimed_timestamp_seconds", "When the last job was claimed; absent before the first."),
    _gauge("redis_up", "1 while Redis answers."),
    _gauge("redis_round_trip_seconds", "The last heartbeat's; absent before the first and while Redis is away."),
    _gauge("loop_lag_seconds", "How late the loop wakes, 99 % of the last minute; absent before the first second."),
    _gauge("build_info", "1; what runs.", version=(__version__,), python=(platform.python_version(),)),
    _histogram("job_wait_seconds", "From push to claim, deliberate delays left out.", _PATIENT),
    _histogram("job_latency_seconds", "From push to settled as sent.", _PATIENT),
    _histogram("job_attempts", "Attempts of jobs that were sent or died.", _ATTEMPTS),
    _histogram("smtp_transaction_seconds", "From MAIL to the deciding reply.", _QUICK),
    _histogram("smtp_connect_seconds", "From the first packet to a connection that is ready for mail.", _QUICK),
)


@define(eq=False)
class Metrics:
    """The metrics of one worker: a sink of its events, and a registry that `exposition` writes out.

    ``take_snapshot`` gives the figures that are not sums of events, ``lost_lines`` the log lines lost so far.
    """

    take_snapshot: Callable[[], Snapshot]
    lost_lines: Callable[[], int] = lambda: 0
    registry: CollectorRegistry = field(factory=CollectorRegistry)
    _children: dict[tuple[str, ...], Any] = field(factory=dict)
    _made: tuple[float, bytes] | None = None
    _queue_name: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        queue = self._queue_name = self.take_snapshot().queue_name
        makers = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge}
        for metric in TABLE:
            names = ("queue", *metric.labels)
            if metric.kind is Kind.HISTOGRAM:
                made: Any = Histogram(
                    metric.exported, metric.says, names, registry=self.registry, buckets=metric.buckets
                )
            else:
                made = makers[metric.kind](metric.exported, metric.says, names, registry=self.registry)
            for values in product(*metric.labels.values()):
                if metric.name not in _SOMETIMES_ABSENT:
                    self._children[metric.name, *values] = made.labels(queue, *values)
            if metric.name in _SOMETIMES_ABSENT:
                self._children[metric.name, "maker"] = made
        ProcessCollector(registry=self.registry)
        self._children["build_info", __version__, platform.python_version()].set(1)

    def note(self, event: Event) -> None:
        """Add one event; a few microseconds for each mail."""
        child = self._children
        match event:
            case Claimed(source=source):
                child["jobs_claimed_total", source].inc()
                self._stamp("last_claimed_timestamp_seconds")
            case Settled():
                self._note_settled(event)
            case LeasesRecovered(count):
                child["leases_expired_total",].inc(count)
                child["jobs_uncertain_total",].inc(count)
            case LeaseLost():
                child["leases_lost_total",].inc()
            case ConnectionOpened(seconds=seconds):
                child["smtp_connections_opened_total",].inc()
                child["smtp_connect_seconds",].observe(seconds)
            case ConnectionFailed(trouble):
                child["smtp_connections_failed_total", trouble.how].inc()
            case ConnectionClosed():
                child["smtp_connections_closed_total",].inc()
            case BreakerChanged(Open()):
                child["breaker_opened_total",].inc()
            case RedisFailed(doing):
                child["redis_errors_total", doing].inc()
            case RedisRecovered():
                child["redis_recoveries_total",].inc()
            case SettlementsKept(count):
                child["journal_settlements_total",].inc(count)
            case JournalReplayed(settled, refused):
                child["journal_replayed_total", "settled"].inc(settled)
                child["journal_replayed_total", "refused"].inc(refused)
            case JobBroke():
                child["jobs_broken_total",].inc()
            case LoopComplained():
                child["loop_complaints_total",].inc()
            case _:
                pass  # the others are figures of the snapshot

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format (version 0.0.4)."""
        now = time.monotonic()
        if self._made is None or now - self._made[0] >= KEPT_SECONDS:
            self._set_gauges(self.take_snapshot())
            self._made = now, generate_latest(self.registry)
        return self._made[1]

    def _note_settled(self, settled: Settled) -> None:
        child, cause = self._children, settled.cause
        child["jobs_settled_total", settled.disposition].inc()
        child["hands_busy_seconds_total",].inc(settled.total_seconds)
        if settled.is_uncertain:
            child["jobs_uncertain_total",].inc()
        if settled.waited_seconds is not None:
            child["job_wait_seconds",].observe(settled.waited_seconds)
        if settled.smtp_seconds is not None:
            child["smtp_transaction_seconds",].observe(settled.smtp_seconds)
            child["smtp_attempts_total", _result_of(settled)].inc()
        if settled.disposition is Disposition.SENT:
            self._stamp("last_sent_timestamp_seconds")
            child["job_attempts",].observe(settled.attempt)
            if settled.waited_seconds is not None:
                child["job_latency_seconds",].observe(settled.waited_seconds + settled.total_seconds)
        elif cause is not None:
            if cause.codes[:1] in ("4", "5") and cause.stage in _STAGES:
                child["smtp_refusals_total", cause.stage, f"{cause.codes[0]}xx"].inc()
            if settled.disposition is Disposition.DEAD:
                child["job_attempts",].observe(settled.attempt)
                child["dead_letters_total", cause.word if cause.word in _WORDS else "other"].inc()

    def _stamp(self, name: str) -> None:
        self._present(name, time.time())

    def _present(self, name: str, value: float | None) -> None:
        """Set a gauge that is absent while nothing is known."""
        maker = self._children[name, "maker"]
        if value is None:
            maker.clear()
        else:
            maker.labels(self._queue_name).set(value)

    def _set_gauges(self, snapshot: Snapshot) -> None:
        child, queue = self._children, snapshot.queue
        if queue is not None:
            for state in _STATES:
                child["queue_jobs", state].set(getattr(queue, state))
            child["queue_due_jobs",].set(queue.due)
            child["queue_paused",].set(bool(queue.paused))
        seen_at = None if snapshot.queue_seen_seconds is None else snapshot.at - snapshot.queue_seen_seconds
        oldest = None if queue is None or seen_at is None else queue.oldest_seconds
        self._present("queue_oldest_timestamp_seconds", None if oldest is None else (seen_at or 0.0) - oldest)
        self._present("queue_seen_timestamp_seconds", seen_at)
        child["workers",].set(sum(not worker.is_lost for worker in snapshot.workers))
        for phase in Phase:
            child["worker_state", str(phase)].set(snapshot.phase is phase)
        child["worker_quiet",].set(snapshot.is_quiet)
        child["jobs_in_hand",].set(snapshot.in_hand)
        child["jobs_in_hand_limit",].set(snapshot.number_workers)
        child["idle_ratio",].set(1.0 if snapshot.idle_share is None else snapshot.idle_share)
        busy = sum(view.is_busy for view in snapshot.connections)
        child["smtp_connections", "busy"].set(busy)
        child["smtp_connections", "idle"].set(sum(view.state == "idle" for view in snapshot.connections))
        child["smtp_connections_limit",].set(snapshot.max_connections)
        for name, kind in zip(_BREAKERS, (Closed, Open, HalfOpen), strict=True):
            child["relay_breaker_state", name].set(isinstance(snapshot.breaker, kind))
        child["redis_up",].set(snapshot.redis_down_seconds is None)
        self._present("redis_round_trip_seconds", snapshot.vitals.redis_seconds)
        self._present("loop_lag_seconds", snapshot.vitals.lag_seconds)
        dropped = child["log_lines_dropped_total",]
        dropped.inc(max(0, self.lost_lines() - dropped._value.get()))  # noqa: SLF001  there is no other way


_SOMETIMES_ABSENT = {
    "queue_oldest_timestamp_seconds",
    "queue_seen_timestamp_seconds",
    "last_sent_timestamp_seconds",
    "last_claimed_timestamp_seconds",
    "redis_round_trip_seconds",
    "loop_lag_seconds",
}
_PROTOCOL = {str(How.GARBLED)}
_TIMEOUT = {str(How.TIMEOUT)}


def _result_of(settled: Settled) -> str:
    """Return what the relay said of a mail that was tried."""
    codes = "" if settled.cause is None else settled.cause.codes
    if settled.disposition is Disposition.SENT or codes.startswith("2"):
        return "ok"
    if codes[:1] in ("4", "5"):
        return "transient" if codes[0] == "4" else "permanent"
    return "timeout" if codes in _TIMEOUT else "protocol" if codes in _PROTOCOL else "connection"


def reference_text() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` says when `metrics.listen` is set; written by `tools/write_docs`. Every metric has the label",
        "`queue`; further labels are named with their values. All label sets are there at 0 from the start.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for metric in TABLE:
        shown = {} if metric.name == "build_info" else metric.labels
        labels = "; ".join(f"{name}: {', '.join(values)}" for name, values in shown.items())
        labels = labels or ", ".join(metric.labels)
        lines.append(f"| `{metric.exported}` | {metric.kind.value} | {labels} | {metric.says} |")
    lines += ["", "Beside them stand the `process_*` metrics of the Prometheus client.", "", "## Buckets", ""]
    lines += [
        f"- `{metric.exported}`: {', '.join(f'{bucket:g}' for bucket in metric.buckets)}"
        for metric in TABLE
        if metric.buckets
    ]
    return "\n".join(lines) + "\n" + _FIGURES


_FIGURES = """
## The four figures of a mail worker

| figure | PromQL |
| --- | --- |
| mails per minute | `60 * sum(rate(trio_worker_jobs_settled_total{outcome="sent"}[5m]))` |
| connection time per mail | `sum(rate(trio_worker_smtp_connect_seconds_sum[5m])) / sum(rate(trio_worker_jobs_settled_total{outcome="sent"}[5m]))` |
| idle share of the workers | `1 - sum(rate(trio_worker_hands_busy_seconds_total[5m])) / sum(trio_worker_jobs_in_hand_limit)` |
| p95 latency, push to sent | `histogram_quantile(0.95, sum by (le) (rate(trio_worker_job_latency_seconds_bucket[5m])))` |
"""  # noqa: E501  a table's line is one line
