"""Edge. Watches all workers of a queue through Redis: polls become snapshots, and outcomes come as they happen.

A poll is one round trip. While there is a watcher, the workers publish their outcomes; they stop ten seconds after the
last poll. A Redis that does not answer is asked again, and the figures say how old they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import field

from trio_worker.fleet.overview import HOUR_MINUTES
from trio_worker.fleet.polls import Polls
from trio_worker.queue.keys import keys_of
from trio_worker.records import define
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.telemetry.feed import FeedOutcome, FeedTrace, read_outcome, read_trace
from trio_worker.telemetry.snapshot import Snapshot

# Workers see with their next heartbeat that there is a watcher, and publish for 10 s after its last poll.
WATCH_SECONDS = 10.0
# Outcomes read in one poll; more come only faster than a person reads.
MAX_OUTCOMES = 500


@define(eq=False)
class Watch:
    """What one watcher has seen of a queue: its polls, and what workers published between them.

    ``clock`` gives local seconds; with ``is_close_up`` a poll also samples ages and reads the server's state.
    """

    client: RedisCalls
    queue_name: str
    redis_name: str
    is_close_up: bool = False
    clock: Callable[[], float] = time.monotonic
    outcomes: list[FeedOutcome] = field(factory=list)  # of the last poll, oldest first
    exchanges: list[FeedTrace] = field(factory=list)  # the same, of connections that are traced
    polls: Polls = field(init=False)
    _after: str = ""

    def __attrs_post_init__(self) -> None:
        self.polls = Polls(self.client, self.queue_name, self.redis_name, self.is_close_up, self.clock)

    def snapshot(self) -> Snapshot:
        """Return the figures of all workers now."""
        return self.polls.snapshot()

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
        commands = [("XRANGE", keys.latest, f"({self._after}" if self._after else "-", "+", "COUNT", MAX_OUTCOMES)]
        self.outcomes, self.exchanges = [], []
        answers = await self.polls.poll(minutes, commands, [("watch", (round(WATCH_SECONDS * 1000),))])
        if isinstance(answers, Unavailable):
            return answers
        self._take_feed(answers[-1])
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
        self.polls.fleet.note_outcomes(self.outcomes)
