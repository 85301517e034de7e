"""Trio. The wait of a worker with nothing to do: blocking in Redis, or polling where Redis does not let it block."""

from __future__ import annotations

import math

import trio

from trio_worker.queue.broker import Broker
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.worker.events import Publish, WaitTroubled

# A server that answers a blocking wait at once (a fake) must not make the claiming task spin.
MIN_WAIT_SECONDS = 0.05
# The interval of polling: a new job is noticed this late, and an idle worker makes one call in it.
LOOK_SECONDS = 1.0
# A wait that fails is tried again after this, doubling up to the second figure.
WAIT_AGAIN_SECONDS = 5.0
WAIT_AGAIN_CAP_SECONDS = 60.0
# A connection that was closed after it had waited this long was probably closed because it was idle, by a proxy.
CLOSED_IDLE_SECONDS = 1.0


@define(eq=False)
class JobWait:
    """Waits until the list may have a job; never says that Redis is away, which the next claim finds out.

    One failure says nothing: a Redis that restarts closes the wait too. The second in a row is published once, and from
    then on the worker polls, or waits for a shorter time where the connection was closed while it was idle.
    """

    broker: Broker
    publish: Publish
    _failures: int = 0  # in a row
    _again_seconds: float = WAIT_AGAIN_SECONDS
    _polls_until: float = -math.inf
    _longest_seconds: float = math.inf
    _told: str = ""  # the trouble that was published

    async def wait(self, seconds: float) -> None:
        """Wait until there is a job, at most ``seconds``; a cancel closes only the connection that waits."""
        if trio.current_time() < self._polls_until:
            await trio.sleep(min(seconds, LOOK_SECONDS))
            return
        began = trio.current_time()
        wanted_seconds = min(seconds, self._longest_seconds)
        found = await self.broker.wait(wanted_seconds)
        waited_seconds = trio.current_time() - began
        if isinstance(found, Unavailable):
            self._note_failure(found, waited_seconds)
            await trio.sleep(MIN_WAIT_SECONDS)
            return
        self._note_success()
        if not found:
            await trio.sleep(max(0.0, min(wanted_seconds - waited_seconds, MIN_WAIT_SECONDS)))

    def _note_success(self) -> None:
        if self._told and self._polls_until > -math.inf:
            self.publish(WaitTroubled(""))
            self._told = ""
        self._failures, self._again_seconds, self._polls_until = 0, WAIT_AGAIN_SECONDS, -math.inf

    def _note_failure(self, unavailable: Unavailable, waited_seconds: float) -> None:
        self._failures += 1
        if self._failures == 1:
            return
        if waited_seconds >= CLOSED_IDLE_SECONDS and not unavailable.is_refusal:
            self._longest_seconds = waited_seconds / 2
            why = f"a connection was closed after it had waited {waited_seconds:.1f} s: by a proxy before Redis?"
            self._tell(WaitTroubled(why, polls=False))
            return
        self._polls_until = trio.current_time() + self._again_seconds
        self._again_seconds = min(2 * self._again_seconds, WAIT_AGAIN_CAP_SECONDS)
        self._tell(WaitTroubled(unavailable.reason))

    def _tell(self, trouble: WaitTroubled) -> None:
        if not self._told:
            self._told = trouble.why
            self.publish(trouble)
