"""Places never leak, connections are reused and retired, and opening is careful: virtual time, fake transports."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pool import MAIL, Opener, send, several
from tests.support.relay import FakeTransport, session_on
from trio_worker.smtp.connection import IDLE_SECONDS, Connection
from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    PlacesRestored,
    PlacesSuspended,
)
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.opener import PROVEN_SECONDS
from trio_worker.smtp.options import PoolOptions, Timeouts
from trio_worker.smtp.outcome import Accepted, Trouble, Uncertain
from trio_worker.smtp.pool import SUSPENDED_SECONDS, Pool, PoolClosed, open_pool
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.smtp.session import Session
from trio_worker.worker.events import Event

REFUSED = Trouble(FailureKind.CONNECT, Stage.CONNECT, "nobody listens")
SMALL = PoolOptions(max_size=2, min_idle=0)


def is_whole(pool: Pool) -> bool:
    """Whether each place has come back to the channel."""
    return (pool.free, pool.borrowed, pool.kept) == (pool.size, 0, 0) and pool.size == pool.options.max_size


async def test_nothing_is_opened_while_trouble_stands() -> None:
    """A mail that asks gets the trouble, and the relay is left in peace."""
    asked: list[Trouble] = []
    standing = Trouble(FailureKind.LOGIN, Stage.AUTH, "535")

    async def opener() -> Session | Trouble:
        asked.append(standing)
        return standing

    options = PoolOptions(max_size=2, min_idle=1)
    async with open_pool(options, Timeouts(), opener, lambda _: None, standing_trouble=lambda: standing) as pool:
        async with pool.borrow() as lane:
            assert lane is standing
        assert is_whole(pool)

    assert asked == []


async def test_mails_share_few_connections(autojump_clock: trio.testing.MockClock) -> None:
    """Ten mails over a pool of two open two connections, the first alone until it is proven."""
    opener, events = Opener(), list[Event]()
    async with open_pool(SMALL, Timeouts(), opener, events.append) as pool:
        outcomes = await several(pool, 10)

        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert (opener.tries, opener.most_at_once) == (2, 1)
        assert repr(pool) == "<Pool of 2 places: 2 free, 0 borrowed, kept: none>"
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


REFUSED_LOGIN = Trouble(FailureKind.LOGIN, Stage.AUTH, "refused", Reply(535, "who are you?", Stage.AUTH, "5.7.8"))


async def test_a_failed_opening_beside_a_working_connection_suspends_places_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It may be the relay's limit on connections: nothing stops, it is seen, and later the pool tries again."""
    opener, events = Opener([None, REFUSED]), list[Event]()
    async with open_pool(SMALL, Timeouts(), opener, events.append) as pool:
        outcomes = await several(pool, 6)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert (opener.tries, len(pool.views())) == (2, 1)
        suspension = pool.suspension
        assert suspension is not None
        assert (suspension.trouble, suspension.places) == (REFUSED, 1)
        assert suspension.until == pytest.approx(2 + SUSPENDED_SECONDS, abs=0.1)
        assert repr(pool) == "<Pool of 2 places: 1 free, 0 borrowed, kept: 1 suspended>"

        await trio.sleep(SUSPENDED_SECONDS + 2)
        assert pool.suspension is None
        await several(pool, 4)

        assert len(pool.views()) == 2
    assert ConnectionFailed(REFUSED, 1) in events
    assert PlacesSuspended(REFUSED, SUSPENDED_SECONDS) in events
    assert PlacesRestored(1) in events


async def test_a_failed_opening_suspends_every_empty_place(autojump_clock: trio.testing.MockClock) -> None:
    """A relay that takes two connections is asked for a third once in a while, not by each mail that waits."""
    opener = Opener([None, None, *[REFUSED] * 100])
    async with open_pool(PoolOptions(max_size=10, min_idle=0), Timeouts(), opener, lambda _: None) as pool:
        await several(pool, 3)
        assert all(isinstance(outcome, Accepted) for outcome in await several(pool, 10))
        suspension = pool.suspension
        assert suspension is not None
        assert (suspension.places, len(pool.views())) == (8, 2)
        assert opener.tries <= 2 + 8  # those that were under way side by side
        before = opener.tries
        await several(pool, 20)

    assert opener.tries == before


