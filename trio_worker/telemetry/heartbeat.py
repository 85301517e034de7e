"""Pure. What a worker tells of itself in Redis every two seconds, for whoever watches all workers.

Holds figures, states and names of hosts; no address, no token, no content of a mail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain

from attrs import evolve, field, frozen
from cattrs import Converter

from trio_worker.telemetry.feed import decode_or_none
from trio_worker.telemetry.quantiles import Histogram
from trio_worker.worker.events import Disposition, Phase

# How often a worker tells, and after how long of silence it is taken for lost.
BEAT_SECONDS = 2.0
LOST_SECONDS = 15.0
# Of the causes of failure only the most frequent travel: the whole list can be long, and a screen shows eight.
CAUSES_TOLD = 30
# A worker with more email types tells none: part of them would say that it does not know the others.
MAX_TYPES_TOLD = 200

_CONVERTER = Converter()


@frozen
class Rates:
    """Per second, over the last ten."""

    claimed: float = 0.0
    sent: float = 0.0
    delayed: float = 0.0
    dead: float = 0.0


@frozen
class DeathCount:
    """How many jobs of the last 15 minutes left for one cause unsent, and when the last one did (epoch seconds)."""

    codes: str
    word: str
    disposition: Disposition
    count: int
    last_at: float


@frozen
class Vitals:
    """How the process is: its share of one core, its memory, how late its loop wakes, and Redis' round trip."""

    cpu_share: float | None = None
    rss_bytes: int | None = None
    lag_seconds: float | None = None
    redis_seconds: float | None = None


@frozen
class Suspended:
    """Connections that a pool does without until a time (epoch seconds), because of trouble that others do not have.

    ``why`` is that trouble in words for people, ``how`` in one for machines (`FailureKind`).
    """

    count: int
    why: str
    until: float
    how: str = ""


@frozen
class Heartbeat:
    """The figures of one worker: counts since ``started_at`` (epoch seconds), histograms of 5 minutes, causes of 15.

    ``in_hand`` are its jobs in flight; those ``at_work`` wait for more than their settlement. Of its ``number_workers``
    consumers ``busy_consumers`` have a job, and ``idle_share`` of them had none over the last minute; a version without
    consumers does not tell ``busy_consumers``. ``config`` is the first four digits of the settings' digest, ``depth``
    the most mails in flight at once on one connection.
    """

    worker: str
    version: str
    started_at: float
    phase: Phase
    number_workers: int
    max_connections: int
    depth: int = 1
    why: str = ""
    is_quiet: bool = False
    in_hand: int = 0
    at_work: int = 0
    connections: int = 0
    busy_connections: int = 0
    breaker: str = "closed"
    trouble: str = ""
    rates: Rates = field(factory=Rates)
    claimed: int = 0
    settled: dict[str, int] = field(factory=dict)
    uncertain: int = 0
    recovered: int = 0
    opened: int = 0
    opening_seconds: float = 0.0
    idle_share: float | None = None
    wait: Histogram = field(factory=Histogram)
    smtp: Histogram = field(factory=Histogram)
    total: Histogram = field(factory=Histogram)
    latency: Histogram = field(factory=Histogram)
    causes: tuple[DeathCount, ...] = ()
    vitals: Vitals = field(factory=Vitals)
    config: str = ""
    busy_consumers: int | None = None
    suspended: Suspended | None = None
    mails_in_flight: int | None = None  # on connections, their outcome open; None where it is not told
    types: tuple[str, ...] = ()  # the email types that have templates here; empty where it is not told

    @property
    def at_work_limit(self) -> int:
        """Most jobs at work at once; a version without consumers has one for each of ``number_workers``."""
        return self.number_workers * (1 if self.busy_consumers is None else self.depth)

    @property
    def connections_left(self) -> int:
        """Most connections at once, without those that are suspended."""
        return max(0, self.max_connections - (0 if self.suspended is None else self.suspended.count))

    @property
    def connections_usable(self) -> int:
        """Of those, as many as can carry mail at once: each consumer sends over one."""
        left = self.connections_left
        return left if self.busy_consumers is None else min(left, self.number_workers)


@frozen
class WorkerSeen:
    """A heartbeat and how long ago it was; one that is ``is_lost`` has been silent for too long."""

    beat: Heartbeat
    seen_seconds: float

    @property
    def is_lost(self) -> bool:
        return self.seen_seconds > LOST_SECONDS


def summed_causes(tellings: Iterable[Iterable[DeathCount]]) -> tuple[DeathCount, ...]:
    """Return the causes that several tell of as those of all, the most frequent first."""
    sums: dict[tuple[str, str, Disposition], DeathCount] = {}
    for cause in chain.from_iterable(tellings):
        key = (cause.codes, cause.word, cause.disposition)
        known = sums.get(key, evolve(cause, count=0))
        sums[key] = evolve(known, count=known.count + cause.count, last_at=max(known.last_at, cause.last_at))
    return tuple(sorted(sums.values(), key=lambda cause: -cause.count))


def told_types(names: Iterable[str]) -> tuple[str, ...]:
    """Return email types as a heartbeat tells them: in order, or none where they are too many."""
    told = tuple(sorted(names))
    return told if len(told) <= MAX_TYPES_TOLD else ()


def write_heartbeat(beat: Heartbeat) -> str:
    """Return a heartbeat as the JSON kept in Redis; a few kilobytes at the most."""
    return json.dumps(_CONVERTER.unstructure(beat), separators=(",", ":"))


def read_heartbeat(wire: bytes) -> Heartbeat | None:
    """Read a heartbeat back, or None; what another version says beyond ours is ignored."""
    return decode_or_none(wire, Heartbeat)
