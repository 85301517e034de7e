"""Pure. The list of all metrics: what each is called, what it means, and the values that its labels can have.

Labels are few and closed: no host, no address, no domain, no job. Times are timestamps, from which whoever asks makes
ages.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from enum import Enum
from typing import get_args

from attrs import field, frozen

from trio_worker import __version__
from trio_worker.jobs.fault import Reason
from trio_worker.queue.claim import Source
from trio_worker.queue.operator_counts import DRAIN_BOUNDS, Act, Removal
from trio_worker.smtp.outcome import FailureKind
from trio_worker.worker.attempt import Result
from trio_worker.worker.events import Disposition, Phase

PREFIX = "trio_worker_"

_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PATIENT = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_BRIEF = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_REDIS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_LAG = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BYTES = (1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 2.5e7)
_ATTEMPTS = (1, 2, 3, 4, 5, 7, 10, 15, 30)

QUEUE_STATES = ("waiting", "leased", "delayed", "held", "dead")
STAGES = ("greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "final")
BREAKERS = ("closed", "open", "half_open")
# Replies that relays refuse with; a code that is none of these counts as its class, so that no relay can make series.
CODES = (
    *("421", "432", "450", "451", "452", "454"),
    *("500", "501", "503", "521", "530", "534", "535", "550", "551", "552", "553", "554", "556", "4xx", "5xx"),
)
OTHER = "other"
# Why jobs were buried: by the relay, by time, by the job itself, by what it did to its workers.
DEATHS = (
    *("refused", "exhausted", "too_old", "expired", "unfit", "not_allowed", "broke"),
    *get_args(Reason),
    *("crashed", "too_large", OTHER),
)
DELAYS = ("deferred", "lost", "relay", "uncertain", "early", OTHER)
RELEASES = ("released", "lost", "relay", "unkept", "unconfirmed", OTHER)
CLOSINGS = (
    *("max_messages", "max_lifetime", "idle", "drained"),
    *map(
        str,
        (
            FailureKind.CLOSING,
            FailureKind.EOF,
            FailureKind.RESET,
            FailureKind.TIMEOUT,
            FailureKind.GARBLED,
            FailureKind.CANCELLED,
        ),
    ),
    OTHER,
)
REDIS_OPS = ("claim", "settle", "renew", "beat", "overview", OTHER)
LEVELS = ("debug", "info", "warning", "error")


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
    is_always_there: bool = True  # absent while its value is not known, otherwise
    is_tally: bool = False  # counted in Redis, by everybody, since the queue began

    @property
    def exported(self) -> str:
        """The name as a scrape shows it."""
        return PREFIX + self.name

    @property
    def label_words(self) -> str:
        """The labels besides ``queue``, with the values that each can have; those of an info are the worker's own."""
        if self.name.endswith("_info"):
            return ", ".join(self.labels)
        return "; ".join(f"{name}: {', '.join(values)}" for name, values in self.labels.items())


def _counter(name: str, says: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.COUNTER, says, labels)


def _gauge(name: str, says: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.GAUGE, says, labels)


def _gauge_if_known(name: str, says: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.GAUGE, says, labels, is_always_there=False)


def _histogram(name: str, says: str, buckets: tuple[float, ...], **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.HISTOGRAM, says, labels, buckets)


def _tally(name: str, says: str, **labels: tuple[str, ...]) -> Metric:
    says += "; since the queue began, and every worker says the same: use max; absent before the first look."
    return Metric(name, Kind.COUNTER, says, labels, is_always_there=False, is_tally=True)


