"""Trio. Whether this worker may claim: the circuit breaker of its relay, the operator's quiet, and Redis' health."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import assert_never

import trio
from attrs import define, evolve, field

from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.outcome import Accepted, Outcome, Refused, Trouble, Unopened
from trio_worker.worker.breaker import (
    Breaker,
    Closed,
    HalfOpen,
    Open,
    after_idle_probe,
    after_trouble,
    after_wait,
)
from trio_worker.worker.events import BreakerChanged, Publish, RedisFailed, RedisRecovered
from trio_worker.worker.verdict import relay_trouble


@define(eq=False)
class Gate:
    """Lets claims through while the breaker is closed, one job at a time while half open, none while open."""

    publish: Publish
    dice: Callable[[], float] = field(default=random.random)
    breaker: Breaker = field(factory=Closed)
    is_quiet: bool = False  # an operator has stopped this worker from claiming
    _since: float | None = None  # the first trouble after the last mail that went through
    _changed: trio.Event = field(factory=trio.Event)

    @property
    def is_probing(self) -> bool:
        return isinstance(self.breaker, HalfOpen)

    def standing_trouble(self) -> Trouble | None:
        """Return the trouble of an open breaker; None while mails, or one as a probe, may go."""
        return self.breaker.trouble if isinstance(self.breaker, Open) else None

    @property
    def trouble(self) -> Trouble | None:
        """What the relay's trouble is; None while it works."""
        match self.breaker:
            case Closed():
                return None
            case Open(trouble=trouble) | HalfOpen(Open(trouble=trouble)):
                return trouble
            case _:
                assert_never(self.breaker)

    @property
    def troubled_seconds(self) -> float:
        """How long the relay has been in trouble; 0 while it works."""
        return 0.0 if self._since is None else trio.current_time() - self._since

    def note(self, outcome: Outcome) -> None:
        """Learn from the outcome of one mail; an outcome that says nothing of the relay changes nothing."""
        if isinstance(outcome, Accepted) and isinstance(self.breaker, Closed):
            return
        trouble = relay_trouble(outcome)
        if trouble is not None:
            self._change(after_trouble(self.breaker, trouble, trio.current_time(), self.dice()))
        elif isinstance(outcome, Accepted | Refused):
            self._change(Closed())

    def note_opening(self, trouble: Trouble) -> None:
        """Learn from a connection that could not be opened ahead of any mail; it may have been a due probe."""
        self._change(after_wait(self.breaker, trio.current_time()))
        self.note(Unopened(trouble))

    def probe_now(self) -> None:
        """Let a probe go at once: the cause of the trouble may just have been fixed."""
        if isinstance(self.breaker, Open):
            self._change(evolve(self.breaker, probe_at=trio.current_time()))

    def end_probe(self) -> None:
        """Note that the probe's job is settled; if that said nothing of the relay, another probe may go at once."""
        self._change(after_idle_probe(self.breaker, trio.current_time()))

    def set_quiet(self, *, is_quiet: bool) -> None:
        """Let no more claims through, or let them through again."""
        self.is_quiet = is_quiet
        self._announce()

    async def wait(self) -> None:
        """Wait until a claim may be made; if the breaker was open it is half open then."""
        while self.is_quiet or isinstance(self.breaker, Open):
            probe_at = math.inf if self.is_quiet or not isinstance(self.breaker, Open) else self.breaker.probe_at
            with trio.move_on_at(probe_at):
                await self._changed.wait()
            if not self.is_quiet:
                self._change(after_wait(self.breaker, trio.current_time()))

    def _change(self, breaker: Breaker) -> None:
        if breaker == self.breaker:
            return
        self.breaker = breaker
        if isinstance(breaker, Closed):
            self._since = None
        elif self._since is None:
            self._since = trio.current_time()
        self._announce()
        self.publish(BreakerChanged(breaker))

    def _announce(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@define(eq=False)
class RedisHealth:
    """Whether Redis answers; publishes an event for each change and each new error."""

    publish: Publish
    _failing_since: float | None = None
    _last: str = ""

    @property
    def failing_seconds(self) -> float:
        """How long Redis has not answered; 0 while it does."""
        return 0.0 if self._failing_since is None else trio.current_time() - self._failing_since

    def failed(self, doing: str, unavailable: Unavailable) -> None:
        if self._failing_since is None:
            self._failing_since = trio.current_time()
        if unavailable.reason != self._last:
            self._last = unavailable.reason
            self.publish(RedisFailed(doing, unavailable.reason))

    def answered(self) -> None:
        if self._failing_since is not None:
            self.publish(RedisRecovered(self.failing_seconds))
        self._failing_since, self._last = None, ""
