"""Consumers: how jobs are dealt, who sends what, how their number changes, and what a cancel leaves behind."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import job_bytes
from tests.support.relay import FakeTransport, session_on
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer
from trio_worker.mail.options import MailOptions
from trio_worker.queue.claim import Claim, Source
from trio_worker.queue.history import PushHistory
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Record
from trio_worker.queue.settlement import DONE, Release
from trio_worker.smtp.connection import IDLE_SECONDS, Connection
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.options import PoolOptions, Timeouts
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.pool import Pool, open_pool
from trio_worker.smtp.session import Session
from trio_worker.worker.consumer import Consumers
from trio_worker.worker.delivery import Delivery
from trio_worker.worker.gate import Gate
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.preparation import Preparation

MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")


def claims_of(count: int, first: int = 0) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"job{number}",
            job_bytes(number),
            Record(1.0),
            "run.1",
            Source.FRESH,
            1,
            claimed_at=1.0,
            began=trio.current_time(),
        )
        for number in range(first, first + count)
    )


@define
class SlowBroker:
    """Confirms that jobs are ours, after a while."""

    seconds: float = 0.0
    lost: tuple[Claim, ...] = ()
    asked: list[int] = field(factory=list)
    options: QueueOptions = field(factory=QueueOptions)

    async def confirm(self, claims: list[Claim], **_: object) -> list[Claim]:
        self.asked.append(len(claims))
        await trio.sleep(self.seconds)
        return [claim for claim in claims if claim in self.lost]


@define
class Settled:
    """Replaces the settler: settles in Redis at once."""

    in_flight: InFlight
    deliveries: list[Delivery] = field(factory=list)
    can_keep: bool = True

    def settle_nowait(self, deliveries: list[Delivery]) -> None:
        self.deliveries += deliveries
        self.in_flight.finish(len(deliveries))
        self.in_flight.drop([each.claim for each in deliveries], comes_back=False)

    @property
    def verdicts(self) -> Counter[str]:
        return Counter(type(each.verdict).__name__ for each in self.deliveries)


@define
class Serial:
    """A relay that takes a second for each mail on a connection, one after the other."""

    seconds: float = 1.0
    transports: list[FakeTransport] = field(factory=list)

    async def open(self) -> Session | Trouble:
        transport = OneByOne(self.seconds)
        self.transports.append(transport)
        return session_on(transport)


class OneByOne(FakeTransport):
    """Answers each mail of a write after the one before it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(delay_seconds=seconds)
        self.free_at = 0.0

    def write(self, wire: bytes) -> None:
        self.written.append(wire)
        replies = b""
        while wire:
            line, _, wire = wire.partition(b"\r\n")
            verb, *words = line.split()
            replies += b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
            if verb == b"BDAT":
                wire = wire[int(words[0]) :]
            if verb == b"BDAT" or not wire:
                # One answer must not overtake another.
                took = self.delay_seconds if verb == b"BDAT" else 0.000_001
                self.free_at = max(self.free_at, trio.current_time()) + took
                trio.lowlevel.spawn_system_task(self._answer_at, self.free_at, replies)
                replies = b""

    async def _answer_at(self, at: float, replies: bytes) -> None:
        await trio.sleep_until(at)
        if not self.is_aborted:
            self.say(replies)


@define
class Rig:
    """Consumers over fakes."""

    consumers: Consumers
    pool: Pool
    settler: Settled
    in_flight: InFlight
    broker: SlowBroker

    def give(self, claims: tuple[Claim, ...], waiting: int = 0) -> None:
        self.in_flight.take(claims, trio.current_time())
        self.consumers.give(claims, waiting)


@pytest.fixture
def preparation(composer: Composer, catalogue: Catalogue) -> Preparation:
    return Preparation(catalogue.types, composer, MailOptions(), "", PushHistory(), lambda _: None)


