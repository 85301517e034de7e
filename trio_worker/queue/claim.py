"""Pure. A job under a lease, and the result of one claim; `Broker.claim` in broker.py makes both."""

from __future__ import annotations

from enum import StrEnum

from attrs import field

from trio_worker.queue.record import Record
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

DEAD_LIMIT_REACHED = "the dead letters have reached queue.dead_limit"
"""The pause that the claim script answers with at that limit."""


class Source(StrEnum):
    """Where a claim took a job from."""

    FRESH = "fresh"  # the producer's list
    DUE = "due"  # delayed, and its time had come
    RECOVERED = "recovered"  # another worker's lease had expired


@typed_frozen(eq=False)
class Claim:
    """One claimed job: its bytes, its record, and the token that fences its settlement.

    Compared by identity: a worker may release a job and claim it again at once, and that is another claim.
    ``claimed_at`` is Redis' clock in epoch seconds, ``began`` trio's clock; both are keyword-only, so that they are
    not mixed up. ``place`` is the number of a fresh job since the queue was created, None for all others.
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
    """The result of one claim.

    ``next_seconds`` is the time to the next due job or end of a lease, None without one; ``pushed`` counts all jobs
    that were ever in the list; ``popped`` those that this claim took from it, ``ever_popped`` those before them, which
    falls only if Redis loses data, and ``generation`` is the word that the last such loss has left; ``paused`` is the
    stored pause, empty while there is none. ``suspects`` counts the jobs that may have crashed their workers: 1 if this
    claim brought one, alone; else those that wait for an idle worker.
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
    popped: int = 0
    ever_popped: int = 0
    generation: str = ""