TABLE: tuple[Metric, ...] = (
    _counter("jobs_claimed_total", "Jobs that this worker claimed.", source=tuple(map(str, Source))),
    _counter("jobs_settled_total", "Claimed jobs, by what became of them.", outcome=tuple(map(str, Disposition))),
    _counter("jobs_uncertain_total", "Mails that may have been delivered without anybody knowing."),
    _counter("jobs_broken_total", "Jobs whose handling raised: a bug, or a template of yours."),
    _counter("dead_letters_total", "Jobs that this worker buried, by cause.", cause=DEATHS),
    _tally("dead_letters_removed_total", "Dead letters that left, by how", reason=tuple(map(str, Removal))),
    _counter("jobs_delayed_total", "Jobs that are to be tried later, by cause.", cause=DELAYS),
    _counter("jobs_released_total", "Jobs that went back as they were, by cause.", cause=RELEASES),
    _counter("clock_skew_total", "Jobs whose producer says that they were pushed after they were claimed."),
    _counter("leases_expired_total", "Leases of other workers that had run out and were taken over."),
    _counter("leases_lost_total", "Jobs in hand that somebody else had taken over."),
    _counter(
        "hands_busy_seconds_total",
        "Seconds that jobs were in hand, from claim to settlement, summed up. How busy consumers are: idle_ratio.",
    ),
    _counter("smtp_attempts_total", "Mails tried at the relay, by how that went.", result=tuple(map(str, Result))),
    _counter(
        "recipients_total",
        "Recipients of mails that were tried, by what the relay decided.",
        result=("accepted", "deferred", "refused"),
    ),
    _counter("smtp_refusals_total", "Refusals of mails and connections by the reply.", stage=STAGES, code=CODES),
    _counter("smtp_accepted_bytes_total", "Bytes of the mails that the relay accepted."),
    _counter("smtp_connections_opened_total", "Connections to the relay that were opened."),
    _counter(
        "smtp_connections_failed_total",
        "Connections that could not be opened, by how.",
        how=tuple(map(str, FailureKind)),
    ),
    _counter("smtp_connections_closed_total", "Connections that ended, by why.", reason=CLOSINGS),
    _counter(
        "smtp_suspensions_total",
        "Times that connections were suspended because no more could be opened though others worked, by how; each try "
        "that failed afterwards is one more.",
        how=tuple(map(str, FailureKind)),
    ),
    _counter("breaker_opened_total", "Times that claiming stopped because the relay was in trouble."),
    _counter(
        "redis_requests_total",
        "Calls to Redis that answer at once, by what they are for; refused: it said no, error: no answer.",
        op=REDIS_OPS,
        result=("ok", "refused", "error"),
    ),
    _counter("redis_recoveries_total", "Times that Redis answered again."),
    _counter("journal_settlements_total", "Settlements that Redis did not take, written to the journal."),
    _counter(
        "journal_replayed_total",
        "Settlements of processes that are gone, told to Redis.",
        result=("settled", "refused"),
    ),
    _counter("loop_complaints_total", "Things that the asyncio loop under the libraries complained of."),
    _counter("log_messages_total", "Lines of the log.", level=LEVELS),
    _counter("log_lines_dropped_total", "Log lines that found the disk too slow or gone."),
    _tally("admin_actions_total", "What people changed by a command or a key", action=tuple(map(str, Act))),
    _counter("config_reloads_total", "Times that SIGHUP had login and limits read anew.", result=("ok", "fault")),
    _gauge("queue_jobs", "Jobs of the queue by state; every worker says the same: use max.", state=QUEUE_STATES),
    _gauge("queue_due_jobs", "Delayed jobs whose time has come."),
    _gauge_if_known(
        "queue_oldest_timestamp_seconds",
        "When the job at the head of the list was pushed; absent if unknown, or if the last look is too old.",
    ),
    _gauge_if_known("queue_next_due_timestamp_seconds", "When the first delayed job is due; absent without one."),
    _gauge("queue_paused", "1 while the queue is paused."),
    _gauge_if_known("queue_pause_until_timestamp_seconds", "When the pause ends by itself; absent if it does not."),
    _gauge_if_known("dead_letters_limit", "Dead letters at which claiming stops; absent without a limit."),
    _gauge_if_known("queue_seen_timestamp_seconds", "When the queue was last looked at; absent before the first look."),
    _gauge("workers", "Workers with a heartbeat."),
    _gauge("worker_state", "1 for the phase that this worker is in.", state=tuple(map(str, Phase))),
    _gauge("worker_quiet", "1 while somebody wants this worker to claim nothing."),
    _gauge("jobs_in_hand", "Jobs that this worker has claimed and not settled."),
    _gauge("jobs_at_work", "Of those, the ones that do not only wait to be settled."),
    _gauge("mails_in_flight", "Mails on connections whose outcome is not known yet."),
    _gauge(
        "jobs_at_work_limit",
        "Most of them at once: number_workers times smtp.pool.pipeline_depth, or max_uncertain where that is less.",
    ),
    _gauge("consumers", "Consumer tasks (number_workers): each sends over one connection at a time."),
    _gauge("consumers_busy", "Of those, the ones that have a job."),
    _gauge("idle_ratio", "Part of the consumers that had no job, over the last minute; 1 before the first job."),
    _gauge("tasks", "Tasks of the loop."),
    _gauge(
        "smtp_connections",
        "Connections to the relay; backoff: suspended, which are left closed for a while because no more could be "
        "opened though others work.",
        state=("connecting", "idle", "busy", "backoff"),
    ),
    _gauge_if_known(
        "smtp_suspended_until_timestamp_seconds",
        "When a suspended connection is tried again; absent while none is suspended.",
    ),
    _gauge("smtp_connections_limit", "Most of them (smtp.pool.max_size)."),
    _gauge("relay_breaker_state", "1 for the state that the breaker is in.", state=BREAKERS),
    _gauge_if_known(
        "smtp_certificate_expiry_timestamp_seconds",
        "When the relay's certificate ends, as of the last connection; absent without TLS.",
    ),
    _gauge_if_known("last_sent_timestamp_seconds", "When the last mail was sent; absent before the first."),
    _gauge_if_known("last_claimed_timestamp_seconds", "When the last job was claimed; absent before the first."),
    _gauge("redis_up", "1 while Redis answers."),
    _gauge_if_known(
        "redis_round_trip_seconds", "The last heartbeat's; absent before the first and while Redis is away."
    ),
    _gauge_if_known("redis_inspect_seconds", "What the last look at the queue took; absent before the first."),
    _gauge("build_info", "1; what runs.", version=(__version__,), python=(platform.python_version(),)),
    _gauge_if_known("config_info", "1; the profile, and digits that tell settings from others.", profile=(), digest=()),
    _histogram("job_wait_seconds", "From push to claim, deliberate delays left out.", _PATIENT),
    _histogram("job_latency_seconds", "From push to settled as sent.", _PATIENT),
    _histogram("job_attempts", "Attempts of jobs that were sent or died.", _ATTEMPTS),
    _histogram("message_bytes", "Size of the mails that were tried.", _BYTES),
    _histogram("compose_seconds", "From the decoded job to the composed mail.", _BRIEF),
    _histogram("smtp_borrow_seconds", "Wait of a composed mail for a connection with room.", _QUICK),
    _histogram("smtp_transaction_seconds", "From MAIL to the deciding reply.", _QUICK),
    _histogram("smtp_connect_seconds", "From the first packet to a connection that is ready for mail.", _QUICK),
    _histogram(
        "redis_request_seconds", "Calls to Redis that answer at once, by what they are for.", _REDIS, op=REDIS_OPS
    ),
    _histogram("loop_lag_seconds", "How late the loop wakes, measured twice a second.", _LAG),
    Metric(
        "drain_seconds",
        Kind.HISTOGRAM,
        "From the end of claiming to the last settlement, of workers that drained; since the queue began, and every "
        "worker says the same: use max; absent before the first look.",
        buckets=DRAIN_BOUNDS,
        is_always_there=False,
        is_tally=True,
    ),
)


def metrics_reference() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "What `/metrics` says when `metrics.listen` is set; written by `tools/write_docs`. Every metric has the label",
        "`queue`; further labels are named with their values. All label sets are there at 0 from the start, but for",
        "what is called absent. `trio-worker metrics show` prints what a running worker says, with `--list` this",
        "table.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| `{each.exported}` | {each.kind.value} | {each.label_words} | {each.says} |" for each in TABLE]
    lines += [
        "",
        "Beside them stand the `process_*` and `python_gc_*` metrics of the Prometheus client.",
        "",
        "## Buckets",
        "",
    ]
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
| idle share of the workers | `sum(trio_worker_idle_ratio * trio_worker_consumers) / sum(trio_worker_consumers)` |
| p95 latency, push to sent | `histogram_quantile(0.95, sum by (le) (rate(trio_worker_job_latency_seconds_bucket[5m])))` |
"""  # noqa: E501  a table's line is one line
