"""Pure. The list of all metrics: name, help text, and the possible values of the labels.

Labels are few and closed: no host, no address, no domain, no job. Points in time are timestamps, from which a query
computes ages.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from enum import Enum
from typing import get_args

from attrs import field

from trio_worker import __version__
from trio_worker.jobs.fault import Reason
from trio_worker.queue.claim import Source
from trio_worker.queue.losses import LossSign
from trio_worker.queue.operator_counts import DRAIN_BOUNDS, OperatorAction, Removal
from trio_worker.records import frozen
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.worker.attempt import AttemptResult
from trio_worker.worker.phase import Disposition, Phase

PREFIX = "trio_worker_"

_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PATIENT = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
# A mail that is tried again may be sent a day later (retry.max_age_seconds).
_LASTING = (*_PATIENT, 7200.0, 21600.0, 43200.0, 86400.0)
_BRIEF = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_REDIS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_LAG = (0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_BYTES = (1e3, 5e3, 1e4, 5e4, 1e5, 5e5, 1e6, 5e6, 1e7, 2.5e7)
_ATTEMPTS = (1, 2, 3, 4, 5, 7, 10, 15, 30)

QUEUE_STATES = ("waiting", "leased", "delayed", "held", "dead")
STAGES = ("greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "final")
BREAKERS = ("closed", "open", "half_open")
# Reply codes of refusals; another code is counted as its class, so that no relay can create new series.
CODES = (
    *("421", "432", "450", "451", "452", "454"),
    *("500", "501", "503", "521", "530", "534", "535", "550", "551", "552", "553", "554", "556", "4xx", "5xx"),
)
OTHER_LABEL = "other"
# Causes of dead letters: the relay, time, the job itself, and crashes of its workers.
DEATHS = (
    *("refused", "exhausted", "too_old", "expired", "unfit", "not_allowed", "broke"),
    *get_args(Reason),
    *("crashed", "too_large", OTHER_LABEL),
)
DELAYS = ("deferred", "lost", "relay", "uncertain", "early", OTHER_LABEL)
RELEASES = ("released", "lost", "relay", "unkept", "unconfirmed", OTHER_LABEL)
CLOSINGS = (
    *("max_messages", "max_lifetime", "idle", "drained", "resets", "concurrency"),
    *map(
        str,
        (
            FailureKind.CLOSING,
            FailureKind.EOF,
            FailureKind.RESET,
            FailureKind.TIMEOUT,
            FailureKind.GARBLED,
            FailureKind.AHEAD,
            FailureKind.CANCELLED,
        ),
    ),
    OTHER_LABEL,
)
REDIS_OPS = ("claim", "settle", "renew", "beat", "overview", OTHER_LABEL)
LEVEL_LABELS = ("debug", "info", "warning", "error")


class Kind(Enum):
    """The type of a metric, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@frozen
class Metric:
    """One metric: its name without the prefix, its meaning, and the values that each label can have."""

    name: str
    kind: Kind
    help_text: str
    labels: Mapping[str, tuple[str, ...]] = field(factory=dict)
    buckets: tuple[float, ...] = ()
    is_always_there: bool = True  # otherwise absent while its value is not known
    is_in_redis: bool = False  # counted in Redis, by all workers and commands, since the queue was created

    @property
    def exported(self) -> str:
        """The full name, as a scrape shows it."""
        return PREFIX + self.name

    @property
    def label_words(self) -> str:
        """The labels besides ``queue`` with their possible values; an info metric has only names."""
        if self.name.endswith("_info"):
            return ", ".join(self.labels)
        return "; ".join(f"{name}: {', '.join(values)}" for name, values in self.labels.items())


def _counter(name: str, help_text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.COUNTER, help_text, labels)


def _gauge(name: str, help_text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.GAUGE, help_text, labels)


def _gauge_if_known(name: str, help_text: str, **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.GAUGE, help_text, labels, is_always_there=False)


def _histogram(name: str, help_text: str, buckets: tuple[float, ...], **labels: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.HISTOGRAM, help_text, labels, buckets)


def _counter_in_redis(name: str, help_text: str, **labels: tuple[str, ...]) -> Metric:
    help_text += (
        "; since the queue was created. All workers report the same value: use max; absent before the first poll."
    )
    return Metric(name, Kind.COUNTER, help_text, labels, is_always_there=False, is_in_redis=True)


