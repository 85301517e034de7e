"""Pure. The figures of a running worker at one moment: the sum of its events, for every face that shows them."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from copy import deepcopy

from attrs import define, field, frozen

from trio_worker.breaker import Breaker, Closed
from trio_worker.events import (
    BreakerChanged,
    ConnectionView,
    Disposition,
    Event,
    JournalFailed,
    Ledger,
    Phase,
    PhaseChanged,
    QueueSeen,
    RedisFailed,
    RedisRecovered,
    Settled,
    SettlementsKept,
)

# Quantiles look back this far; the ring of slots forgets in steps of one slot.
WINDOW_SECONDS = 300
SLOT_SECONDS = 10
# Rates are counted over this many whole seconds.
RATE_SECONDS = 10
# One column of the sparkline a second.
SPARK_SECONDS = 300
# Each bucket is 12 % wider than the last, so a quantile read from it is off by 6 % at the most.
_GROWTH = math.log(1.12)
_LEAST_SECONDS = 0.0001
OUTCOMES_KEPT = 60
# Replies of one relay are few; a relay that answers with ever new codes must not fill the memory.
CAUSES_KEPT = 200


@frozen
class Quantiles:
    """Of one measured time over the last five minutes, in seconds; all None while nothing was measured."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    most: float | None = None


@frozen
class Rates:
    """Per second, over the last ten."""

    claimed: float = 0.0
    sent: float = 0.0
    delayed: float = 0.0
    dead: float = 0.0


@frozen
class DeathCount:
    """How many jobs of this run were delayed or died for one cause, and when the last one did (epoch seconds)."""

    codes: str
    word: str
    disposition: Disposition
    count: int
    last_at: float


@frozen
class OutcomeLine:
    """One job that left the worker's hands, for the list of the latest."""

    at: float  # epoch seconds
    settled: Settled


@frozen
class Snapshot:
    """Everything a screen shows; times of day in epoch seconds, durations in seconds."""

    at: float
    phase: Phase
    phase_why: str
    up_seconds: float
    queue_name: str
    redis_name: str
    relay_name: str
    queue: QueueSeen | None
    queue_seen_seconds: float | None  # how long ago
    ledger: Ledger
    in_hand: int
    number_workers: int
    rates: Rates
    waiting_slope: float | None  # jobs per second over the last half minute
    spark_sent: tuple[int, ...]  # per second, oldest first
    wait: Quantiles
    smtp: Quantiles
    total: Quantiles
    connections: tuple[ConnectionView, ...]
    max_connections: int
    breaker: Breaker
    breaker_seconds: float  # until the next probe, while it is open
    causes: tuple[DeathCount, ...]  # most frequent first
    latest: tuple[OutcomeLine, ...]  # newest last
    redis_down_seconds: float | None
    redis_trouble: str
    journal_trouble: str
    grace_seconds_left: float | None


