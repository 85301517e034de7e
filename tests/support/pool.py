"""Mails over a pool whose sessions are fake."""

from __future__ import annotations

import trio
import trio.testing
from attrs import define, field

from tests.support.relay import FakeTransport, session_on
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.outcome import Outcome, Trouble
from trio_worker.smtp.pool import Pool, PoolClosed
from trio_worker.smtp.session import Session

MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")


@define
class Opener:
    """Opens fake sessions, one second each, or fails as scripted."""

    troubles: list[Trouble | None] = field(factory=list)
    transports: list[FakeTransport] = field(factory=list)
    opening: int = 0
    most_at_once: int = 0
    tries: int = 0

    async def __call__(self) -> Session | Trouble:
        self.tries += 1
        self.opening += 1
        self.most_at_once = max(self.most_at_once, self.opening)
        try:
            await trio.sleep(1)
        finally:
            self.opening -= 1
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble is not None:
            return trouble
        self.transports.append(FakeTransport())
        return session_on(self.transports[-1])


async def send(pool: Pool) -> Outcome | Trouble | PoolClosed:
    async with pool.borrow() as lane:
        if not isinstance(lane, Connection):
            return lane
        return await lane.deliver(MAIL)


async def several(pool: Pool, count: int) -> list[Outcome | Trouble | PoolClosed]:
    found: list[Outcome | Trouble | PoolClosed] = []

    async def one() -> None:
        found.append(await send(pool))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return found
