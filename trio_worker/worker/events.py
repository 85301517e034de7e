"""Pure. What happened: a closed set of records.

Log lines, the dashboard, metrics and the exit ledger are functions of these records, so their figures cannot disagree.
No record holds an address in clear: recipients are masked where the record is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import field

from trio_worker.queue.claim import Source
from trio_worker.queue.losses import LossSign
from trio_worker.queue.record import Cause
from trio_worker.records import frozen
from trio_worker.redis.server import DurabilityRisk
from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    DepthLimited,
    DepthRestored,
    PlacesRestored,
    PlacesSuspended,
)
from trio_worker.smtp.outcome import Trouble
from trio_worker.typed_frozen import typed_frozen
from trio_worker.worker.attempt import AttemptReport
from trio_worker.worker.breaker import Breaker
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen


@frozen
class PhaseChanged:
    """The worker entered a phase; ``why`` names the signal or the reason."""

    phase: Phase
    why: str = ""


@frozen
class QuietChanged:
    """The worker claims nothing more and stays, or claims again; ``why`` names the signal or the order."""

    is_quiet: bool
    why: str = ""


# Of a claimed job: its id, where it was taken from, and how often it has been given out.
ClaimedJob: TypeAlias = tuple[str, Source, int]


@frozen
class Claimed:
    """Jobs were claimed: all that one claim brought, at least one."""

    jobs: tuple[ClaimedJob, ...]


@typed_frozen
class SettledJob:
    """What became of one job.

    ``waited_seconds`` runs from push to claim, ``smtp_seconds`` from MAIL to the deciding reply, ``total_seconds`` from
    claim to settlement. ``latency_seconds`` runs from push to settlement, over all attempts and the delays between
    them; from not_before if that is later. Durations go by name alone: two floats in a row of fifteen values would be
    swapped unseen.
    """

    job_id: str
    disposition: Disposition
    email_type: str = ""
    attempt: int = 0
    cause: Cause | None = None
    recipients: tuple[str, ...] = ()  # masked
    delay_seconds: float = field(default=0.0, kw_only=True)
    waited_seconds: float | None = field(default=None, kw_only=True)
    is_estimate: bool = False
    smtp_seconds: float | None = field(default=None, kw_only=True)
    total_seconds: float = field(default=0.0, kw_only=True)
    latency_seconds: float | None = field(default=None, kw_only=True)
    connection_id: int | None = None
    is_uncertain: bool = False
    is_clock_ahead: bool = False  # the producer says that it was pushed after it was claimed
    tried: AttemptReport | None = None


@frozen
class Settled:
    """Jobs were settled: all that one call settled, at least one."""

    jobs: tuple[SettledJob, ...]


@frozen
class LeasesRecovered:
    """A claim found leases that had run out: each of these jobs may have been sent by its former worker."""

    count: int
    crashed: int = 0  # of jobs delivered too often without a settlement: now dead
    held: int = 0  # of jobs whose type is held when uncertain
    too_large: int = 0  # fresh elements over the size limit: now dead


@frozen
class LeaseLost:
    """A renewal found that another worker has taken over a job in flight, or that Redis does not know it any more."""

    job_id: str


@frozen
class BreakerChanged:
    """The breaker changed its state."""

    breaker: Breaker


@frozen
class RateLimited:
    """The relay said that we send too fast: nothing is claimed for ``seconds``, then ``per_second`` mails at first."""

    trouble: Trouble
    seconds: float
    per_second: float


@frozen
class RateLimitLifted:
    """The relay has refused no mail for its rate for so long that claims go as fast as they can again."""


@frozen
class QueuePaused:
    """A claim found the queue paused, or, with an empty ``why``, not paused any more."""

    why: str


@frozen
class RedisFailed:
    """A call to Redis failed; it is repeated. ``reason`` is the error, ``doing`` the operation.

    ``is_refusal``: Redis answered, and refused it.
    """

    doing: str
    reason: str
    is_refusal: bool = False


@frozen
class RedisRecovered:
    """Redis answers again."""

    after_seconds: float


@frozen
class DataLost:
    """Redis has lost data: jobs that a total no longer counts, keys that it evicted, or jobs that were being sent.

    Of the workers that see the same loss, the first one that notes it in Redis publishes this.
    ``uncertain`` of these jobs may be back in the list although their mails were sent; those whose settlements are gone
    are counted with the settlements.
    """

    sign: LossSign
    count: int
    uncertain: int = 0


@frozen
class WaitTroubled:
    """The blocking wait for a job fails though Redis answers; with an empty ``why`` it works again.

    ``polls``: the worker looks for jobs at an interval meanwhile; else it waits again, but not for so long.
    """

    why: str
    polls: bool = True


@frozen
class HeartbeatTroubled:
    """Redis refuses this worker its heartbeat for want of a permission; with an empty ``why`` it takes it again.

    ``is_heard``: it takes a plain one, so commands show the worker, but their orders do not reach it.
    """

    why: str
    is_heard: bool = False


@frozen
class RedisWeak:
    """Redis is set up in a way that weakens a promise."""

    risk: DurabilityRisk


@frozen
class SettlementsKept:
    """Settlements that Redis did not take were written to the journal."""

    count: int


@frozen
class JournalFailed:
    """The journal could not be written while Redis did not answer: nothing is sent until either does."""

    reason: str


@frozen
class JournalReplayed:
    """The settlements in the journal of a process that has ended were sent to Redis.

    ``refused`` are settlements of jobs that another worker had taken over, or that Redis already had.
    """

    settled: int
    refused: int


@frozen
class JobBroke:
    """Handling one job raised: a bug of ours or of a template. The job is buried with the traceback in the log."""

    job_id: str
    traceback: str


@frozen
class SettingsRead:
    """The settings were read again.

    ``taken`` says what is in force from now on, ``waiting`` names keys that wait for the next start. With ``faults``
    nothing was taken.
    """

    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@frozen
class LoopComplained:
    """The asyncio loop under the foreign libraries reported an exception that no task awaited."""

    reason: str


Event: TypeAlias = (
    PhaseChanged
    | QuietChanged
    | Claimed
    | Settled
    | LeasesRecovered
    | LeaseLost
    | ConnectionOpened
    | ConnectionFailed
    | PlacesSuspended
    | PlacesRestored
    | DepthLimited
    | DepthRestored
    | ConnectionClosed
    | BreakerChanged
    | RateLimited
    | RateLimitLifted
    | QueueSeen
    | QueuePaused
    | RedisFailed
    | RedisRecovered
    | RedisWeak
    | DataLost
    | WaitTroubled
    | HeartbeatTroubled
    | SettlementsKept
    | JournalFailed
    | JournalReplayed
    | JobBroke
    | SettingsRead
    | LoopComplained
)
Publish: TypeAlias = Callable[[Event], None]