async def test_a_refused_login_beside_working_connections_backs_off(autojump_clock: trio.testing.MockClock) -> None:
    """One try in a minute, then in two, then in four: relays lock accounts that fail often."""
    opener, tried_at = Opener([None, *[REFUSED_LOGIN] * 100]), list[float]()

    async def timed() -> Session | Trouble:
        tried_at.append(trio.current_time())
        return await opener()

    options = evolve(SMALL, max_lifetime_seconds=10_000, max_messages=10_000)
    async with open_pool(options, Timeouts(), timed, lambda _: None) as pool, trio.open_nursery() as nursery:

        async def keep_busy() -> None:
            while True:
                assert isinstance(await send(pool), Accepted | Uncertain)  # the latter at the end of the test

        nursery.start_soon(keep_busy)
        nursery.start_soon(keep_busy)
        await trio.sleep(500)
        suspension = pool.suspension
        assert suspension is not None
        assert (suspension.trouble, suspension.places, suspension.failures) == (REFUSED_LOGIN, 1, 4)
        nursery.cancel_scope.cancel()

    gaps = [after - before for before, after in pairwise(tried_at[1:])]
    assert gaps == pytest.approx([60, 120, 240], abs=5)


async def test_a_burst_after_a_rest_tries_a_login_that_may_be_refused_by_now_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """That it was right a while ago is no proof: eight mails that want eight more connections see one refusal."""
    opener = Opener([None, None, *[REFUSED_LOGIN] * 100])
    async with open_pool(PoolOptions(max_size=10, min_idle=2), Timeouts(), opener, lambda _: None) as pool:
        await trio.sleep(PROVEN_SECONDS + 5)
        assert all(isinstance(outcome, Accepted) for outcome in await several(pool, 10))
        suspension = pool.suspension
        assert suspension is not None
        assert (opener.tries, suspension.places) == (3, 8)


async def test_suspended_places_are_tried_at_once_when_what_was_wrong_is_mended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A new secret does not wait for the back-off of the old one."""
    opener = Opener([None, REFUSED_LOGIN])
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool:
        await several(pool, 4)
        assert pool.suspension is not None

        pool.try_suspended()
        assert pool.suspension is None
        await several(pool, 4)

        assert len(pool.views()) == 2


async def test_nothing_stays_suspended_when_the_last_connection_ends(autojump_clock: trio.testing.MockClock) -> None:
    """Then there is nothing to do with fewer of: the next mail tries, and speaks for all."""
    opener = Opener([None, REFUSED])
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool:
        await several(pool, 4)
        opener.transports[0].say(b"421 bye\r\n")

        assert isinstance(await send(pool), Accepted)
        assert pool.suspension is None
        assert is_whole(pool)


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


async def test_a_new_or_idle_connection_asks_for_caution(autojump_clock: trio.testing.MockClock) -> None:
    """Its next mail must wait for the replies to RCPT."""
    opener = Opener()
    async with open_pool(SMALL, Timeouts(), opener, lambda _: None) as pool, pool.borrow() as lane:
        assert isinstance(lane, Connection)
        assert lane.was_idle
        await lane.deliver(MAIL)
        assert not lane.was_idle
        await trio.sleep(IDLE_SECONDS + 1)

        assert lane.was_idle


async def test_a_closed_pool_turns_everybody_away_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits for a place or for an opening is let go; who has a connection keeps it."""
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
            pool.close()

        assert [type(each) for each in found] == [PoolClosed, PoolClosed, Accepted]
        assert isinstance(await send(pool), PoolClosed)
        assert (pool.free, pool.borrowed, pool.kept) == (0, 0, 1)


async def test_a_closed_pool_ends_openings_that_somebody_waits_for(autojump_clock: trio.testing.MockClock) -> None:
    """The drain does not wait for a relay that takes its time to greet."""
    async with open_pool(SMALL, Timeouts(), Opener(), lambda _: None) as pool:
        found: list[object] = []

        async def one() -> None:
            found.append(await send(pool))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.connecting == 1
            began = trio.current_time()
            pool.close()

        assert ([type(each) for each in found], trio.current_time() - began) == ([PoolClosed], 0)
        assert (pool.free, pool.borrowed, pool.kept) == (0, 0, 2)


