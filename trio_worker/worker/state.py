"""Pure. A worker's state at one moment: the figures that no event carries; a record that pure modules can read."""

from __future__ import annotations

from trio_worker.records import frozen
from trio_worker.smtp.events import ConnectionView, OneAtATime, Suspension
from trio_worker.smtp.outcome import Trouble


@frozen
class WorkerState:
    """A worker at one moment; `Worker.state` makes it, and nothing changes it afterwards.

    Of the jobs ``in_flight`` those ``at_work`` wait for more than their settlement. ``busy_consumers`` have a job,
    ``idle_share`` is the part of the consumers that had none over the last minute (0 to 1, None before the first job).
    ``grace_ends_at`` is on the local clock in seconds, None while nothing drains.
    """

    number_workers: int
    max_connections: int
    depth: int
    in_flight: int = 0
    at_work: int = 0
    busy_consumers: int = 0
    idle_share: float | None = None
    connections: tuple[ConnectionView, ...] = ()
    connecting: int = 0
    mails_in_flight: int = 0
    suspension: Suspension | None = None
    one_at_a_time: OneAtATime | None = None  # why ``depth`` is 1; None while it is that of the options
    trouble: Trouble | None = None  # the relay's
    grace_ends_at: float | None = None
