"""Trio. Sends a worker's heartbeat, receives its orders, and publishes outcomes while there is a watcher.

None of it is needed to send mail: a call that fails here is left out, and repeated with the next heartbeat.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Never

import trio
from attrs import field

from trio_worker.fleet.orders import Order, read_order_messages
from trio_worker.fleet.vitals import VitalsMeter
from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import drain_names
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.feed import FeedOutcome, FeedTrace, write_outcome, write_trace
from trio_worker.telemetry.heartbeat import BEAT_SECONDS, Heartbeat, Vitals, write_heartbeat
from trio_worker.worker.events import Event, HeartbeatTroubled, Publish, Settled
from trio_worker.worker.loss_watch import QueueSum

# A worker without a heartbeat for this long is taken off the list; until then it is shown as lost.
FORGET_SECONDS = 60.0
# Outcomes travel together, 50 at the most: a person reads no more, and the others are only counted.
PUBLISH_SECONDS = 0.25
OUTCOMES_AT_ONCE = 50
# Of trace lines the first 200 travel: their order must be seen, and of ten thousand a sample is enough.
TRACES_AT_ONCE = 200
# Entries of the feed that are kept; XADD's MAXLEN.
LATEST_KEPT = 1000
# Longer answers are cut: a tree of tasks is a few kilobytes.
ANSWER_CHARS = 64_000

_numbers = itertools.count(1)
_HEARD = HeartbeatTroubled("", is_heard=True)


def new_worker_name() -> str:
    """Return a name that no other worker has: host and process, and a number beyond a process' first worker."""
    number = next(_numbers)
    name = f"{socket.gethostname()}:{os.getpid()}"
    return name if number == 1 else f"{name}.{number}"


@define(eq=False)
class Presence:
    """The heartbeat agent of one worker; `run` it while the worker runs, and `leave` at the end."""

    client: RedisClient
    queue_name: str
    worker_name: str
    make_heartbeat: Callable[[Vitals], Heartbeat]
    carry_out: Callable[[Order], str]  # returns the result
    see: Callable[[QueueSum], object] = lambda _: None  # called with the sums of the queue
    publish: Publish = lambda _: None
    meter: VitalsMeter = field(factory=VitalsMeter)
    vitals: Vitals = field(factory=Vitals)
    is_heard: bool = False  # Redis took the last heartbeat
    _redis_seconds: float | None = None
    _is_watched: bool = False
    _outcomes: deque[FeedOutcome] = field(factory=lambda: deque(maxlen=OUTCOMES_AT_ONCE))
    _traces: list[FeedTrace] = field(factory=list)
    _has_entries: trio.Event = field(factory=trio.Event)
    _beating: trio.Lock = field(factory=trio.Lock)
    _has_left: bool = False
    _told: HeartbeatTroubled = _HEARD  # what was published last

    @property
    def is_watched(self) -> bool:
        """Whether there was a watcher at the last heartbeat."""
        return self._is_watched

    def note(self, event: Event) -> None:
        """Keep an outcome for watchers; costs nothing while there are none."""
        if self._is_watched and isinstance(event, Settled):
            now = time.time()
            self._outcomes += [FeedOutcome(now, job, self.worker_name) for job in event.jobs[-OUTCOMES_AT_ONCE:]]
            self._has_entries.set()

    def note_trace(self, line: TraceLine) -> None:
        """Keep what was said on a connection for those who trace; beyond what travels at once it is left out."""
        if len(self._traces) < TRACES_AT_ONCE:
            self._traces.append(FeedTrace(time.time(), self.worker_name, line))
            self._has_entries.set()

    async def run(self) -> Never:
        """Send heartbeats and outcomes, and carry out orders, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.meter.watch_loop)
            nursery.start_soon(self._publish_feed)
            while True:
                # The sender of an order sees from the next heartbeat that it was carried out: it follows at once.
                if not await self._beat():
                    await trio.sleep(BEAT_SECONDS)
        raise AssertionError("a nursery of endless tasks ended")

    async def leave(self, drain_seconds: float | None = None) -> None:
        """Take the worker off the list, and count its drain; one that is killed goes by itself after a minute."""
        drain = () if drain_seconds is None else (round(drain_seconds * 1000), *drain_names(drain_seconds))
        args = (self.worker_name, "", _FORGET_MS, 1, *drain)
        # A heartbeat that is under way would put it on the list again.
        async with self._beating:
            self._has_left = True
            keys = keys_of(self.queue_name)
            answer = await self.client.run_script("beat", keys, *args)
            if isinstance(answer, Unavailable) and answer.is_denied:
                plain = [("ZREM", keys.workers, self.worker_name), ("HDEL", keys.heartbeats, self.worker_name)]
                await self.client.pipeline(plain)

    async def _beat(self) -> bool:
        """Send a heartbeat and carry out the orders that it brings back; return whether there were any."""
        async with self._beating:
            return False if self._has_left else await self._exchange_with_redis()

    async def _exchange_with_redis(self) -> bool:
        self.vitals = self.meter.read(self._redis_seconds)
        args = (self.worker_name, write_heartbeat(self.make_heartbeat(self.vitals)), _FORGET_MS, 0)
        began = trio.current_time()
        answer = await self.client.run_script("beat", keys_of(self.queue_name), *args)
        if isinstance(answer, Unavailable):
            self._redis_seconds, self._is_watched, self.is_heard = None, False, False
            if answer.is_denied:
                self.is_heard = await self._beat_plainly(args[1])
                self._tell(answer.reason, is_heard=self.is_heard)
            return False
        self.is_heard = True
        self._tell("")
        self._redis_seconds = trio.current_time() - began
        now, orders, watched, ever_popped, generation = answer
        self._is_watched = bool(watched)
        self.see(QueueSum(int(now) / 1000, ever_popped, generation.decode("utf-8", "replace")))
        messages = read_order_messages(orders)
        for message in messages:
            result = self.carry_out(message.order)[:ANSWER_CHARS]
            keys = keys_of(self.queue_name)
            await self.client.run_script("answer", keys, message.answer_id, self.worker_name, result)
        return bool(messages)

    async def _beat_plainly(self, heartbeat: str) -> bool:
        """Write the heartbeat with two plain commands, where the script may not run; return whether Redis took it.

        The worker is seen then, and what Redis refuses it, but it gets no orders.
        """
        keys, time_of_redis = keys_of(self.queue_name), await self.client.command("TIME")
        at_ms = round(time.time() * 1000)
        if not isinstance(time_of_redis, Unavailable):
            at_ms = int(time_of_redis[0]) * 1000 + int(time_of_redis[1]) // 1000
        beat: list[tuple[str | float, ...]] = [
            ("ZADD", keys.workers, at_ms, self.worker_name),
            ("HSET", keys.heartbeats, self.worker_name, heartbeat),
        ]
        return not isinstance(await self.client.pipeline(beat), Unavailable)

    def _tell(self, why: str, *, is_heard: bool = True) -> None:
        trouble = HeartbeatTroubled(why, is_heard)
        if trouble != self._told:
            self._told = trouble
            self.publish(trouble)

    async def _publish_feed(self) -> Never:
        while True:
            await self._has_entries.wait()
            await trio.sleep(PUBLISH_SECONDS)
            self._has_entries = trio.Event()
            entries = [part for line in self._outcomes for part in ("outcome", write_outcome(line))]
            entries += [part for line in self._traces for part in ("exchange", write_trace(line))]
            self._outcomes.clear()
            self._traces.clear()
            await self.client.run_script("tell", keys_of(self.queue_name), LATEST_KEPT, *entries)


_FORGET_MS = round(FORGET_SECONDS * 1000)