async def test_a_place_that_was_on_its_way_when_the_pool_was_closed_opens_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A vacancy that comes back in the moment of the signal must not have the drain wait for the relay."""
    opener = Opener()
    async with open_pool(PoolOptions(max_size=1, min_idle=0), Timeouts(), opener, lambda _: None) as pool:
        found: list[object] = []

        async def one() -> None:
            found.append(await send(pool))

        async with trio.open_nursery() as nursery:
            async with pool.borrow() as connection:
                assert isinstance(connection, Connection)
                nursery.start_soon(one)
                await trio.testing.wait_all_tasks_blocked()
                connection.abort()
            pool.close()

        assert [type(each) for each in found] == [PoolClosed]
        assert opener.tries == 1
        assert (pool.free, pool.borrowed, pool.kept) == (0, 0, 1)


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
    """Borrow and deliver with a cancel at one step; check the pool after it; return whether the step was reached."""
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

        assert is_whole(pool)
        assert all(view.state == "idle" for view in pool.views())
        outcomes = await several(pool, 4)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert is_whole(pool)
    return canceller.steps >= canceller.at_step


@pytest.mark.case("B6")
@pytest.mark.parametrize("warmed", [0, 1, 2])
def test_a_cancel_at_any_step_of_the_borrower_leaks_no_place(warmed: int) -> None:
    """Every step in turn, on a cold pool and on warm ones: places free, connections clean, mail still flows."""

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


@define
class Flaky:
    """Opens sessions of a moment, or fails, by the dice; each session lives for a few mails."""

    dice: random.Random
    transports: list[FakeTransport] = field(factory=list)

    async def __call__(self) -> Session | Trouble:
        await trio.sleep(self.dice.random())
        if self.dice.random() < 0.2:
            return REFUSED
        self.transports.append(FakeTransport(delay_seconds=self.dice.random()))
        return session_on(self.transports[-1])


async def _use_at_random(seed: int) -> None:
    """Borrow, cancel, let connections die, resize and restore, and count places after each step."""
    dice = random.Random(seed)
    opener = Flaky(dice)
    options = PoolOptions(max_size=4, min_idle=1, idle_seconds=3, max_lifetime_seconds=20, max_messages=7)

    async def borrower() -> None:
        while True:
            with trio.move_on_after(4 * dice.random()):
                async with pool.borrow() as borrowed:
                    if isinstance(borrowed, Connection):
                        await borrowed.deliver(MAIL)
            await trio.sleep(dice.random())

    async with open_pool(options, Timeouts(), opener, lambda _: None) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(borrower)
            for _ in range(60):
                await trio.sleep(dice.random())
                match dice.randrange(6):
                    case 0:
                        pool.resize(evolve(options, max_size=dice.randint(1, 9)))
                    case 1:
                        pool.try_suspended()
                    case 2 if opener.transports:
                        transport = dice.choice(opener.transports)
                        if not transport.is_aborted:
                            transport.say(b"421 4.4.2 bye\r\n")
                    case _:
                        pass
                await trio.testing.wait_all_tasks_blocked()  # what is on its way to a waiter has arrived
                assert pool.free + pool.borrowed + pool.kept == pool.size, repr(pool)
                assert len(pool.views()) + pool.connecting <= max(pool.size, 9), repr(pool)
            nursery.cancel_scope.cancel()
        await trio.sleep(120)
        # The connection that min_idle keeps is replaced every 20 s, at this moment perhaps.
        with trio.move_on_after(30):
            while pool.kept:  # noqa: ASYNC110  virtual time, and there is no event for it
                await trio.sleep(0.1)
        assert pool.free + pool.kept == pool.size == pool.options.max_size
        assert (pool.borrowed, pool.kept, pool.suspension) == (0, 0, None), repr(pool)
    assert all(transport.is_aborted for transport in opener.transports)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_place_has_one_owner_whatever_happens(seed: int) -> None:
    """Random borrowers that are cancelled, connections that die, sizes that change: no place is lost or doubled."""
    trio.run(_use_at_random, seed, clock=trio.testing.MockClock(autojump_threshold=0))
