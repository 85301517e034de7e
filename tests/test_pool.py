"""Slots never leak, connections are reused and retired, and opening is careful: virtual time, fake transports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from fake_relay import FakeTransport, opened_on

from trio_worker.connection import Connection
from trio_worker.events import ConnectionClosed, ConnectionFailed, ConnectionOpened, Event
from trio_worker.opening import Opened, Timeouts
from trio_worker.outcome import Accepted, How, Outcome, Trouble
from trio_worker.pool import RESTED_SECONDS, Pool, PoolOptions, Shut, open_pool
from trio_worker.reply import Stage
from trio_worker.slots import SHRUNK_SECONDS
from trio_worker.smtp import Envelope

MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")
REFUSED = Trouble(How.CONNECT, Stage.CONNECT, "nobody listens")
SMALL = PoolOptions(max_size=2, min_idle=0)


@define
class Opener:
    """Opens fake sessions, one second each, or fails as told."""

    troubles: list[Trouble | None] = field(factory=list)
    transports: list[FakeTransport] = field(factory=list)
    opening: int = 0
    most_at_once: int = 0
    tries: int = 0

    async def __call__(self) -> Opened | Trouble:
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
        return opened_on(self.transports[-1])


async def send(pool: Pool) -> Outcome | Trouble | Shut:
    async with pool.borrow() as lane:
        if not isinstance(lane, Connection):
            return lane
        return (await lane.deliver(MAIL)).outcome


async def several(pool: Pool, count: int) -> list[Outcome | Trouble | Shut]:
    found: list[Outcome | Trouble | Shut] = []

    async def one() -> None:
        found.append(await send(pool))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return found


async def test_nothing_is_opened_while_trouble_stands() -> None:
    """A mail that asks gets the trouble, and the relay is left in peace."""
    asked: list[Trouble] = []
    standing = Trouble(How.LOGIN, Stage.AUTH, "535")

    async def opener() -> Opened | Trouble:
        asked.append(standing)
        return standing

    options = PoolOptions(max_size=2, min_idle=1)
    async with open_pool(options, Timeouts(), opener, lambda _: None, standing_trouble=lambda: standing) as pool:
        async with pool.borrow() as lane:
            assert lane is standing
        assert pool.slots_home == pool.capacity

    assert asked == []


async def test_mails_share_few_connections(autojump_clock: trio.testing.MockClock) -> None:
    """Ten mails over a pool of two open two connections, the first alone until it is proven."""
    opener, events = Opener(), list[Event]()
    async with open_pool(SMALL, Timeouts(), opener, events.append) as pool:
        outcomes = await several(pool, 10)

        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert (opener.tries, opener.most_at_once) == (2, 1)
        assert repr(pool) == "<Pool: 2 connections, 0 busy, 0 opening; 2 of 2 slots home>"
    assert all(transport.written[-1] == b"QUIT\r\n" and transport.is_aborted for transport in opener.transports)
    assert sum(isinstance(event, ConnectionOpened) for event in events) == 2
    assert sum(isinstance(event, ConnectionClosed) for event in events) == 2


async def test_the_most_recently_used_connection_is_chosen(autojump_clock: trio.testing.MockClock) -> None:
    """So that the others may rest and be closed, instead of all going stale in turn."""
    opener = Opener()
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool:
        await several(pool, 2)
        for _ in range(5):
            await send(pool)

        assert sorted(view.delivered for view in pool.views()) == [1, 6]


async def test_one_failed_opening_speaks_for_all_who_waited(autojump_clock: trio.testing.MockClock) -> None:
    """A relay that refuses us sees one attempt, not ten."""
    opener, events = Opener([REFUSED]), list[Event]()
    async with open_pool(PoolOptions(max_size=10, min_idle=0), Timeouts(), opener, events.append) as pool:
        outcomes = await several(pool, 10)

        assert outcomes == [REFUSED] * 10
        assert opener.tries == 1
        assert isinstance(await send(pool), Accepted)
    assert [event for event in events if isinstance(event, ConnectionFailed)] == [ConnectionFailed(REFUSED, None)]


async def test_a_failed_opening_beside_a_working_connection_shrinks_the_pool_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It may be the relay's limit on connections: nothing stops, and later the pool tries again."""
    opener, events = Opener([None, REFUSED]), list[Event]()
    async with open_pool(SMALL, Timeouts(), opener, events.append) as pool:
        outcomes = await several(pool, 6)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert (opener.tries, len(pool.views())) == (2, 1)

        await trio.sleep(SHRUNK_SECONDS + 2)
        await several(pool, 4)

        assert len(pool.views()) == 2
    assert ConnectionFailed(REFUSED, 1) in events


