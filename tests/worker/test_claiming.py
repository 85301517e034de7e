"""Claiming: how many jobs it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
import trio.testing
from attrs import define, field

from trio_worker.queue.claim import Claim, Claims, Source
from trio_worker.queue.history import PushHistory
from trio_worker.queue.record import Record
from trio_worker.worker.claiming import Claiming
from trio_worker.worker.events import Event
from trio_worker.worker.gate import Gate, RedisHealth
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.loss_watch import LossWatch


def claim_of(number: int) -> Claim:
    return Claim(f"job{number}", b"", Record(1.0), "run.1", Source.FRESH, 1, claimed_at=0.0, began=0.0)


@define
class Queue:
    """A queue with nothing in it, which keeps how many jobs were asked for."""

    limits: list[int] = field(factory=list)

    async def claim(self, limit: int, **_: bool) -> Claims:
        self.limits.append(limit)
        return Claims((), 1.0, None, 0, 0)

    async def wait(self, seconds: float) -> bool:
        await trio.sleep(seconds)
        return False


@define
class Behind:
    """A settler that has to catch up first, for a while."""

    seconds: float

    def take_along(self) -> list[object]:
        return []

    async def wait_until_caught_up(self) -> None:
        await trio.sleep(self.seconds)


def publish(*_events: Event | Sequence[Event]) -> None:
    pass


async def test_a_limit_lowered_under_the_jobs_in_hand_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """Also where there was room when the wait for something else began."""
    in_flight, queue, claims = InFlight(5), Queue(), [claim_of(number) for number in range(3)]
    foreign: Any = queue
    settler: Any = Behind(seconds=10)
    claiming = Claiming(
        broker=foreign,
        in_flight=in_flight,
        gate=Gate(publish),
        redis_health=RedisHealth(publish),
        settler=settler,
        losses=LossWatch(foreign, "jobs", publish),
        history=PushHistory(),
        publish=publish,
        give=lambda _claims, _waiting: None,
        is_burst=False,
        patience_seconds=1.0,
        relay_capacity=lambda: 1,
    )
    in_flight.take(claims, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(claiming.run)
        await trio.sleep(5)
        in_flight.set_limit(2)
        await trio.sleep(10)
        assert queue.limits == []
        in_flight.finish(3)
        in_flight.drop(claims, comes_back=False)
        await trio.sleep(15)
        nursery.cancel_scope.cancel()
    assert set(queue.limits) == {2}
