"""Pure. The board: sums up the events of one worker, for its snapshot and its heartbeat."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import TypeAlias

from attrs import field

from trio_worker.queue.claim import DEAD_LIMIT_REACHED
from trio_worker.queue.record import Cause
from trio_worker.records import define, frozen
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.growth import (
    OUTCOMES_KEPT,
    RATE_SECONDS,
    SLOPE_SECONDS,
    SPARK_SECONDS,
    heading,
)
from trio_worker.telemetry.heartbeat import MAX_CAUSES, DeathCount, Heartbeat, Rates, Vitals, WorkerSeen, summed_causes
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.ledger_entry import enter
from trio_worker.telemetry.notices import Notices, refusal
from trio_worker.telemetry.quantiles import Window
from trio_worker.telemetry.snapshot import CAUSE_MINUTES, Snapshot
from trio_worker.worker.breaker import Breaker, Closed
from trio_worker.worker.events import (
    BreakerChanged,
    Event,
    HeartbeatTroubled,
    JournalFailed,
    PhaseChanged,
    QueuePaused,
    QuietChanged,
    RateLimited,
    RateLimitLifted,
    RedisFailed,
    RedisRecovered,
    Settled,
    SettledJob,
    SettlementsKept,
    WaitTroubled,
)
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen
from trio_worker.worker.state import WorkerState

# Screens poll each second. Beside a poll that is older than two, the figures of now are shown.
MOMENT_SECONDS = 2.0
# The number of settlements that are added to the figures together: more would need megabytes and save nothing.
JOBS_ADDED_AT_ONCE = 200
# The maximum of causes per minute: a relay that answers with always new codes must not fill the memory.
CAUSES_KEPT = 200
_NO_VITALS = Vitals()
# By reply codes, cause and disposition: the count, and the time of the last one.
_Causes: TypeAlias = dict[tuple[str, str, Disposition], tuple[int, float]]


@frozen
class _Moment:
    """The figures of a worker at the moment at which its queue was counted (local clock)."""

    at: float
    state: WorkerState
    ledger: Ledger


@define
class Board:
    """The figures of one worker, from its events; ``started_at`` is on the local clock (seconds) that ``note`` gets.

    Figures that no event has come from the current `WorkerState`.
    """

    queue_name: str
    redis_name: str
    relay_name: str
    started_at: float
    stale_after_seconds: float = 5.0
    worker_name: str = ""  # among the ``workers`` of a snapshot, and of a heartbeat
    ledger: Ledger = field(factory=Ledger)
    _phase: PhaseChanged = field(factory=lambda: PhaseChanged(Phase.STARTING))
    _queue: tuple[float, QueueSeen] | None = None
    _breaker: Breaker = field(factory=Closed)
    _second: int = 0  # the second whose settlements are gathered
    _gathered: list[SettledJob] = field(factory=list)
    _seconds: deque[tuple[int, Counter[Disposition]]] = field(factory=deque)
    _depths: deque[tuple[float, int]] = field(factory=lambda: deque(maxlen=64))
    _wait: Window = field(factory=Window)
    _smtp: Window = field(factory=Window)
    _total: Window = field(factory=Window)
    _latency: Window = field(factory=Window)
    _is_quiet: bool = False
    _causes: deque[tuple[int, _Causes]] = field(factory=deque)  # by minute, oldest first
    _latest: deque[tuple[float, SettledJob]] = field(factory=lambda: deque(maxlen=OUTCOMES_KEPT))
    _redis_failed: tuple[float, RedisFailed] | None = None  # since when, and the last failure
    _redis_recoveries: int = 0
    _is_at_dead_limit: bool = False
    _notices: Notices = field(factory=Notices)
    _journal_trouble: str = ""
    _moment: _Moment | None = None

    @property
    def phase(self) -> Phase:
        return self._phase.phase

    @property
    def breaker_name(self) -> str:
        """Return the state of the circuit breaker in one word."""
        return type(self._breaker).__name__.lower()

    @property
    def is_redis_failing(self) -> bool:
        """Return whether Redis did not answer the last call."""
        return self._redis_failed is not None

    def note(self, event: Event, now: float, wall: float) -> None:
        """Add one event; ``now`` is the local clock, ``wall`` the time of day in epoch seconds."""
        enter(self.ledger, event)
        match event:
            case Settled(jobs):
                self._note_settled(jobs, now, wall)
            case PhaseChanged():
                self._phase = event
            case QuietChanged(is_quiet):
                self._is_quiet = is_quiet
            case QueueSeen(waiting=waiting, due=due):
                self._queue = (now, event)
                self._depths.append((now, waiting + due))
            case BreakerChanged(breaker):
                self._breaker = breaker
            case RedisFailed():
                since = self._redis_failed[0] if self._redis_failed else now
                self._redis_failed = (since, event)
            case RedisRecovered():
                self._redis_failed, self._journal_trouble = None, ""
                self._redis_recoveries += 1
            case QueuePaused(why):
                self._is_at_dead_limit = why == DEAD_LIMIT_REACHED
            case WaitTroubled() | HeartbeatTroubled() | RateLimited() | RateLimitLifted():
                self._notices.note(event)
            case JournalFailed(reason):
                self._journal_trouble = reason
            case SettlementsKept():
                self._journal_trouble = ""
            case _:
                pass

    def keep_moment(self, now: float, state: WorkerState) -> None:
        """Keep the figures of now for the screens, which show them beside those of a poll that has just ended.

        A moment later other jobs are in hand than are counted as leased, and the figures would seem to disagree.
        """
        self._moment = _Moment(now, state, deepcopy(self.ledger))

    def snapshot(
        self,
        now: float,
        wall: float,
        state: WorkerState,
        workers: Iterable[WorkerSeen] = (),
        vitals: Vitals = _NO_VITALS,
    ) -> Snapshot:
        """Return the figures at ``now``."""
        self._add_gathered()
        ledger, moment = deepcopy(self.ledger), self._moment
        if moment is not None and self.phase is Phase.RUNNING and now - moment.at <= MOMENT_SECONDS:
            state, ledger = moment.state, moment.ledger
        breaker, workers = self._breaker, tuple(workers)
        others = [each.beat.causes for each in workers if each.beat.worker != self.worker_name and not each.is_lost]
        probe_at = getattr(breaker, "probe_at", None)
        return Snapshot(
            at=wall,
            phase=self._phase.phase,
            phase_why=self._phase.why,
            up_seconds=now - self.started_at,
            queue_name=self.queue_name,
            redis_name=self.redis_name,
            relay_name=self.relay_name,
            queue=self._queue[1] if self._queue else None,
            queue_seen_seconds=now - self._queue[0] if self._queue else None,
            ledger=ledger,
            in_hand=ledger.in_hand,
            at_work=state.at_work,
            number_workers=state.number_workers,
            rates=self._rates(now),
            waiting_slope=self._slope(now),
            spark_sent=self._spark(now),
            wait=self._wait.histogram(now).quantiles(),
            smtp=self._smtp.histogram(now).quantiles(),
            total=self._total.histogram(now).quantiles(),
            latency=self._latency.histogram(now).quantiles(),
            idle_share=state.idle_share,
            connections=state.connections,
            max_connections=state.max_connections,
            breaker=breaker,
            breaker_seconds=0.0 if probe_at is None else max(0.0, probe_at - now),
            causes=summed_causes([self._cause_counts(now), *others]),
            latest=tuple(FeedOutcome(at, settled) for at, settled in self._latest),
            redis_down_seconds=now - self._redis_failed[0] if self._redis_failed else None,
            redis_trouble=self._redis_failed[1].reason if self._redis_failed else "",
            redis_refuses=self._redis_failed is not None and self._redis_failed[1].is_refusal,
            journal_trouble=self._journal_trouble,
            grace_seconds_left=None if state.grace_ends_at is None else max(0.0, state.grace_ends_at - now),
            stale_after_seconds=self.stale_after_seconds,
            is_quiet=self._is_quiet,
            workers=workers,
            vitals=vitals,
            redis_recoveries=self._redis_recoveries,
            is_at_dead_limit=self._is_at_dead_limit,
            notices=self._notices.now(),
            connecting=state.connecting,
            mails_in_flight=state.mails_in_flight,
            busy_consumers=state.busy_consumers,
            at_work_limit=state.number_workers * state.depth,
        )

    def heartbeat(self, now: float, wall: float, state: WorkerState, version: str, vitals: Vitals) -> Heartbeat:
        """Return the heartbeat of this worker, from its events and its state."""
        self._add_gathered()
        ledger, views = self.ledger, state.connections
        return Heartbeat(
            worker=self.worker_name,
            version=version,
            started_at=wall - (now - self.started_at),
            phase=self._phase.phase,
            number_workers=state.number_workers,
            max_connections=state.max_connections,
            depth=state.depth,
            why=self._phase.why,
            is_quiet=self._is_quiet,
            in_hand=ledger.in_hand,
            at_work=state.at_work,
            connections=sum(view.state != "closed" for view in views),
            busy_connections=sum(view.is_busy for view in views),
            breaker=self.breaker_name,
            rates=self._rates(now),
            claimed=ledger.claimed,
            settled={str(disposition): ledger.settled[disposition] for disposition in Disposition},
            uncertain=ledger.uncertain,
            recovered=ledger.recovered,
            opened=ledger.opened,
            opening_seconds=round(ledger.opening_seconds, 3),
            idle_share=state.idle_share,
            wait=self._wait.histogram(now),
            smtp=self._smtp.histogram(now),
            total=self._total.histogram(now),
            latency=self._latency.histogram(now),
            causes=self._cause_counts(now)[:MAX_CAUSES],
            vitals=vitals,
            busy_consumers=state.busy_consumers,
            mails_in_flight=state.mails_in_flight,
            is_at_dead_limit=self._is_at_dead_limit,
            notices=(*([refusal(self._redis_failed[1].reason)] if self._redis_failed else []), *self._notices.now()),
        )

    def _note_settled(self, jobs: Sequence[SettledJob], now: float, wall: float) -> None:
        second = int(now)
        if second != self._second or len(self._gathered) >= JOBS_ADDED_AT_ONCE:
            self._add_gathered()
            self._second = second
        self._gathered += jobs
        self._latest += [(wall, job) for job in jobs[-OUTCOMES_KEPT:]]
        for job in jobs:
            # Of jobs that Redis has lost there is a notice; older versions could not read a heartbeat with them.
            if job.cause is not None and job.disposition not in (Disposition.SENT, Disposition.GONE):
                self._note_cause(job.cause, job.disposition, now, wall)

    def _add_gathered(self) -> None:
        """Add the settlements of one second, figure by figure: a third of the cost of adding each alone."""
        if not self._gathered:
            return
        second, (gathered, self._gathered) = self._second, (self._gathered, [])
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            while self._seconds[0][0] < second - SPARK_SECONDS:
                self._seconds.popleft()
        self._seconds[-1][1].update([each.disposition for each in gathered])
        sent = [each for each in gathered if each.disposition is Disposition.SENT]
        self._wait.note(second, [each.waited_seconds for each in gathered if each.waited_seconds is not None])
        self._smtp.note(second, [each.smtp_seconds for each in gathered if each.smtp_seconds is not None])
        self._total.note(second, [each.total_seconds for each in sent])
        self._latency.note(second, [each.latency_seconds for each in sent if each.latency_seconds is not None])

    def _note_cause(self, cause: Cause, disposition: Disposition, now: float, wall: float) -> None:
        minute = int(now // 60)
        if not self._causes or self._causes[-1][0] != minute:
            self._causes.append((minute, {}))
            while self._causes[0][0] <= minute - CAUSE_MINUTES:
                self._causes.popleft()
        counts = self._causes[-1][1]
        key = (cause.codes, cause.word, disposition)
        if key in counts or len(counts) < CAUSES_KEPT:
            counts[key] = (counts.get(key, (0, 0.0))[0] + 1, wall)

    def _rates(self, now: float) -> Rates:
        # Without the current second, which would make every rate too small.
        counted: Counter[Disposition] = Counter()
        for second, counts in self._seconds:
            if int(now) - RATE_SECONDS <= second < int(now):
                counted.update(counts)
        span = min(float(RATE_SECONDS), max(1.0, now - self.started_at))
        return Rates(
            claimed=counted.total() / span,
            sent=counted[Disposition.SENT] / span,
            delayed=counted[Disposition.DELAYED] / span,
            dead=counted[Disposition.DEAD] / span,
        )

    def _spark(self, now: float) -> tuple[int, ...]:
        counts = {second: counted[Disposition.SENT] for second, counted in self._seconds}
        return tuple(counts.get(int(now) - ago, 0) for ago in range(SPARK_SECONDS, 0, -1))

    def _slope(self, now: float) -> float | None:
        return heading([(at - now, depth) for at, depth in self._depths if now - at <= SLOPE_SECONDS])

    def _cause_counts(self, now: float) -> tuple[DeathCount, ...]:
        return summed_causes(
            [
                DeathCount(codes, word, disposition, count, last_at)
                for (codes, word, disposition), (count, last_at) in counts.items()
            ]
            for minute, counts in self._causes
            if minute > now // 60 - CAUSE_MINUTES
        )
