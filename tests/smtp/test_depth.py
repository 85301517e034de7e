"""Several messages in flight on one connection: each goes once, a loss is bounded, and a round trip carries many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.support.catcher import times_sent
from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.relay import CHUNKED, FakeTransport, accept_all, session_on
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.capture.store import MemoryStore
from trio_worker.fleet.report import Reporter
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claim
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.smtp.connection import SPARED_RESETS, Connection
from trio_worker.smtp.conversation import EXTRA_RESETS_LIMIT
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.options import PoolOptions, Timeouts
from trio_worker.smtp.outcome import Accepted
from trio_worker.smtp.pool import open_pool
from trio_worker.smtp.transaction import Transaction
from trio_worker.worker.options import ShutdownOptions
from trio_worker.worker.phase import Disposition

MAIL = Envelope("us@example.com", ("a@example.org",), b"Subject: x\r\n\r\nhello\r\n")
JOBS = 300
MODES = [(), ("CHUNKING",), ("PIPELINING",), ("CHUNKING", "PIPELINING")]


def deep_worker(workers: WorkerMaker, relay: Catcher, ignored: tuple[str, ...] = (), **changes: Any) -> Reporter:
    """A worker with three connections and 16 messages on each."""
    options = workers.options(relay.port, number_workers=6, pool=PoolOptions(max_size=3, pipeline_depth=16))
    own = evolve(options.relay, options=evolve(options.relay.options, ignore_ehlo=ignored))
    return workers.make(evolve(options, relay=own, **changes))


@pytest.mark.parametrize("ignored", MODES)
@pytest.mark.parametrize("text", [
    "",
    "rcpt=550:every7",
    "mail=451:every5",
    "final=451:every6",
    "data=450:every9",
    "mail=421:after20",
    "rcpt=550:20% mail=452:10% final=451:10% every=delay-1ms",
])  # fmt: skip
async def test_every_mail_goes_once_whatever_is_refused_beside_it(
    workers: WorkerMaker, ignored: tuple[str, ...], text: str
) -> None:
    """No refusal is taken for a neighbour's, no sender is left standing, and the strict relay has nothing to say."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_catcher(store=MemoryStore(max_mails=2 * JOBS), faults=faults(text), seed=3) as relay:
        reporter = deep_worker(workers, relay, ignored)
        with trio.fail_after(60):
            assert await reporter.run() == 0

        assert relay.violations == ()
        sent = times_sent(relay)
        dead = reporter.board.ledger.settled[Disposition.DEAD]
        assert set(sent.values()) == {1}
        # A burst ends when nothing is due; what was refused once more waits for its time.
        left = await count_jobs(workers.client, "jobs")
        assert isinstance(left, Counts)
        assert len(sent) + dead + left.delayed == JOBS
        assert (dead > 0) == ("rcpt=550" in text)
        assert reporter.board.ledger.uncertain == 0


