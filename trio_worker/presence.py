"""Trio. A worker among others: it tells how it is, hears what is wanted of it, and tells outcomes while somebody looks.

None of it is needed to send mail: whatever fails here is left out, and tried again with the next heartbeat.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Never

import trio
from attrs import define, field

from trio_worker.broker import fleet_keys
from trio_worker.events import Event, Settled
from trio_worker.heartbeat import BEAT_SECONDS, Heartbeat, Vitals, write_heartbeat
from trio_worker.outcome_line import OutcomeLine, write_outcome
from trio_worker.redis_client import RedisClient, Unavailable
from trio_worker.vitals import VitalsMeter

# A worker that was silent for so long is forgotten; it has been shown as lost until then.
FORGET_SECONDS = 60.0
# Outcomes travel together, and at most so many: a person reads no more, and the rest is only counted.
TELL_SECONDS = 0.25
TOLD_AT_ONCE = 50
# So many outcomes are kept for those who look; XADD's MAXLEN.
OUTCOMES_KEPT = 1000

_numbers = itertools.count(1)


class Order(StrEnum):
    """What one can want of a worker from elsewhere."""

    QUIET = "quiet"
    RESUME = "resume"
    DRAIN = "drain"


def new_worker_name() -> str:
    """Return a name that no other worker has: host and process, and a number beyond a process' first worker."""
    number = next(_numbers)
    name = f"{socket.gethostname()}:{os.getpid()}"
    return name if number == 1 else f"{name}.{number}"


@define(eq=False)
class Presence:
    """What one worker tells and hears; `run` it beside the worker, and `leave` when it stops."""

    client: RedisClient
    queue_name: str
    worker_name: str
    take_beat: Callable[[Vitals], Heartbeat]
    obey: Callable[[Order], object]
    meter: VitalsMeter = field(factory=VitalsMeter)
    vitals: Vitals = field(factory=Vitals)
    _redis_seconds: float | None = None
    _is_watched: bool = False
    _outcomes: deque[OutcomeLine] = field(factory=lambda: deque(maxlen=TOLD_AT_ONCE))
    _has_outcomes: trio.Event = field(factory=trio.Event)

    def note(self, event: Event) -> None:
        """Keep an outcome for those who look; costs nothing while nobody does."""
        if self._is_watched and isinstance(event, Settled):
            self._outcomes.append(OutcomeLine(time.time(), event, self.worker_name))
            self._has_outcomes.set()

    async def run(self) -> Never:
        """Tell and hear for ever; ends only by cancellation."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.meter.watch_loop)
            nursery.start_soon(self._tell_outcomes)
            while True:
                await self._beat()
                await trio.sleep(BEAT_SECONDS)
        raise AssertionError("a nursery of endless tasks ended")

    async def leave(self) -> None:
        """Take the worker off the list; one that is killed goes by itself after a minute."""
        await self.client.run_script("beat", fleet_keys(self.queue_name), self.worker_name, "", _FORGET_MS, 1)

    async def _beat(self) -> None:
        self.vitals = self.meter.read(self._redis_seconds)
        words = (self.worker_name, write_heartbeat(self.take_beat(self.vitals)), _FORGET_MS, 0)
        began = trio.current_time()
        answer = await self.client.run_script("beat", fleet_keys(self.queue_name), *words)
        if isinstance(answer, Unavailable):
            self._redis_seconds, self._is_watched = None, False
            return
        self._redis_seconds = trio.current_time() - began
        _now, order, watched = answer
        self._is_watched = bool(watched)
        if order:
            self.obey(Order(order.decode()))

    async def _tell_outcomes(self) -> Never:
        while True:
            await self._has_outcomes.wait()
            await trio.sleep(TELL_SECONDS)
            self._has_outcomes = trio.Event()
            lines = [write_outcome(line) for line in self._outcomes]
            self._outcomes.clear()
            await self.client.run_script("tell", fleet_keys(self.queue_name), OUTCOMES_KEPT, *lines)


_FORGET_MS = round(FORGET_SECONDS * 1000)


async def give_order(
    client: RedisClient, queue_name: str, order: Order, worker_names: Sequence[str]
) -> frozenset[str] | Unavailable:
    """Tell workers what is wanted of them; return the names of those that are known."""
    answer = await client.run_script("order", fleet_keys(queue_name), str(order), *worker_names)
    return answer if isinstance(answer, Unavailable) else frozenset(name.decode("utf-8", "replace") for name in answer)
