"""Pure. What a queue counts in Redis beside its jobs: what people did, dead letters that left, how long drains took.

All of it is since the queue began and by everybody, so it holds whoever ran when, and every worker says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from attrs import field, frozen

# Upper bounds in seconds; what took longer is counted beyond the last one.
DRAIN_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)


class OperatorAction(StrEnum):
    """What people do by a command or a key that changes something."""

    WORKER_QUIET = "worker_quiet"
    WORKER_RESUME = "worker_resume"
    WORKER_DRAIN = "worker_drain"
    WORKER_LOG_LEVEL = "worker_log_level"
    QUEUE_PAUSE = "queue_pause"
    QUEUE_RESUME = "queue_resume"
    QUEUE_PURGE = "queue_purge"
    QUEUE_RELEASE = "queue_release"
    JOB_RETRY = "job_retry"
    JOB_CANCEL = "job_cancel"
    DEAD_RETRY = "dead_retry"
    DEAD_DROP = "dead_drop"
    HELD_RETRY = "held_retry"
    HELD_DROP = "held_drop"
    RETRY_UNDO = "retry_undo"


class Removal(StrEnum):
    """How a dead letter left the dead letters; nothing else takes one away."""

    RETRIED = "retried"
    DROPPED = "dropped"
    RELEASED = "released"  # put back on the plain list, for another worker


@frozen
class OperatorCounts:
    """Counts since the queue began; ``drains`` by bound, the last one beyond all, and the seconds they took in all."""

    acts: Mapping[OperatorAction, int] = field(factory=dict)
    removed: Mapping[Removal, int] = field(factory=dict)
    drains: tuple[int, ...] = (0,) * (len(DRAIN_BOUNDS) + 1)
    drain_seconds: float = 0.0


def action_name(act: OperatorAction) -> str:
    """Return the name under which an act is counted."""
    return f"act_{act}"


def drain_names(seconds: float) -> tuple[str, str]:
    """Return the names under which one drain is counted, and the sum of them all (milliseconds)."""
    place = next((place for place, bound in enumerate(DRAIN_BOUNDS) if seconds <= bound), len(DRAIN_BOUNDS))
    return f"drains_{place}", "drain_ms"


def read_operator_counts(totals: Mapping[str, int]) -> OperatorCounts:
    """Read them from the totals of a queue; what is not counted yet is 0."""
    return OperatorCounts(
        acts={act: totals.get(action_name(act), 0) for act in OperatorAction},
        removed={removal: totals.get(f"dead_{removal}", 0) for removal in Removal},
        drains=tuple(totals.get(f"drains_{place}", 0) for place in range(len(DRAIN_BOUNDS) + 1)),
        drain_seconds=totals.get("drain_ms", 0) / 1000,
    )