async def test_mails_of_held_types_are_confirmed_by_the_window_and_none_is_given_back(
    workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call for all that may go at once, for any number of ready mails."""
    calls: list[int] = []
    confirm = Broker.confirm

    async def counted(broker: Broker, claims: Sequence[Claim], **more: Any) -> Any:
        calls.append(len(claims))
        return await confirm(broker, claims, **more)

    monkeypatch.setattr(Broker, "confirm", counted)
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_catcher(store=MemoryStore(max_mails=2 * JOBS)) as relay:
        options = workers.options(relay.port, number_workers=8, pool=PoolOptions(max_size=4, pipeline_depth=16))
        reporter = workers.make(evolve(options, mail=evolve(options.mail, on_uncertain="hold")))
        with trio.fail_after(60):
            assert await reporter.run() == 0

        assert set(times_sent(relay).values()) == {1}
    settled = reporter.board.ledger.settled
    assert (settled[Disposition.SENT], settled[Disposition.RELEASED]) == (JOBS, 0)
    assert sum(calls) == JOBS
    assert len(calls) < JOBS / 2


async def test_what_still_waits_when_the_grace_is_over_is_given_back(
    workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What consumers have, what waits for a connection and what waits in the channel alike: the ledger balances."""

    async def never(*_: object, **__: object) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(Broker, "confirm", never)
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_catcher(store=MemoryStore(max_mails=JOBS)) as relay:
        options = workers.options(
            relay.port,
            number_workers=4,
            pool=PoolOptions(max_size=2, pipeline_depth=8),
            shutdown=ShutdownOptions(grace_seconds=0.2),
        )
        options = evolve(options, mail=evolve(options.mail, on_uncertain="hold"))
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            await workers.wait_until(lambda: len(reporter.worker.in_flight) == 4 * 8)
            await trio.testing.wait_all_tasks_blocked(0.05)
            reporter.worker.drain("SIGTERM")

        assert relay.mails == ()
    ledger = reporter.board.ledger
    assert ledger.settled == {Disposition.RELEASED: ledger.claimed}
    assert ledger.claimed >= 4 * 8


async def test_one_lost_connection_leaves_few_mails_uncertain(workers: WorkerMaker) -> None:
    """At most smtp.pool.max_uncertain on each."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_catcher(faults=faults("final=stall:after40")) as relay:
        options = workers.options(relay.port, number_workers=4)
        pool = PoolOptions(max_size=2, pipeline_depth=32, max_uncertain=5)
        reporter = workers.make(evolve(options, pool=pool, shutdown=ShutdownOptions(grace_seconds=0.2)), is_burst=False)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reporter.run)
                await relay.wait_for_mails(80)
                await trio.testing.wait_all_tasks_blocked(0.2)
                reporter.worker.drain("the test")
        assert reporter.board.ledger.balances
        assert 2 <= reporter.board.ledger.uncertain <= 10


@pytest.mark.parametrize(("replies", "windows"), [
    (["250"] * 5 + ["451"], [2, 3, 4, 5, 6, 1]),
    (["250"] * 5 + ["550", "250", "550", "250"], [2, 3, 4, 5, 6, 3, 4, 2, 3]),
    (["250"] * 15 + ["550", "550", "550", "250", "550"], [*range(2, 17), 8, 4, 1, 2, 1]),
])  # fmt: skip
async def test_the_window_grows_with_each_accepted_mail_and_falls_with_refusals(
    autojump_clock: trio.testing.MockClock, replies: list[str], windows: list[int]
) -> None:
    """One after a refusal for now; half after one for good, which is the mail's fault; one after three in a row.

    A relay that closes because of many refusals then loses few mails.
    """
    answers = iter(replies)

    def answer(wire: bytes) -> bytes:
        count = accept_all(wire).count(b"250")
        return b"250 ok\r\n" * (count - 1) + (f"{next(answers)} x\r\n".encode() if b"BDAT" in wire else b"250 ok\r\n")

    connection = Connection(1, session_on(FakeTransport(answer=answer)), Timeouts())
    seen = []
    for _ in replies:
        await connection.deliver(MAIL)
        seen.append(connection.window)

    assert seen == windows


async def test_many_refused_recipients_leave_no_more_in_flight_than_the_relay_may_refuse(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each of them costs an RSET, and Exim ends a session at the eleventh, with what is in flight on it."""
    connection = Connection(1, session_on(FakeTransport()), Timeouts())
    connection.window = 64

    rooms = []
    for count in range(EXTRA_RESETS_LIMIT + 1):
        connection.conversation.extra_resets = count
        rooms.append(connection.room(64, 0))
    assert rooms == [64] * SPARED_RESETS + list(range(EXTRA_RESETS_LIMIT - SPARED_RESETS, -1, -1))


async def until_done(connection: Connection, sent: dict[Transaction, int], done: list[Transaction]) -> None:
    """Wait for some outcomes."""
    for transaction in await connection.outcomes():
        del sent[transaction]
        done.append(transaction)


async def test_a_round_trip_carries_as_many_mails_as_the_window_is_wide(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A hundred mails over one connection and a round trip of a second take as long as the window needs to grow."""
    connection = Connection(1, session_on(FakeTransport(delay_seconds=1.0), CHUNKED), Timeouts())
    began, sent, done = trio.current_time(), dict[Transaction, int](), list[Transaction]()
    while len(done) < 100:
        for number in range(min(connection.room(100, connection.in_flight), 100 - len(done) - len(sent))):
            sent[connection.begin(MAIL, trio.current_time())] = number
        connection.flush(trio.current_time())
        await until_done(connection, sent, done)

    assert {type(transaction.outcome) for transaction in done} == {Accepted}
    # 1 + 2 + 4 + 8 ... doubles in each round trip: seven of them hold a hundred.
    assert trio.current_time() - began <= 8
    connection.abort()


async def test_who_waits_for_a_place_comes_in_turn_and_a_cancel_passes_it_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """No task waits while a connection is idle."""
    transport = FakeTransport(delay_seconds=1.0)

    async def opener() -> Any:
        return session_on(transport)

    order: list[int] = []
    scopes = [trio.CancelScope() for _ in range(6)]
    async with open_pool(PoolOptions(max_size=1, pipeline_depth=8), Timeouts(), opener, lambda _: None) as pool:

        async def send(number: int) -> None:
            with scopes[number]:
                async with pool.borrow() as connection:
                    assert isinstance(connection, Connection)
                    order.append(number)
                    await connection.deliver(MAIL)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(send, number)
                    await trio.testing.wait_all_tasks_blocked()
                scopes[1].cancel()
                scopes[2].cancel()
        assert (pool.free, pool.borrowed) == (1, 0)
    assert order == [0, 3, 4, 5]
