"""Pure. The phases of a worker, and what becomes of its jobs. Apart from the events, which commands do not need."""

from __future__ import annotations

from enum import StrEnum


class Disposition(StrEnum):
    """What became of a claimed job, as the exit ledger names it."""

    SENT = "sent"
    DELAYED = "delayed"
    DEAD = "dead"
    HELD = "held"
    RELEASED = "released"
    FENCED = "fenced"  # another worker had taken the job over: this settlement was refused
    GONE = "gone"  # Redis has lost the job: it did not know it any more, and nobody else can have taken it over
    UNSETTLED = "unsettled"  # Redis took no settlement before the worker ended; the lease will run out


class Phase(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