@define
class _Window:
    """Measured times in buckets that grow by 12 %, in slots that are forgotten one by one."""

    _slots: deque[tuple[int, Counter[int], float]] = field(factory=deque)

    def note(self, now: float, seconds: float) -> None:
        slot = int(now // SLOT_SECONDS)
        bucket = max(0, math.ceil(math.log(max(seconds, _LEAST_SECONDS) / _LEAST_SECONDS) / _GROWTH))
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append((slot, Counter(), 0.0))
        at, counts, most = self._slots[-1]
        counts[bucket] += 1
        self._slots[-1] = (at, counts, max(most, seconds))

    def quantiles(self, now: float) -> Quantiles:
        oldest = int(now // SLOT_SECONDS) - WINDOW_SECONDS // SLOT_SECONDS
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()
        counts: Counter[int] = Counter()
        for _, slot_counts, _ in self._slots:
            counts.update(slot_counts)
        total = counts.total()
        if not total:
            return Quantiles()
        most = max(slot_most for _, _, slot_most in self._slots)
        p50, p95, p99 = (min(most, _at_rank(counts, math.ceil(total * share))) for share in (0.5, 0.95, 0.99))
        return Quantiles(total, p50, p95, p99, most)


def _at_rank(counts: Counter[int], rank: int) -> float:
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return _LEAST_SECONDS * math.exp(_GROWTH * (bucket - 0.5)) if bucket else _LEAST_SECONDS
    raise AssertionError("a rank beyond the count")


@define
class Board:
    """Events come in, snapshots go out; ``started_at`` is on the local clock (seconds) that ``note`` is given."""

    queue_name: str
    redis_name: str
    relay_name: str
    number_workers: int
    max_connections: int
    started_at: float
    ledger: Ledger = field(factory=Ledger)
    _phase: PhaseChanged = field(factory=lambda: PhaseChanged(Phase.STARTING))
    _queue: tuple[float, QueueSeen] | None = None
    _breaker: Breaker = field(factory=Closed)
    _seconds: deque[tuple[int, Counter[str]]] = field(factory=deque)
    _depths: deque[tuple[float, int]] = field(factory=lambda: deque(maxlen=64))
    _wait: _Window = field(factory=_Window)
    _smtp: _Window = field(factory=_Window)
    _total: _Window = field(factory=_Window)
    _causes: dict[tuple[str, str, Disposition], tuple[int, float]] = field(factory=dict)
    _latest: deque[OutcomeLine] = field(factory=lambda: deque(maxlen=OUTCOMES_KEPT))
    _redis_failed: tuple[float, str] | None = None
    _journal_trouble: str = ""

    def note(self, event: Event, now: float, wall: float) -> None:
        """Add one event; ``now`` is the local clock, ``wall`` the time of day in epoch seconds."""
        self.ledger.note(event)
        match event:
            case PhaseChanged():
                self._phase = event
            case Settled():
                self._note_settled(event, now, wall)
            case QueueSeen(waiting=waiting):
                self._queue = (now, event)
                self._depths.append((now, waiting))
            case BreakerChanged(breaker):
                self._breaker = breaker
            case RedisFailed(what=what):
                since = self._redis_failed[0] if self._redis_failed else now
                self._redis_failed = (since, what)
            case RedisRecovered():
                self._redis_failed, self._journal_trouble = None, ""
            case JournalFailed(what):
                self._journal_trouble = what
            case SettlementsKept():
                self._journal_trouble = ""
            case _:
                pass

    def snapshot(
        self, now: float, wall: float, connections: Iterable[ConnectionView] = (), grace_ends_at: float | None = None
    ) -> Snapshot:
        """Return the figures at ``now``."""
        breaker = self._breaker
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
            ledger=deepcopy(self.ledger),
            in_hand=self.ledger.in_hand,
            number_workers=self.number_workers,
            rates=self._rates(now),
            waiting_slope=self._slope(now),
            spark_sent=self._spark(now),
            wait=self._wait.quantiles(now),
            smtp=self._smtp.quantiles(now),
            total=self._total.quantiles(now),
            connections=tuple(connections),
            max_connections=self.max_connections,
            breaker=breaker,
            breaker_seconds=0.0 if probe_at is None else max(0.0, probe_at - now),
            causes=self._cause_counts(),
            latest=tuple(self._latest),
            redis_down_seconds=now - self._redis_failed[0] if self._redis_failed else None,
            redis_trouble=self._redis_failed[1] if self._redis_failed else "",
            journal_trouble=self._journal_trouble,
            grace_seconds_left=None if grace_ends_at is None else max(0.0, grace_ends_at - now),
        )

    def _note_settled(self, settled: Settled, now: float, wall: float) -> None:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            while self._seconds[0][0] < second - SPARK_SECONDS:
                self._seconds.popleft()
        self._seconds[-1][1][settled.disposition] += 1
        if settled.waited_seconds is not None:
            self._wait.note(now, settled.waited_seconds)
        if settled.smtp_seconds is not None:
            self._smtp.note(now, settled.smtp_seconds)
        if settled.disposition is Disposition.SENT:
            self._total.note(now, settled.total_seconds)
        self._latest.append(OutcomeLine(wall, settled))
        if settled.cause is not None and settled.disposition is not Disposition.SENT:
            key = (settled.cause.codes, settled.cause.word, settled.disposition)
            if key not in self._causes and len(self._causes) >= CAUSES_KEPT:
                return
            self._causes[key] = (self._causes.get(key, (0, 0.0))[0] + 1, wall)

    def _rates(self, now: float) -> Rates:
        # The running second is left out: it would make every rate look too small.
        counted: Counter[str] = Counter()
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
        """Fit a line through the depths of the last half minute (least squares)."""
        points = [(at - now, depth) for at, depth in self._depths if now - at <= 30.0]
        if len(points) < 3:
            return None
        mean_at = sum(at for at, _ in points) / len(points)
        mean_depth = sum(depth for _, depth in points) / len(points)
        spread = sum((at - mean_at) ** 2 for at, _ in points)
        if spread == 0:
            return None
        return sum((at - mean_at) * (depth - mean_depth) for at, depth in points) / spread

    def _cause_counts(self) -> tuple[DeathCount, ...]:
        counts = [
            DeathCount(codes, word, disposition, count, last_at)
            for (codes, word, disposition), (count, last_at) in self._causes.items()
        ]
        return tuple(sorted(counts, key=lambda each: -each.count))
