"""Pure. Operator counters in Redis: actions of operators, removed dead letters, and the duration of drains.

They count since the queue was created, for all workers and commands; so every worker reports the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from attrs import field

from trio_worker.records import frozen

# Upper bounds in seconds; longer drains are counted after the last bound.
DRAIN_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)


class OperatorAction(StrEnum):
    """A change that an operator makes with a command or a key."""

    WORKER_QUIET = "worker_quiet"
    WORKER_RESUME = "worker_resume"
    WORKER_DRAIN = "worker_drain"
    WORKER_LOG_LEVEL = "worker_log_level"
    RELAY_PROBE = "relay_probe"
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
    DELAYED_RETRY = "delayed_retry"
    DELAYED_DROP = "delayed_drop"
    RETRY_UNDO = "retry_undo"


class Removal(StrEnum):
    """How a dead letter was removed; there is no other way."""

    RETRIED = "retried"
    DROPPED = "dropped"
    RELEASED = "released"  # put back on the plain list, for another worker


@frozen
class OperatorCounts:
    """Counts since the queue was created; ``drains`` by bound, the last without one; ``drain_seconds`` is their sum."""

    acts: Mapping[OperatorAction, int] = field(factory=dict)
    removed: Mapping[Removal, int] = field(factory=dict)
    drains: tuple[int, ...] = (0,) * (len(DRAIN_BOUNDS) + 1)
    drain_seconds: float = 0.0


def action_name(act: OperatorAction) -> str:
    """Return the name of an action's counter."""
    return f"act_{act}"


def drain_names(seconds: float) -> tuple[str, str]:
    """Return the names of the counter for a drain of this duration, and of the sum of all drains (milliseconds)."""
    place = next((place for place, bound in enumerate(DRAIN_BOUNDS) if seconds <= bound), len(DRAIN_BOUNDS))
    return f"drains_{place}", "drain_ms"


def read_operator_counts(totals: Mapping[str, int]) -> OperatorCounts:
    """Read the counters from the totals of a queue; a missing one is 0."""
    return OperatorCounts(
        acts={act: totals.get(action_name(act), 0) for act in OperatorAction},
        removed={removal: totals.get(f"dead_{removal}", 0) for removal in Removal},
        drains=tuple(totals.get(f"drains_{place}", 0) for place in range(len(DRAIN_BOUNDS) + 1)),
        drain_seconds=totals.get("drain_ms", 0) / 1000,
    )