def rig_on(pool: Pool, preparation: Preparation, number: int, broker: SlowBroker | None = None) -> Rig:
    in_flight = InFlight(number * pool.options.depth)
    settler, broker = Settled(in_flight), broker or SlowBroker()
    consumers = Consumers(
        preparation=preparation,
        broker=cast("Any", broker),
        in_flight=in_flight,
        settler=cast("Any", settler),
        gate=Gate(lambda _: None),
        pool=pool,
        retry=RetryPolicy(),
    )
    return Rig(consumers, pool, settler, in_flight, broker)


@pytest.mark.parametrize(("jobs", "seconds"), [(10, 1), (200, 20)])
async def test_few_jobs_are_spread_over_idle_consumers(
    autojump_clock: trio.testing.MockClock, preparation: Preparation, jobs: int, seconds: int
) -> None:
    """At a relay that takes a second for each mail ten go over ten connections, also where sixty-four fit on one."""
    relay = Serial()
    options = PoolOptions(max_size=10, min_idle=0, pipeline_depth=64)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 10)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 10)
            began = trio.current_time()
            rig.give(claims_of(jobs))
            await rig.in_flight.wait_until_empty()
            took = trio.current_time() - began
            rig.consumers.close()

    assert rig.settler.verdicts == {"Done": jobs}
    assert took == pytest.approx(seconds, rel=0.1)
    assert len(relay.transports) == 10


