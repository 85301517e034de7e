"""Pure. Adds events to a ledger. Apart from it, because commands read ledgers and know no events."""

from __future__ import annotations

from typing import assert_never

from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    DepthLimited,
    DepthRestored,
    PlacesRestored,
    PlacesSuspended,
)
from trio_worker.telemetry.ledger import Ledger
from trio_worker.worker.events import (
    BreakerChanged,
    Claimed,
    DataLost,
    Event,
    HeartbeatTroubled,
    JobBroke,
    JournalFailed,
    JournalReplayed,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    PhaseChanged,
    QueuePaused,
    QuietChanged,
    RateLimited,
    RateLimitLifted,
    RedisFailed,
    RedisRecovered,
    RedisWeak,
    SettingsRead,
    Settled,
    SettlementsKept,
    WaitTroubled,
)
from trio_worker.worker.phase import Disposition
from trio_worker.worker.queue_seen import QueueSeen


def enter(ledger: Ledger, event: Event) -> None:
    """Add one event to a ledger."""
    match event:
        case Settled(jobs):
            ledger.settled.update([job.disposition for job in jobs])
            ledger.uncertain += sum([job.is_uncertain for job in jobs])
            for job in jobs:
                if job.disposition is Disposition.DEAD and job.cause is not None:
                    ledger.deaths[job.cause.codes or job.cause.word] += 1
        case Claimed(jobs):
            ledger.claimed += len(jobs)
        case LeasesRecovered():
            ledger.recovered += event.count
            ledger.uncertain += event.count
        case DataLost():
            ledger.uncertain += event.uncertain
        case ConnectionOpened(seconds=seconds):
            ledger.opened += 1
            ledger.opening_seconds += seconds
        case (
            PhaseChanged()
            | QuietChanged()
            | LeaseLost()
            | PlacesSuspended()
            | PlacesRestored()
            | DepthLimited()
            | DepthRestored()
            | ConnectionFailed()
            | ConnectionClosed()
            | BreakerChanged()
            | RateLimited()
            | RateLimitLifted()
            | QueueSeen()
            | QueuePaused()
            | RedisFailed()
            | RedisRecovered()
            | RedisWeak()
            | WaitTroubled()
            | HeartbeatTroubled()
            | SettlementsKept()
            | JournalFailed()
            | JournalReplayed()
            | JobBroke()
            | SettingsRead()
            | LoopComplained()
        ):
            pass
        case _:
            assert_never(event)
