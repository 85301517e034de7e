"""Pure. The snapshot: all figures of one worker, or of a fleet, at one moment."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from attrs import field

from trio_worker.records import frozen
from trio_worker.telemetry.heartbeat import (
    DeathCount,
    DepthLimit,
    Rates,
    Suspended,
    Vitals,
    WorkerSeen,
)
from trio_worker.telemetry.notice import Notice
from trio_worker.telemetry.quantiles import Quantiles
from trio_worker.worker.phase import Disposition, Phase

if TYPE_CHECKING:
    from trio_worker.smtp.events import ConnectionView
    from trio_worker.telemetry.feed import FeedOutcome
    from trio_worker.telemetry.ledger import Ledger
    from trio_worker.worker.breaker import Breaker
    from trio_worker.worker.queue_seen import QueueSeen

# Causes of failures are counted per minute, and shown for this number of minutes.
CAUSE_MINUTES = 15


class Scope(Enum):
    """The scope of a snapshot: one worker or all."""

    WORKER = "this worker"
    FLEET = "all workers"


@frozen
class Snapshot:
    """All figures that a screen shows; points in time in epoch seconds, durations in seconds."""

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
    at_work: int  # jobs in hand, without those that only wait for their settlement
    number_workers: int  # consumers
    rates: Rates
    waiting_slope: float | None  # growth of waiting and due jobs per second, over the last half minute
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
    suspended: Suspended | None = None  # suspended connections
    depth_limit: DepthLimit | None = None  # why connections carry one mail at a time
    busy_consumers: int | None = None  # consumers that have a job
    at_work_limit: int = 0  # maximum of ``at_work``
    mails_in_flight: int | None = 0  # mails on connections; None if no worker sends it
    redis_refuses: bool = False  # of the trouble: Redis answers, and refuses what a worker needs
    redis_recoveries: int = 0  # times that Redis answered again
    write_refusal: str = ""  # why Redis refuses what workers write to show themselves
    login_refusal: str = ""  # why our own login may not do that; theirs may, or may be the same
    notices: tuple[Notice, ...] = ()  # of this worker
    is_at_dead_limit: bool = False  # claims take no job, because of queue.dead_limit

    @property
    def connect_seconds_per_mail(self) -> float | None:
        """Return the time to open connections divided by the mails of this run; None before the first mail."""
        sent = self.ledger.settled[Disposition.SENT]
        return self.ledger.opening_seconds / sent if sent else None