@given(
    count=st.integers(1, 200),
    waiting=st.integers(0, 3000),
    number=st.integers(1, 40),
    depth=st.sampled_from([1, 8, 64]),
)
def test_jobs_are_dealt_in_runs_of_a_window_at_most(count: int, waiting: int, number: int, depth: int) -> None:
    """Each once and in order; few are spread over all consumers, many are dealt by the window."""

    async def deal() -> list[int]:
        async with open_pool(
            PoolOptions(max_size=1, min_idle=0, pipeline_depth=depth), Timeouts(), Serial().open, lambda _: None
        ) as pool:
            rig = rig_on(pool, cast("Any", None), number)
            rig.consumers.number = number
            claims = claims_of(count)
            rig.consumers.give(claims, waiting)
            runs = []
            while run := rig.consumers._waiting_run():
                runs.append(run)
            assert tuple(claim for run in runs for claim in run) == claims
            return [len(run) for run in runs]

    sizes = trio.run(deal, clock=trio.testing.MockClock(autojump_threshold=0))
    assert max(sizes) <= depth
    if waiting < number * depth:
        assert len(sizes) >= min(count, number) / 2
        assert max(sizes) <= -(-count // min(count, number))
    else:
        assert len(sizes) == -(-count // depth)


async def test_a_window_is_fed_while_mails_come(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """A job that no idle consumer can take does not wait for the reply to the one before it."""
    relay = Serial()
    options = PoolOptions(max_size=1, min_idle=0, pipeline_depth=8)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 1)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 1)
            rig.give(claims_of(3))
            await rig.in_flight.wait_until_empty()  # the window is 4 by now
            rig.give(claims_of(1, 10))
            await trio.sleep(0.2)
            rig.give(claims_of(1, 11))
            await trio.testing.wait_all_tasks_blocked()
            assert pool.views()[0].state != "idle"
            (transport,) = relay.transports
            assert b"user11@" in transport.written[-1]
            await rig.in_flight.wait_until_empty()
            rig.consumers.close()
    assert rig.settler.verdicts == {"Done": 5}


async def test_a_connection_is_given_back_after_a_windows_worth_when_another_consumer_waits(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """Nobody who has mails waits until another one has sent all of his."""
    relay, senders = Serial(0.1), list[int | None]()
    options = PoolOptions(max_size=1, min_idle=0, pipeline_depth=4)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 3)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 3)
            for start in range(0, 36, 12):
                rig.give(claims_of(12, start), waiting=1000)
            await rig.in_flight.wait_until_empty()
            senders += [each.connection_id for each in rig.settler.deliveries]
            rig.consumers.close()
    assert rig.settler.verdicts == {"Done": 36}
    order = [int(each.claim.job_id.removeprefix("job")) // 4 for each in rig.settler.deliveries]
    turns = [order[0], *(after for before, after in pairwise(order) if after != before)]
    assert len(turns) == len(set(turns))


async def test_no_mail_waits_behind_a_connection_that_hangs_while_consumers_are_idle(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """A run of a window is more than a new connection has room for; others take the rest when they have no more."""
    relay = Serial()

    async def open_one() -> Session | Trouble:
        opened = await relay.open()
        relay.transports[0].delay_seconds = 1000.0
        return opened

    options = PoolOptions(max_size=3, min_idle=0, pipeline_depth=8)
    async with open_pool(options, Timeouts(), open_one, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 3)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 3)
            rig.give(claims_of(24), waiting=1000)
            await trio.sleep(30)
            assert rig.settler.verdicts == {"Done": 23}
            assert (pool.mails_in_flight, rig.consumers.busy) == (1, 1)
            nursery.cancel_scope.cancel()

    assert rig.settler.verdicts == {"Done": 23, "Delay": 1}


async def test_number_of_consumers_changes_while_they_work(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """More start at once; those too many end when they have nothing under way."""
    relay = Serial()
    async with open_pool(PoolOptions(max_size=9, min_idle=0), Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 2)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 2)
            rig.give(claims_of(8))
            await trio.sleep(0.5)
            assert (rig.consumers.running, rig.consumers.busy) == (2, 2)
            rig.consumers.set_number(5)
            await trio.testing.wait_all_tasks_blocked()
            assert (rig.consumers.running, rig.consumers.busy) == (5, 5)
            rig.consumers.set_number(1)
            await rig.in_flight.wait_until_empty()
            await trio.testing.wait_all_tasks_blocked()
            assert (rig.consumers.running, rig.consumers.busy) == (1, 0)
            assert rig.consumers.idle_share(trio.current_time()) is not None
            rig.consumers.close()
        assert rig.consumers.running == 0
    assert rig.settler.verdicts == {"Done": 8}


@pytest.mark.parametrize("idle_seconds", [1.0, IDLE_SECONDS + 1])
async def test_a_connection_that_rests_while_redis_is_asked_may_have_died(
    autojump_clock: trio.testing.MockClock, preparation: Preparation, idle_seconds: float
) -> None:
    """Then the content waits for the replies to RCPT, so that a loss before them proves that nothing was accepted."""
    transport = FakeTransport()

    async def open_fake() -> Session:
        return session_on(transport)

    preparation.options = MailOptions(on_uncertain="hold")
    async with open_pool(PoolOptions(max_size=1, min_idle=0), Timeouts(), open_fake, lambda _: None) as pool:
        async with pool.borrow() as connection:
            assert isinstance(connection, Connection)
            await connection.deliver(MAIL)
        del transport.written[:]
        rig = rig_on(pool, preparation, 1, SlowBroker(idle_seconds))
        rig.broker.options = evolve(rig.broker.options, lease_seconds=0.5)
        preparation.options = MailOptions()
        async with trio.open_nursery() as nursery:
            claims = claims_of(1)
            rig.in_flight.take(claims, trio.current_time() - 1)  # past half of its lease, so that Redis has to be asked
            rig.consumers.start(nursery, 1)
            rig.consumers.give(claims, 0)
            await rig.in_flight.wait_until_empty()
            rig.consumers.close()

    assert [each.verdict for each in rig.settler.deliveries] == [DONE]
    assert rig.broker.asked == [1]
    awaits_recipients = b"BDAT" not in transport.written[0]
    assert awaits_recipients == (idle_seconds > IDLE_SECONDS)


async def test_a_job_that_is_not_ours_any_more_is_not_sent_and_its_neighbours_are(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """A window is confirmed in one call; what another worker took over is given back without a byte."""
    relay = Serial()
    options = PoolOptions(max_size=1, min_idle=0, pipeline_depth=4)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 1)
        claims = claims_of(4)
        rig.broker.lost = claims[1:2]
        preparation.options = MailOptions(on_uncertain="hold")
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 1)
            rig.give(claims)
            await rig.in_flight.wait_until_empty()
            rig.consumers.close()
    assert rig.settler.verdicts == {"Done": 3, "Release": 1}
    assert not any(b"user1@" in wire for wire in relay.transports[0].written)


