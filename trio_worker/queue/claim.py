"""Pure. A job in a worker's hands, and what one claim brought."""

from __future__ import annotations

from enum import StrEnum

from attrs import field, frozen

from trio_worker.queue.record import Record


class Source(StrEnum):
    """Where a claim took a job from."""

    FRESH = "fresh"  # the producer's list
    DUE = "due"  # delayed, and its time had come
    RECOVERED = "recovered"  # another worker's lease had run out


@frozen(eq=False)
class Claim:
    """One job in our hands: its bytes, its record, and the token that fences its settlement.

    Equal to nothing but itself: our own release may be claimed again at once, and that is another claim.
    ``claimed_at`` is Redis' clock in epoch seconds, ``began`` ours (trio's): times of two clocks, so they go by name
    alone. ``place`` counts fresh jobs since the queue began and is None for all others.
    """

    job_id: str
    body: bytes
    record: Record
    token: str
    source: Source
    deliveries: int
    claimed_at: float = field(kw_only=True)
    began: float = field(kw_only=True)
    place: int | None = None


@frozen
class Claims:
    """What one claim brought.

    ``next_seconds`` is the time to the next due job or lease's end, None without one; ``pushed`` counts all jobs that
    were ever in the list; ``paused`` is the pause as stored, empty while there is none. ``suspects`` are jobs that may
    have ended their workers: one that was given, alone, or those that wait for a worker with nothing in hand.
    """

    jobs: tuple[Claim, ...]
    at: float
    next_seconds: float | None
    waiting: int
    pushed: int
    recovered: int = 0
    crashed: int = 0
    held: int = 0
    too_large: int = 0
    paused: str = ""
    suspects: int = 0
