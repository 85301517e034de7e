"""Pure. The heartbeat: the figures of a worker, which it writes to Redis every two seconds for all watchers.

It has figures, states and host names; no address, no token, no content of a mail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain

from attrs import asdict, evolve, field

from trio_worker.records import frozen
from trio_worker.telemetry.notice import REFUSED_WORD, Notice
from trio_worker.telemetry.quantiles import Histogram
from trio_worker.telemetry.wire import record_from
from trio_worker.worker.phase import Disposition, Phase

# The interval of heartbeats, and the time without one after which a worker is lost.
BEAT_SECONDS = 2.0
LOST_SECONDS = 15.0
# Only the most frequent causes of failures are sent: the whole list can be long, and a screen shows eight.
MAX_CAUSES = 30
# A worker with more email types sends none: a part of them would mean that it does not know the others.
MAX_TYPES = 200


@frozen
class Rates:
    """Rates per second, over the last ten seconds."""

    claimed: float = 0.0
    sent: float = 0.0
    delayed: float = 0.0
    dead: float = 0.0


@frozen
class DeathCount:
    """The number of jobs of the last 15 minutes that were not sent for one cause, and the time of the last one."""

    codes: str
    word: str
    disposition: Disposition
    count: int
    last_at: float


@frozen
class Vitals:
    """Figures of the process: its share of one core, its memory, the lag of its loop, and the round trip to Redis."""

    cpu_share: float | None = None
    rss_bytes: int | None = None
    lag_seconds: float | None = None
    redis_seconds: float | None = None


@frozen
class Suspended:
    """Suspended connections of a pool, until a time (epoch seconds): they could not be opened while others worked.

    ``why`` is the trouble in words for people, ``how`` in one word for programs (`FailureKind`).
    """

    count: int
    why: str
    until: float
    how: str = ""


@frozen
class RelayDown:
    """Why a worker sends nothing: the trouble in words, with the relay's own; failed tries; the next probe.

    ``probe_at`` is in epoch seconds; None while a probe is out, or waits for a mail.
    """

    why: str
    failures: int
    probe_at: float | None = None


@frozen
class DepthLimit:
    """Connections carry one mail at a time until a time (epoch seconds); ``why`` in words for people."""

    why: str
    until: float


@frozen
class Heartbeat:
    """The figures of one worker: counts since ``started_at`` (epoch seconds), histograms of 5 minutes, causes of 15.

    ``in_hand`` are its jobs in flight; ``at_work`` those that do not only wait for their settlement. Of its
    ``number_workers`` consumers ``busy_consumers`` have a job, and the fraction ``idle_share`` had none over the last
    minute; versions without consumers do not send ``busy_consumers``. ``config`` is the first four digits of the digest
    of the settings, ``depth`` the maximum of mails in flight on one connection, which is 1 where ``depth_limit`` says
    why.
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
    depth_limit: DepthLimit | None = None
    mails_in_flight: int | None = None  # mails on connections; None from older versions
    is_at_dead_limit: bool = False  # its last claim took no job, because of queue.dead_limit
    types: tuple[str, ...] = ()  # the email types with templates here; empty if unknown
    notices: tuple[Notice, ...] = ()
    relay: str = ""  # host and port; empty from older versions
    relay_down: RelayDown | None = None  # while ``trouble`` says so

    @property
    def is_refused(self) -> bool:
        """Return whether Redis refuses what the worker needs, so that it claims nothing."""
        return any(notice.word == REFUSED_WORD for notice in self.notices)

    @property
    def at_work_limit(self) -> int:
        """Return the maximum of jobs at work; versions without consumers have one for each of ``number_workers``."""
        return self.number_workers * (1 if self.busy_consumers is None else self.depth)

    @property
    def connections_left(self) -> int:
        """Return the maximum of connections, without the suspended ones."""
        return max(0, self.max_connections - (0 if self.suspended is None else self.suspended.count))

    @property
    def connections_usable(self) -> int:
        """Return how many of them can carry mail at once: each consumer sends over one."""
        left = self.connections_left
        return left if self.busy_consumers is None else min(left, self.number_workers)


@frozen
class WorkerSeen:
    """A heartbeat and its age; a worker ``is_lost`` if it has sent none for too long."""

    beat: Heartbeat
    seen_seconds: float

    @property
    def is_lost(self) -> bool:
        return self.seen_seconds > LOST_SECONDS


def summed_causes(tellings: Iterable[Iterable[DeathCount]]) -> tuple[DeathCount, ...]:
    """Return the sums of the causes of several workers, the most frequent first."""
    sums: dict[tuple[str, str, Disposition], DeathCount] = {}
    for cause in chain.from_iterable(tellings):
        key = (cause.codes, cause.word, cause.disposition)
        known = sums.get(key, evolve(cause, count=0))
        sums[key] = evolve(known, count=known.count + cause.count, last_at=max(known.last_at, cause.last_at))
    return tuple(sorted(sums.values(), key=lambda cause: -cause.count))


def reported_types(names: Iterable[str]) -> tuple[str, ...]:
    """Return the email types for a heartbeat: sorted, or none if they are too many."""
    types = tuple(sorted(names))
    return types if len(types) <= MAX_TYPES else ()


def write_heartbeat(beat: Heartbeat) -> str:
    """Return a heartbeat as JSON for Redis; at most a few kilobytes."""
    return json.dumps(asdict(beat), separators=(",", ":"))


def read_heartbeat(wire: bytes) -> Heartbeat | None:
    """Return a heartbeat from its JSON, or None; unknown fields of other versions are ignored."""
    try:
        return record_from(json.loads(wire), Heartbeat)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
