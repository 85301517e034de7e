"""Pure. What a poll of the queue found: an event of a worker, and what commands read."""

from __future__ import annotations

from attrs import field

from trio_worker.queue.ages import AgeBars
from trio_worker.queue.losses import LostData
from trio_worker.queue.operator_counts import OperatorCounts
from trio_worker.records import frozen
from trio_worker.redis.server import ServerState


@frozen
class QueueSeen:
    """What a poll of the queue found; counts of jobs by state."""

    waiting: int
    delayed: int
    leased: int
    held: int
    dead: int
    due: int = 0
    oldest_seconds: float | None = None
    is_estimate: bool = False
    paused: str = ""
    pause_seconds_left: float | None = None  # None for a pause without an end
    next_due_seconds: float | None = None  # until the first delayed job is due, below 0 when it is
    poll_seconds: float | None = None  # that the poll took
    operator_counts: OperatorCounts = field(factory=OperatorCounts)
    ages: AgeBars | None = None
    server: ServerState | None = None
    losses: tuple[LostData, ...] = ()  # of data, in the last day
