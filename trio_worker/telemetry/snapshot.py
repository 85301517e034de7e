"""Pure. The figures of workers at one moment, for every face that shows them."""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen

from trio_worker.smtp.events import ConnectionView
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.heartbeat import (
    DeathCount,
    Rates,
    Suspended,
    Vitals,
    WorkerSeen,
)
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.quantiles import Quantiles
from trio_worker.worker.breaker import Breaker
from trio_worker.worker.events import (
    Disposition,
    Phase,
    QueueSeen,
)

# Why jobs were not sent is counted by the minute, and shown for so many of them.
CAUSE_MINUTES = 15


class Scope(Enum):
    """Whose figures a snapshot shows."""

    WORKER = "this worker"
    FLEET = "all workers"


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
    in_hand: int  # claimed and not settled
    at_work: int  # of those, without the ones that only wait to be settled
    number_workers: int  # consumers
    rates: Rates
    waiting_slope: float | None  # jobs per second over the last half minute
    spark_sent: tuple[int, ...]  # per second, oldest first
    wait: Quantiles
    smtp: Quantiles
    total: Quantiles
    latency: Quantiles  # from push to settlement as sent
    idle_share: float | None  # of the consumers, over the last minute
    connections: tuple[ConnectionView, ...]
    max_connections: int
    breaker: Breaker
    breaker_seconds: float  # until the next probe, while it is open
    causes: tuple[DeathCount, ...]  # of all workers in the last 15 minutes, most frequent first
    latest: tuple[FeedOutcome, ...]  # newest last
    redis_down_seconds: float | None
    redis_trouble: str
    journal_trouble: str
    grace_seconds_left: float | None
    stale_after_seconds: float = 5.0
    is_quiet: bool = False
    scope: Scope = Scope.WORKER
    workers: tuple[WorkerSeen, ...] = ()
    vitals: Vitals = field(factory=Vitals)
    connecting: int = 0  # connections that are being opened
    suspended: Suspended | None = None  # connections that are done without for a while
    busy_consumers: int | None = None  # consumers that have a job
    at_work_limit: int = 0  # the most that ``at_work`` can be
    mails_in_flight: int | None = 0  # on connections, their outcome open; None where no worker tells
    redis_recoveries: int = 0  # times that Redis answered again

    @property
    def connect_seconds_per_mail(self) -> float | None:
        """Time spent on opening connections, shared among the mails of this run; None before the first."""
        sent = self.ledger.settled[Disposition.SENT]
        return self.ledger.opening_seconds / sent if sent else None
