"""Edge. Watches all workers of a queue through Redis: polls become snapshots, and outcomes come as they happen.

A poll is one round trip. While there is a watcher, the workers publish their outcomes; they stop ten seconds after the
last poll. A Redis that does not answer is asked again, and the figures say how old they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

from trio_worker.fleet.overview import HOUR_MINUTES, Overview, OverviewPoller, queue_seen
from trio_worker.fleet.summary import Fleet, QueueTotals
from trio_worker.queue.history import waiting_growth
from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.telemetry.feed import FeedOutcome, FeedTrace, read_outcome, read_trace
from trio_worker.telemetry.snapshot import Snapshot

# Workers see with their next heartbeat that there is a watcher, and publish for 10 s after its last poll.
WATCH_SECONDS = 10.0
# Outcomes read in one poll; more come only faster than a person reads.
MAX_OUTCOMES = 500


@define(eq=False)
class Watch:
    """What one watcher has seen of a queue; ``last`` is the last poll that succeeded."""

    client: RedisCalls
    queue_name: str
    redis_name: str
    wants_outcomes: bool = True
    polls_closely: bool = False
    clock: Callable[[], float] = time.monotonic  # local seconds
    fleet: Fleet = field(init=False)
    last: Overview | None = None
    outcomes: list[FeedOutcome] = field(factory=list)  # of the last poll, oldest first
    exchanges: list[FeedTrace] = field(factory=list)  # the same, of connections that are traced
    _after: str = ""
    _poller: OverviewPoller = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.fleet = Fleet(self.queue_name, self.redis_name)
        self._poller = OverviewPoller(self.client, self.queue_name, self.polls_closely, self.clock)

    def snapshot(self) -> Snapshot:
        """Return the figures of all workers now."""
        return self.fleet.snapshot(self.clock(), time.time())

    async def pass_over(self) -> Unavailable | None:
        """Leave out what was published before now."""
        newest = await self.client.command("XREVRANGE", keys_of(self.queue_name).latest, "+", "-", "COUNT", 1)
        if isinstance(newest, Unavailable):
            return newest
        for entry_id, _ in newest:
            self._after = entry_id.decode()
        return None

    async def poll(self, minutes: int = HOUR_MINUTES) -> Unavailable | None:
        """Poll once; a failure is noted, and returned."""
        keys = keys_of(self.queue_name)
        commands = [
            ("SET", keys.watch, "1", "PX", round(WATCH_SECONDS * 1000)),
            ("XRANGE", keys.latest, f"({self._after}" if self._after else "-", "+", "COUNT", MAX_OUTCOMES),
        ]
        began = self.clock()
        wanted = commands if self.wants_outcomes else []
        looked = await self._poller.poll(minutes, wanted)
        now = self.clock()
        self.outcomes, self.exchanges = [], []
        if isinstance(looked, Unavailable):
            self.fleet.note_failure(looked.reason, now)
            return looked
        seen, answers = looked
        self.last = seen
        if self.wants_outcomes:
            self._take_feed(answers[-1])
        counts = seen.counts
        totals = QueueTotals(counts.at, counts.popped, counts.sent, counts.delays, counts.deaths, counts.waiting)
        growth = waiting_growth(seen.minutes, counts.at, counts.waiting)
        self.fleet.note_poll(totals, queue_seen(seen, now - began), seen.workers, now, now - began, growth)
        self.fleet.note_past(seen.minutes)
        return None

    def _take_feed(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        for entry_id, fields in entries:
            self._after = entry_id.decode()
            line = read_outcome(fields.get(b"outcome", b""))
            if line is not None:
                self.outcomes.append(line)
            exchange = read_trace(fields.get(b"exchange", b""))
            if exchange is not None:
                self.exchanges.append(exchange)
        self.fleet.note_outcomes(self.outcomes)
