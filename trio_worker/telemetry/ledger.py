"""Pure. The ledger: the sums of the events of a run, which must balance: claimed = in hand + settled."""

from __future__ import annotations

from collections import Counter
from typing import assert_never

from attrs import define, field

from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    DepthLimited,
    DepthRestored,
    PlacesRestored,
    PlacesSuspended,
)
from trio_worker.worker.events import (
    BreakerChanged,
    Claimed,
    DataLost,
    Disposition,
    Event,
    JobBroke,
    JournalFailed,
    JournalReplayed,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    PhaseChanged,
    QueuePaused,
    QueueSeen,
    QuietChanged,
    RedisFailed,
    RedisRecovered,
    RedisWeak,
    SettingsRead,
    Settled,
    SettlementsKept,
    WaitTroubled,
)


@define
class Ledger:
    """The sums of a run: claimed jobs, and settled jobs by disposition."""

    claimed: int = 0
    settled: Counter[Disposition] = field(factory=Counter)
    uncertain: int = 0
    recovered: int = 0
    opened: int = 0
    opening_seconds: float = 0.0
    deaths: Counter[str] = field(factory=Counter)  # by codes or word

    def note(self, event: Event) -> None:
        """Add one event."""
        match event:
            case Settled(jobs):
                self.settled.update([job.disposition for job in jobs])
                self.uncertain += sum([job.is_uncertain for job in jobs])
                for job in jobs:
                    if job.disposition is Disposition.DEAD and job.cause is not None:
                        self.deaths[job.cause.codes or job.cause.word] += 1
            case Claimed(jobs):
                self.claimed += len(jobs)
            case LeasesRecovered():
                self.recovered += event.count
                self.uncertain += event.count
            case ConnectionOpened(seconds=seconds):
                self.opened += 1
                self.opening_seconds += seconds
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
                | QueueSeen()
                | QueuePaused()
                | RedisFailed()
                | RedisRecovered()
                | RedisWeak()
                | DataLost()
                | WaitTroubled()
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

    @property
    def in_hand(self) -> int:
        """Return the number of jobs claimed and not settled."""
        return self.claimed - sum(self.settled.values())

    @property
    def balances(self) -> bool:
        """Return whether every claimed job is settled or in hand."""
        return self.in_hand == 0

    def __str__(self) -> str:
        sign = "=" if self.balances else f"!= ({self.in_hand:,} not accounted for)"
        return f"{self.claimed:,} claimed {sign} {self._parts()}"

    def so_far(self) -> str:
        """Return the line of a running worker; jobs in hand are not lost."""
        return f"{self.claimed:,} claimed = {self._parts()} + {self.in_hand:,} in hand"

    def _parts(self) -> str:
        return " + ".join(f"{self.settled[each]:,} {each}" for each in Disposition)
