"""Edge. Polls a queue and its workers: each poll is one round trip, and the last ones become a snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf

from attrs import field

from trio_worker.fleet.overview import HOUR_MINUTES, Overview, OverviewPoller, queue_seen
from trio_worker.fleet.summary import Fleet, QueueTotals
from trio_worker.queue.history import waiting_growth
from trio_worker.queue.needs import TO_BE_SEEN, find_refusal
from trio_worker.records import define
from trio_worker.redis.calls import RedisAnswer, RedisCalls, ScriptCall, Unavailable
from trio_worker.telemetry.snapshot import Snapshot

# While no worker reports, how often it is tried whether one could.
TRY_SECONDS = 10.0


@define(eq=False)
class Polls:
    """What polls of one queue have found; ``last`` is the last one that succeeded, ``clock`` gives local seconds.

    With ``is_close_up`` a poll also samples the ages of jobs and reads the server's state.
    """

    client: RedisCalls
    queue_name: str
    redis_name: str
    is_close_up: bool = False
    clock: Callable[[], float] = time.monotonic
    fleet: Fleet = field(init=False)
    last: Overview | None = None
    _poller: OverviewPoller = field(init=False)
    _tried_at: float = -inf

    def __attrs_post_init__(self) -> None:
        self.fleet = Fleet(self.queue_name, self.redis_name)
        self._poller = OverviewPoller(self.client, self.queue_name, self.is_close_up, self.clock)

    def snapshot(self) -> Snapshot:
        """Return the figures of all workers now."""
        return self.fleet.snapshot(self.clock(), time.time())

    async def poll(
        self,
        minutes: int = HOUR_MINUTES,
        commands: Sequence[Sequence[bytes | str | float]] = (),
        first: Sequence[ScriptCall] = (),
    ) -> list[RedisAnswer] | Unavailable:
        """Poll once, after the scripts ``first``; return the answers to ``commands``.

        A failure is noted, and returned.
        """
        began = self.clock()
        looked = await self._poller.poll(minutes, commands, first)
        now = self.clock()
        if isinstance(looked, Unavailable):
            self.fleet.note_failure(looked.reason, now)
            return looked
        seen, answers = looked
        self.last, counts = seen, seen.counts
        totals = QueueTotals(counts.at, counts.popped, counts.sent, counts.delays, counts.deaths, counts.waiting)
        growth = waiting_growth(seen.minutes, counts.at, counts.waiting)
        self.fleet.note_poll(totals, queue_seen(seen, now - began), seen.workers, now, now - began, growth)
        self.fleet.note_past(seen.minutes)
        # Workers report by writing: where Redis refuses that, their silence says nothing.
        if any(not worker.is_lost for worker in seen.workers):
            self.fleet.note_refusal(None)
        elif now - self._tried_at >= TRY_SECONDS:
            refusal, self._tried_at = await find_refusal(self.client, self.queue_name, TO_BE_SEEN), now
            self.fleet.note_refusal(refusal)
        return answers