TABLE: tuple[Metric, ...] = (
    _counter("jobs_claimed_total", "Jobs that this worker claimed.", source=tuple(map(str, Source))),
    _counter("jobs_settled_total", "Jobs that this worker settled, by outcome.", outcome=tuple(map(str, Disposition))),
    _counter("jobs_uncertain_total", "Mails whose outcome is unknown: they may have been delivered."),
    _counter("jobs_broken_total", "Jobs that raised an exception: a bug, or a fault in your own template."),
    _counter("dead_letters_total", "Jobs that this worker made dead letters, by cause.", cause=DEATHS),
    _counter_in_redis(
        "dead_letters_removed_total", "Dead letters that were removed, by reason", reason=tuple(map(str, Removal))
    ),
    _counter("jobs_delayed_total", "Jobs that were delayed for a later attempt, by cause.", cause=DELAYS),
    _counter("jobs_released_total", "Jobs that were given back to the queue unchanged, by cause.", cause=RELEASES),
    _counter("clock_skew_total", "Jobs whose push time, as the producer wrote it, is later than their claim."),
    _counter("leases_expired_total", "Expired leases of other workers that this worker took over."),
    _counter("leases_lost_total", "Leases that this worker lost because another worker had taken the job over."),
    _counter(
        "hands_busy_seconds_total",
        "Sum of the seconds from claim to settlement of all jobs. For the load of the consumers see idle_ratio.",
    ),
    _counter("smtp_attempts_total", "Delivery attempts, by result.", result=tuple(map(str, AttemptResult))),
    _counter(
        "recipients_total",
        "Recipients in delivery attempts, by the decision of the relay.",
        result=("accepted", "deferred", "refused"),
    ),
    _counter(
        "smtp_refusals_total",
        "Mails and connections that the relay refused, by stage and reply code.",
        stage=STAGES,
        code=CODES,
    ),
    _counter("smtp_accepted_bytes_total", "Bytes of the mails that the relay accepted."),
    _counter("smtp_connections_opened_total", "Connections to the relay that were opened."),
    _counter(
        "smtp_connections_failed_total",
        "Connections to the relay that could not be opened, by kind of failure.",
        how=tuple(map(str, FailureKind)),
    ),
    _counter("smtp_connections_closed_total", "Connections to the relay that were closed, by reason.", reason=CLOSINGS),
    _counter(
        "smtp_suspensions_total",
        "Connections that were suspended because they could not be opened while others worked, by kind of "
        "failure. Each further failed try counts again.",
        how=tuple(map(str, FailureKind)),
    ),
    _counter("smtp_rate_limits_total", "Number of times that the relay said that mails come too fast."),
    _counter(
        "breaker_opened_total",
        "Number of times that the circuit breaker opened and claiming stopped, because the relay was in trouble.",
    ),
    _counter(
        "redis_requests_total",
        "Non-blocking calls to Redis, by operation and result. refused: Redis returned an error; error: no answer.",
        op=REDIS_OPS,
        result=("ok", "refused", "error"),
    ),
    _counter("redis_recoveries_total", "Number of times that Redis answered again after a failure."),
    _counter(
        "redis_lost_data_total",
        "Signs that Redis lost data. totals: jobs that its totals no longer count; evicted: keys that it evicted, of"
        " any program; gone: jobs that were gone when they were settled.",
        sign=tuple(map(str, LossSign)),
    ),
    _counter("journal_settlements_total", "Settlements written to the journal because Redis did not accept them."),
    _counter(
        "journal_replayed_total",
        "Settlements of ended processes that were sent to Redis from the journal, by result.",
        result=("settled", "refused"),
    ),
    _counter("loop_complaints_total", "Errors reported by the asyncio loop that the libraries run on."),
    _counter("log_messages_total", "Log lines, by level.", level=LEVEL_LABELS),
    _counter("log_lines_dropped_total", "Log lines that were dropped because the disk was too slow or failed."),
    _counter_in_redis(
        "admin_actions_total",
        "Changes that people made with a command or a key, by action",
        action=tuple(map(str, OperatorAction)),
    ),
    _counter("config_reloads_total", "Reloads of the configuration after SIGHUP, by result.", result=("ok", "fault")),
    _gauge(
        "queue_jobs", "Jobs in the queue, by state. All workers report the same value: use max.", state=QUEUE_STATES
    ),
    _gauge("queue_due_jobs", "Delayed jobs that are due."),
    _gauge_if_known(
        "queue_oldest_timestamp_seconds",
        "Time at which the job at the head of the list was pushed; absent if unknown, or if the last poll is too old.",
    ),
    _gauge_if_known(
        "queue_next_due_timestamp_seconds", "Time at which the first delayed job is due; absent if no job is delayed."
    ),
    _gauge("queue_paused", "1 while the queue is paused."),
    _gauge_if_known(
        "queue_pause_until_timestamp_seconds", "Time at which the pause ends by itself; absent if it does not."
    ),
    _gauge_if_known(
        "dead_letters_limit", "Number of dead letters at which workers stop claiming; absent without a limit."
    ),
    _gauge_if_known(
        "queue_seen_timestamp_seconds", "Time of the last poll of the queue; absent before the first poll."
    ),
    _gauge("workers", "Workers with a heartbeat."),
    _gauge("worker_state", "1 for the phase that this worker is in, 0 for the others.", state=tuple(map(str, Phase))),
    _gauge("worker_quiet", "1 while this worker is quiet: an operator has ordered it to claim no jobs."),
    _gauge("jobs_in_hand", "Jobs that this worker has claimed and not settled."),
    _gauge(
        "jobs_at_work",
        "Jobs that this worker is processing: its jobs_in_hand without those that only wait for their settlement.",
    ),
    _gauge("mails_in_flight", "Mails that are being sent: their outcome is not known yet."),
    _gauge(
        "jobs_at_work_limit",
        "Maximum of jobs_at_work: number_workers times the smaller one of smtp.pool.pipeline_depth and max_uncertain.",
    ),
    _gauge("consumers", "Number of consumer tasks (number_workers). Each sends over one connection at a time."),
    _gauge("consumers_busy", "Consumer tasks that have a job."),
    _gauge(
        "idle_ratio",
        "Fraction of the consumer tasks that had no job, averaged over the last minute; 1 before the first job.",
    ),
    _gauge("tasks", "Trio tasks in this process."),
    _gauge(
        "smtp_connections",
        "Connections to the relay, by state. backoff: suspended for a while, because they could not be "
        "opened while others work.",
        state=("connecting", "idle", "busy", "backoff"),
    ),
    _gauge_if_known(
        "smtp_suspended_until_timestamp_seconds",
        "Time at which a suspended connection is tried again; absent while none is suspended.",
    ),
    _gauge(
        "smtp_rate_limit_per_second",
        "Mails a second that are sent after the relay said that they come too fast; 0: no limit.",
    ),
    _gauge(
        "smtp_one_mail_at_a_time",
        "1 while connections carry one mail at a time, because the relay drops what is sent ahead of its answer, or "
        "broke a connection with several mails in flight.",
    ),
    _gauge("smtp_connections_limit", "Maximum number of connections to the relay (smtp.pool.max_size)."),
    _gauge("relay_breaker_state", "1 for the state that the circuit breaker is in, 0 for the others.", state=BREAKERS),
    _gauge_if_known(
        "smtp_certificate_expiry_timestamp_seconds",
        "Time at which the certificate of the relay expires, as of the last connection; absent without TLS.",
    ),
    _gauge_if_known("last_sent_timestamp_seconds", "Time at which the last mail was sent; absent before the first."),
    _gauge_if_known(
        "last_claimed_timestamp_seconds", "Time at which the last job was claimed; absent before the first."
    ),
    _gauge("redis_up", "1 while Redis answers."),
    _gauge_if_known(
        "redis_round_trip_seconds",
        "Round-trip time to Redis, as of the last heartbeat; absent before the first, and while Redis does not answer.",
    ),
    _gauge_if_known("redis_inspect_seconds", "Duration of the last poll of the queue; absent before the first poll."),
    _gauge(
        "build_info",
        "1, with the versions of trio_worker and Python as labels.",
        version=(__version__,),
        python=(platform.python_version(),),
    ),
    _gauge_if_known(
        "config_info", "1, with the profile and a digest of the settings as labels.", profile=(), digest=()
    ),
    _histogram("job_wait_seconds", "Time from push to claim, without deliberate delays.", _PATIENT),
    _histogram(
        "job_latency_seconds",
        "Time from push to settlement, of jobs that were sent, with all delays and retries; from not_before if later.",
        _LASTING,
    ),
    _histogram("job_attempts", "Number of attempts of jobs that were sent or became dead letters.", _ATTEMPTS),
    _histogram("message_bytes", "Size of the mails in delivery attempts.", _BYTES),
    _histogram("compose_seconds", "Time to compose the mail of a decoded job.", _BRIEF),
    _histogram("smtp_borrow_seconds", "Time that a composed mail waits for a free place on a connection.", _QUICK),
    _histogram("smtp_transaction_seconds", "Time from the MAIL command to the reply that decides.", _QUICK),
    _histogram(
        "smtp_connect_seconds", "Time to open a connection, from the first packet until it is ready for mail.", _QUICK
    ),
    _histogram("redis_request_seconds", "Time of non-blocking calls to Redis, by operation.", _REDIS, op=REDIS_OPS),
    _histogram("loop_lag_seconds", "Delay with which the event loop wakes up, measured twice a second.", _LAG),
    Metric(
        "drain_seconds",
        Kind.HISTOGRAM,
        "Time from the end of claiming to the last settlement, of workers that drained; since the queue "
        "was created. All workers report the same value: use max; absent before the first poll.",
        buckets=DRAIN_BOUNDS,
        is_always_there=False,
        is_in_redis=True,
    ),
)


def metrics_reference() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "The metrics that `/metrics` serves if `metrics.listen` is set. `tools/write_docs` writes this page. Every",
        "metric has the label `queue`; further labels are listed with their values. All series exist with the value 0",
        "from the start, except those that are called absent. `trio-worker metrics show` prints the metrics of a",
        "running worker; with `--list` it prints this table.",
        "",
        "| metric | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| `{each.exported}` | {each.kind.value} | {each.label_words} | {each.help_text} |" for each in TABLE]
    lines += [
        "",
        "The `process_*` and `python_gc_*` metrics of the Prometheus client are served as well.",
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