async def test_idle_connections_are_kept_opened_and_closed(autojump_clock: trio.testing.MockClock) -> None:
    """min_idle are opened ahead; those beyond it are closed after their rest, politely."""
    opener, events = Opener(), list[Event]()
    options = PoolOptions(max_size=5, min_idle=2, idle_seconds=60)
    async with open_pool(options, Timeouts(), opener, events.append) as pool:
        await trio.sleep(5)
        assert len(pool.views()) == 2
        await several(pool, 5)
        assert len(pool.views()) == 5

        await trio.sleep(70)

        assert len(pool.views()) == 2
    assert [event.why for event in events if isinstance(event, ConnectionClosed)] == ["idle"] * 3 + ["drained"] * 2


@pytest.mark.parametrize(
    ("change", "why"), [({"max_messages": 3}, "max_messages"), ({"max_lifetime_seconds": 4}, "max_lifetime")]
)
async def test_a_connection_is_retired_by_its_limits(
    autojump_clock: trio.testing.MockClock, change: dict[str, int], why: str
) -> None:
    """By messages and by age, with a QUIT; the mail after it goes over a new one."""
    opener, events = Opener(), list[Event]()
    async with open_pool(
        evolve(PoolOptions(max_size=1, min_idle=0), **change), Timeouts(), opener, events.append
    ) as pool:
        for _ in range(7):
            assert isinstance(await send(pool), Accepted)

    assert why in [event.why for event in events if isinstance(event, ConnectionClosed)]
    assert opener.tries > 1
    assert b"QUIT\r\n" in opener.transports[0].written


@pytest.mark.case("C15")
async def test_a_connection_that_the_relay_closed_while_idle_is_not_used(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The queued 421 or the end is seen at checkout, without a round trip."""
    opener = Opener()
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool:
        await send(pool)
        opener.transports[0].say(b"421 4.4.2 idle too long\r\n")

        assert isinstance(await send(pool), Accepted)
        assert opener.tries == 2


async def test_a_new_or_rested_connection_asks_for_caution(autojump_clock: trio.testing.MockClock) -> None:
    """Its next mail must wait for the replies to RCPT."""
    opener = Opener()
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool, pool.borrow() as lane:
        assert isinstance(lane, Connection)
        assert pool.is_rested(lane, trio.current_time())
        await lane.deliver(MAIL)
        assert not pool.is_rested(lane, trio.current_time())
        await trio.sleep(RESTED_SECONDS + 1)

        assert pool.is_rested(lane, trio.current_time())


async def test_a_shut_pool_turns_everybody_away_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits for a slot or for an opening is let go; who has a connection keeps it."""
    opener = Opener()
    async with open_pool(PoolOptions(max_size=1, min_idle=0), Timeouts(), opener, lambda _: None) as pool:
        await send(pool)
        found: list[object] = []

        async def one() -> None:
            found.append(await send(pool))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            pool.shut()

        assert [type(each) for each in found] == [Shut, Shut, Accepted]
        assert isinstance(await send(pool), Shut)
        assert pool.slots_home == 1


async def test_an_aborted_pool_leaves_no_mail_waiting(autojump_clock: trio.testing.MockClock) -> None:
    """What waited for its final reply is uncertain at once."""
    opener = Opener()
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool:
        await send(pool)
        found: list[object] = []

        async def one() -> None:
            found.append(await send(pool))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            pool.abort()

        assert [type(each).__name__ for each in found] == ["Uncertain"]


@define(eq=False)
class _CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the task that runs in it is about to take its n-th step."""

    at_step: int
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    task: trio.lowlevel.Task | None = None
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps += 1
            if self.steps == self.at_step:
                self.scope.cancel()


async def _borrow_cancelled(canceller: _CancelAtStep, prepare: Callable[[Pool], Awaitable[object]]) -> bool:
    """Borrow and deliver with a cancel at one step; check the pool after it; tell whether the step was reached."""
    opener = Opener()
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool:
        await prepare(pool)

        async def borrower() -> None:
            canceller.task = trio.lowlevel.current_task()
            with canceller.scope:
                await send(pool)
            canceller.task = None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, pool)
            nursery.start_soon(borrower)

        assert pool.slots_home == pool.capacity
        assert all(view.state == "idle" for view in pool.views())
        outcomes = await several(pool, 4)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert pool.slots_home == pool.capacity
    return canceller.steps >= canceller.at_step


@pytest.mark.case("B6")
@pytest.mark.parametrize("warmed", [0, 1, 2])
def test_a_cancel_at_any_step_of_the_borrower_leaks_no_slot(warmed: int) -> None:
    """Every step in turn, on a cold pool and on warm ones: all slots home, every connection clean, mail still flows."""

    async def prepare(pool: Pool) -> None:
        if warmed:
            await several(pool, warmed)

    for step in range(1, 1000):
        canceller = _CancelAtStep(step)
        clock = trio.testing.MockClock(autojump_threshold=0)
        if not trio.run(_borrow_cancelled, canceller, prepare, clock=clock, instruments=[canceller]):
            assert step > (1 if warmed else 2)
            return
    raise AssertionError("the borrower never ended by itself")
