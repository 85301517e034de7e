"""Edge. The metrics of a worker for Prometheus: counted from its events, and written at a scrape.

All label sets exist from the start, with the value 0.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import field

from trio_worker import __version__
from trio_worker.queue.record import Cause
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.events import ConnectionClosed, ConnectionFailed, ConnectionOpened, PlacesSuspended
from trio_worker.telemetry.exposition import ScrapePage
from trio_worker.telemetry.metric_table import (
    BREAKERS,
    CLOSINGS,
    CODES,
    DEATHS,
    DELAYS,
    OTHER_LABEL,
    QUEUE_STATES,
    REDIS_OPS,
    RELEASES,
    STAGES,
)
from trio_worker.telemetry.series import Level, new_series
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.worker.attempt import AttemptReport, AttemptResult
from trio_worker.worker.breaker import Closed, HalfOpen, Open
from trio_worker.worker.events import (
    BreakerChanged,
    Claimed,
    DataLost,
    Event,
    JobBroke,
    JournalReplayed,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    RateLimited,
    RateLimitLifted,
    RedisRecovered,
    SettingsRead,
    Settled,
    SettledJob,
    SettlementsKept,
)
from trio_worker.worker.phase import Disposition, Phase

# A scrape within this time after the last one gets the same figures.
KEPT_SECONDS = 1.0
# This number of settlements is gathered and added one metric after the other: that costs two thirds of adding each
# settlement alone, and takes less than a millisecond.
JOBS_GATHERED = 200


@define(eq=False)
class Metrics:
    """The metrics of one worker: a sink of its events, and the page of a scrape, which `exposition` writes.

    ``take_snapshot`` gives the figures that are no sums of events, ``lost_lines`` the number of dropped log lines, and
    ``logged_lines`` the written ones by level. ``config`` and ``profile`` are labels of ``config_info``.
    """

    take_snapshot: Callable[[], Snapshot]
    lost_lines: Callable[[], int] = lambda: 0
    logged_lines: Callable[[], Mapping[str, int]] = dict
    dead_limit: int = 0
    config: str = ""
    profile: str = ""
    # The values, which are of three types: mypy cannot know which metric has which.
    _children: dict[tuple[str, ...], Any] = field(factory=new_series)
    _made: tuple[float, bytes] | None = None
    _read: dict[tuple[str, ...], int] = field(factory=dict)  # counters that are kept elsewhere, as of the last scrape
    _gathered: list[SettledJob] = field(factory=list)
    _claimed_at: float | None = None
    _sent_at: float | None = None
    _page: ScrapePage = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._page = ScrapePage(self._children, self.take_snapshot().queue_name)
        self._children["build_info", __version__, platform.python_version()].set(1)
        self.note_config(self.config)
        self._present("dead_letters_limit", self.dead_limit or None)

    def note(self, event: Event) -> None:
        """Add one event; takes one or two microseconds for each mail."""
        child = self._children
        match event:
            case Settled(jobs):
                if Disposition.SENT in [job.disposition for job in jobs]:
                    self._sent_at = time.time()
                self._gathered += jobs
                if len(self._gathered) >= JOBS_GATHERED:
                    self._add_gathered()
            case Claimed(jobs):
                for source, count in Counter([source for _, source, _ in jobs]).items():
                    child["jobs_claimed_total", source].inc(count)
                self._claimed_at = time.time()
            case LeasesRecovered(count, crashed, _, too_large):
                child["leases_expired_total",].inc(count)
                child["jobs_uncertain_total",].inc(count)
                child["dead_letters_total", "crashed"].inc(crashed)
                child["dead_letters_total", "too_large"].inc(too_large)
            case LeaseLost():
                child["leases_lost_total",].inc()
            case RedisRecovered():
                child["redis_recoveries_total",].inc()
            case DataLost():
                self._note_loss(event)
            case SettlementsKept(count):
                child["journal_settlements_total",].inc(count)
            case JournalReplayed(settled, refused):
                child["journal_replayed_total", "settled"].inc(settled)
                child["journal_replayed_total", "refused"].inc(refused)
            case JobBroke():
                child["jobs_broken_total",].inc()
            case SettingsRead(faults=faults):
                child["config_reloads_total", "fault" if faults else "ok"].inc()
            case LoopComplained():
                child["loop_complaints_total",].inc()
            case _:
                self._note_relay(event)

    def _note_relay(self, event: Event) -> None:
        """Add an event of the relay or its connections."""
        child = self._children
        match event:
            case ConnectionOpened(seconds=seconds):
                child["smtp_connections_opened_total",].inc()
                child["smtp_connect_seconds",].observe([seconds])
                self._present("smtp_certificate_expiry_timestamp_seconds", event.certificate_ends_at)
            case ConnectionFailed(trouble):
                child["smtp_connections_failed_total", trouble.how].inc()
                if trouble.reply is not None:
                    self._note_refusal(trouble.reply.stage, trouble.reply.codes)
            case ConnectionClosed(why=why):
                child["smtp_connections_closed_total", _known(why.partition(" ")[0], CLOSINGS)].inc()
            case PlacesSuspended(trouble):
                child["smtp_suspensions_total", trouble.how].inc()
            case BreakerChanged(Open()):
                child["breaker_opened_total",].inc()
            case RateLimited(per_second=per_second):
                child["smtp_rate_limits_total",].inc()
                child["smtp_rate_limit_per_second",].set(per_second)
            case RateLimitLifted():
                child["smtp_rate_limit_per_second",].set(0)
            case _:
                pass  # the other metrics are figures of the snapshot

    def _note_loss(self, loss: DataLost) -> None:
        self._children["redis_lost_data_total", loss.sign].inc(loss.count)
        self._children["jobs_uncertain_total",].inc(loss.uncertain)

    def note_call(self, doing: str, seconds: float, unavailable: Unavailable | None) -> None:
        """Add one call to Redis."""
        result = "ok" if unavailable is None else "refused" if unavailable.is_refusal else "error"
        op = _known(doing, REDIS_OPS)
        self._children["redis_requests_total", op, result].inc()
        self._children["redis_request_seconds", op].observe([seconds])

    def note_lag(self, seconds: float) -> None:
        """Add one measurement of the delay of the event loop."""
        self._children["loop_lag_seconds",].observe([seconds])

    def note_config(self, config: str) -> None:
        """Replace the digest of the settings."""
        for key in [key for key in self._children if key[0] == "config_info"]:
            del self._children[key]
        self._children["config_info", self.profile, config] = Level(1)

    def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus (version 0.0.4)."""
        now = time.monotonic()
        if self._made is None or now - self._made[0] >= KEPT_SECONDS:
            self._add_gathered()
            self._set_gauges(self.take_snapshot())
            self._made = now, self._page.text()
        return self._made[1]

    def _add_gathered(self) -> None:
        """Add the gathered settlements, one metric after the other."""
        child, (gathered, self._gathered) = self._children, (self._gathered, [])
        sent = [each for each in gathered if each.disposition is Disposition.SENT]
        for disposition, count in Counter([each.disposition for each in gathered]).items():
            child["jobs_settled_total", disposition].inc(count)
        child["hands_busy_seconds_total",].inc(sum([each.total_seconds for each in gathered]))
        child["jobs_uncertain_total",].inc(sum([each.is_uncertain for each in gathered]))
        child["clock_skew_total",].inc(sum([each.is_clock_ahead for each in gathered]))
        child["job_wait_seconds",].observe(
            [each.waited_seconds for each in gathered if each.waited_seconds is not None]
        )
        child["smtp_transaction_seconds",].observe(
            [each.smtp_seconds for each in gathered if each.smtp_seconds is not None]
        )
        child["job_attempts",].observe([each.attempt for each in sent])
        child["job_latency_seconds",].observe(
            [each.latency_seconds for each in sent if each.latency_seconds is not None]
        )
        self._add_tries([each.tried for each in gathered if each.tried is not None])
        for each in gathered:
            if each.disposition is not Disposition.SENT and each.cause is not None:
                self._note_unsent(each, each.cause)

    def _add_tries(self, tries: Sequence[AttemptReport]) -> None:
        child = self._children
        for result, count in Counter([each.result for each in tries]).items():
            child["smtp_attempts_total", result].inc(count)
        child["message_bytes",].observe([each.content_bytes for each in tries])
        child["compose_seconds",].observe([each.compose_seconds for each in tries])
        child["smtp_borrow_seconds",].observe([each.borrow_seconds for each in tries])
        child["smtp_accepted_bytes_total",].inc(
            sum([each.content_bytes for each in tries if each.result is AttemptResult.OK])
        )
        child["recipients_total", "accepted"].inc(sum([each.accepted for each in tries]))
        child["recipients_total", "deferred"].inc(sum([each.deferred for each in tries]))
        child["recipients_total", "refused"].inc(sum([each.refused for each in tries]))

    def _note_unsent(self, settled: SettledJob, cause: Cause) -> None:
        child = self._children
        self._note_refusal(cause.stage, cause.codes)
        match settled.disposition:
            case Disposition.DEAD:
                child["job_attempts",].observe([settled.attempt])
                child["dead_letters_total", _known(cause.word, DEATHS)].inc()
            case Disposition.DELAYED:
                child["jobs_delayed_total", _known(cause.word, DELAYS)].inc()
            case Disposition.RELEASED:
                child["jobs_released_total", _known(cause.word, RELEASES)].inc()
            case _:
                pass

    def _note_refusal(self, stage: str, codes: str) -> None:
        if codes[:1] in ("4", "5") and stage in STAGES:
            code = codes[:3] if codes[:3] in CODES else f"{codes[0]}xx"
            self._children["smtp_refusals_total", stage, code].inc()

    def _present(self, name: str, value: float | None) -> None:
        """Set a gauge that is absent while its value is unknown."""
        if value is None:
            self._children.pop((name,), None)
        else:
            self._children[name,] = Level(value)

    def _set_gauges(self, snapshot: Snapshot) -> None:
        child, queue = self._children, snapshot.queue
        if queue is not None:
            self._page.in_redis = queue.operator_counts
            for state in QUEUE_STATES:
                child["queue_jobs", state].set(getattr(queue, state))
            child["queue_due_jobs",].set(queue.due)
            child["queue_paused",].set(bool(queue.paused))
        seen_at = None if snapshot.queue_seen_seconds is None else snapshot.at - snapshot.queue_seen_seconds
        # If this worker cannot poll the queue, it must not report old figures: other workers have newer ones.
        is_old = snapshot.redis_down_seconds is not None or (
            (snapshot.queue_seen_seconds or 0.0) > snapshot.stale_after_seconds
        )
        polled_at = None if is_old else seen_at
        oldest, due, pause = (
            (None, None, None)
            if queue is None
            else (queue.oldest_seconds, queue.next_due_seconds, queue.pause_seconds_left)
        )
        self._present("queue_oldest_timestamp_seconds", _shifted(polled_at, None if oldest is None else -oldest))
        self._present("queue_next_due_timestamp_seconds", _shifted(polled_at, due))
        self._present("queue_pause_until_timestamp_seconds", _shifted(polled_at, pause))
        self._present("queue_seen_timestamp_seconds", seen_at)
        child["workers",].set(sum(not worker.is_lost for worker in snapshot.workers))
        for phase in Phase:
            child["worker_state", str(phase)].set(snapshot.phase is phase)
        child["worker_quiet",].set(snapshot.is_quiet)
        child["jobs_in_hand",].set(snapshot.in_hand)
        child["jobs_at_work",].set(snapshot.at_work)
        child["mails_in_flight",].set(snapshot.mails_in_flight or 0)
        child["jobs_at_work_limit",].set(snapshot.at_work_limit)
        child["consumers",].set(snapshot.number_workers)
        child["consumers_busy",].set(snapshot.busy_consumers or 0)
        child["idle_ratio",].set(1.0 if snapshot.idle_share is None else snapshot.idle_share)
        busy = sum(view.is_busy for view in snapshot.connections)
        child["smtp_connections", "busy"].set(busy)
        child["smtp_connections", "idle"].set(sum(view.state == "idle" for view in snapshot.connections))
        child["smtp_connections", "connecting"].set(snapshot.connecting)
        suspended = snapshot.suspended
        child["smtp_connections", "backoff"].set(0 if suspended is None else suspended.count)
        child["smtp_one_mail_at_a_time",].set(snapshot.depth_limit is not None)
        self._present("smtp_suspended_until_timestamp_seconds", None if suspended is None else suspended.until)
        child["smtp_connections_limit",].set(snapshot.max_connections)
        for name, kind in zip(BREAKERS, (Closed, Open, HalfOpen), strict=True):
            child["relay_breaker_state", name].set(isinstance(snapshot.breaker, kind))
        child["redis_up",].set(snapshot.redis_down_seconds is None)
        self._present("redis_round_trip_seconds", snapshot.vitals.redis_seconds)
        self._present("last_claimed_timestamp_seconds", self._claimed_at)
        self._present("last_sent_timestamp_seconds", self._sent_at)
        self._present("redis_inspect_seconds", None if queue is None else queue.poll_seconds)
        child["tasks",].set(trio.lowlevel.current_statistics().tasks_living if trio.lowlevel.in_trio_run() else 0)
        self._catch_up(("log_lines_dropped_total",), self.lost_lines())
        for level, lines in self.logged_lines().items():
            self._catch_up(("log_messages_total", level), lines)

    def _catch_up(self, key: tuple[str, ...], count: int) -> None:
        """Set a counter to a value that is counted elsewhere."""
        self._children[key].inc(max(0, count - self._read.get(key, 0)))
        self._read[key] = count


def _known(word: str, words: tuple[str, ...]) -> str:
    return word if word in words else OTHER_LABEL


def _shifted(at: float | None, seconds: float | None) -> float | None:
    return None if at is None or seconds is None else at + seconds