@pytest.mark.parametrize("waits_for", ["outcomes", "confirmation", "connection"])
async def test_a_cancel_leaves_no_job_without_a_verdict(
    autojump_clock: trio.testing.MockClock, preparation: Preparation, waits_for: str
) -> None:
    """At each step of a consumer: sent mails may have been accepted, the others are given back."""
    relay = Serial()
    options = PoolOptions(max_size=1, min_idle=0, pipeline_depth=4)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 2, SlowBroker(30.0 if waits_for == "confirmation" else 0.0))
        if waits_for == "confirmation":
            preparation.options = MailOptions(on_uncertain="hold")
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 2 if waits_for == "connection" else 1)
            rig.give(claims_of(12), waiting=1000)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        rig.consumers.release_waiting()
        assert (pool.free + pool.kept, pool.borrowed) == (pool.size, 0)

    assert len(rig.in_flight) == 0
    assert len(rig.settler.deliveries) == 12
    uncertain = 0 if waits_for == "confirmation" else 1
    assert rig.settler.verdicts["Release"] == 12 - uncertain
    assert rig.consumers.running == 0


async def test_jobs_that_wait_behind_a_lowered_number_of_consumers_are_given_back(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """What wakes consumers that are too many lies in the channel like a run, and is not the end of what waits there."""
    relay = Serial(60.0)
    options = PoolOptions(max_size=2, min_idle=0, pipeline_depth=8)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 2)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 2)
            rig.give(claims_of(2))
            await trio.sleep(0.5)
            rig.consumers.set_number(1)
            rig.give(claims_of(3, 2))
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        rig.consumers.release_waiting()

    assert len(rig.in_flight) == 0
    assert len(rig.settler.deliveries) == 5


@pytest.mark.parametrize("number", [1, 9])
async def test_a_new_number_of_consumers_changes_nothing_once_they_are_to_end(
    autojump_clock: trio.testing.MockClock, preparation: Preparation, number: int
) -> None:
    """Settings may be read anew in the middle of a drain, and after the last mail of it."""
    async with open_pool(PoolOptions(max_size=3, min_idle=0), Timeouts(), Serial().open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 3)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 3)
            rig.give(claims_of(3))
            await trio.sleep(0.5)
            rig.consumers.close()
            rig.consumers.set_number(number)
            await trio.testing.wait_all_tasks_blocked()
            assert rig.consumers.running == 3
        rig.consumers.set_number(number)

    assert rig.consumers.running == 0
    assert rig.settler.verdicts == {"Done": 3}


async def test_a_closed_pool_gives_back_what_has_not_begun_at_once(
    autojump_clock: trio.testing.MockClock, preparation: Preparation
) -> None:
    """While what is under way is waited for."""
    relay = Serial(10.0)
    options = PoolOptions(max_size=1, min_idle=0, pipeline_depth=4)
    async with open_pool(options, Timeouts(), relay.open, lambda _: None) as pool:
        rig = rig_on(pool, preparation, 1)
        async with trio.open_nursery() as nursery:
            rig.consumers.start(nursery, 1)
            rig.give(claims_of(8))
            await trio.sleep(0.5)
            pool.close()
            rig.consumers.close()
            await trio.testing.wait_all_tasks_blocked()
            assert rig.settler.verdicts == {"Release": 3}  # the rest of the run; the channel is next
    assert rig.settler.verdicts == {"Release": 7, "Done": 1}
    assert {each.verdict.cause.word for each in rig.settler.deliveries if isinstance(each.verdict, Release)} == {
        "released"
    }
