"""Cancels and drains at every step of a worker, one after another, on a real Valkey and a real socket to the relay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio
from attrs import define, field

from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.settlement import Done, Settlement, SettleResult
from trio_worker.redis.client import RedisClient

T = TypeVar("T")
MAX_STEPS = 2000


@define(eq=False)
class AtStep(trio.abc.Instrument):
    """Does something before the given step, whichever task takes it: the asyncio loop runs in one as well."""

    number: int
    do: Callable[[], object]
    steps: int = 0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self.number:
            self.do()


@define
class AttemptReport:
    """What a call that was to be cancelled at a step came to."""

    returned: list[object] = field(factory=list)
    ended_before: bool = False  # it had fewer steps than that


async def cancelled_at(step: int, function: Callable[[], Awaitable[T]]) -> AttemptReport:
    """Run a function and cancel it before the ``step``th step that is taken while it runs."""
    tried = AttemptReport()

    async def run(scope: trio.CancelScope) -> None:
        instrument = AtStep(step, scope.cancel)
        trio.lowlevel.add_instrument(instrument)
        try:
            with scope:
                tried.returned.append(await function())
        finally:
            trio.lowlevel.remove_instrument(instrument)
        tried.ended_before = instrument.steps < step

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, trio.CancelScope())
    return tried


async def counted(client: RedisClient) -> Counts:
    found = await count_jobs(client, "jobs")
    assert isinstance(found, Counts)
    assert found.balances
    assert [stray async for stray in find_strays(client, "jobs")] == []
    return found


async def test_a_claim_that_is_cancelled_at_any_step_is_told_or_never_made(real_redis: RedisClient) -> None:
    """The caller has every job that Redis gave."""
    broker = Broker(real_redis, QueueOptions())
    given = 0
    for step in range(1, MAX_STEPS):
        await real_redis.command("RPUSH", "jobs", job_bytes(step))
        tried = await cancelled_at(step, lambda: broker.claim(1))
        given += sum(len(claims.jobs) for claims in tried.returned if isinstance(claims, Claims))
        assert (await counted(real_redis)).leased == given
        if tried.ended_before:
            assert step > 2
            return
    raise AssertionError("the claim never ended by itself")


async def test_a_settlement_that_is_cancelled_at_any_step_is_told_or_can_be_repeated(real_redis: RedisClient) -> None:
    """Afterwards the job is settled once, also if the settlement is sent again."""
    broker = Broker(real_redis, QueueOptions())
    for step in range(1, MAX_STEPS):
        await real_redis.command("RPUSH", "jobs", job_bytes(step))
        claims = await broker.claim(1)
        assert isinstance(claims, Claims)
        entry = Settlement(claims.jobs[0], Done()).stored
        tried = await cancelled_at(step, lambda entry=entry: broker.settle([entry]))  # type: ignore[misc]
        again = await broker.settle([entry])
        assert again in ([SettleResult.SETTLED], [SettleResult.GONE], [SettleResult.REPEATED])
        assert (again != [SettleResult.SETTLED]) == bool(tried.returned)
        after = await counted(real_redis)
        assert (after.known, after.sent) == (0, step)
        if tried.ended_before:
            assert step > 2
            return
    raise AssertionError("the settlement never ended by itself")


async def drained_at(step: int, workers: WorkerMaker, relay: Catcher) -> bool:
    """Drain a worker with five jobs at one step of any of its tasks; return whether it had that many steps."""
    await workers.client.command("FLUSHALL")
    await workers.push(*(job_bytes(number) for number in range(5)))
    reporter = workers.make(workers.options(relay.port), is_burst=True)
    sent_before = relay.total
    instrument = AtStep(step, lambda: reporter.worker.drain("the test"))
    trio.lowlevel.add_instrument(instrument)
    try:
        with trio.fail_after(20):
            await reporter.run()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    ledger = reporter.board.ledger
    after = await counted(workers.client)
    assert ledger.balances, f"step {step}: {ledger}"
    assert ledger.uncertain == 0, f"step {step}: {ledger}"
    assert after.leased == 0, f"step {step}: {after}"
    assert after.waiting + after.delayed + relay.total - sent_before == 5, f"step {step}: {after}, {ledger}"
    pool = reporter.worker.pool
    assert pool is not None
    assert (pool.borrowed, pool.kept) == (0, pool.size), f"step {step}: {pool!r}"
    return instrument.steps >= step


async def test_a_drain_at_any_tenth_step_settles_every_job(workers: WorkerMaker, catcher: Catcher) -> None:
    """Sent, or claimable at once; every place is given back."""
    step = 1
    while await drained_at(step, workers, catcher):
        step += 10
    assert step > 100
    await _until_all_closed(catcher)


@pytest.mark.slow
async def test_a_drain_at_any_step_settles_every_job(workers: WorkerMaker, catcher: Catcher) -> None:
    """The same, of every step."""
    step = 1
    while await drained_at(step, workers, catcher):
        step += 1
    await _until_all_closed(catcher)


async def _until_all_closed(relay: Catcher) -> None:
    with trio.fail_after(20):
        await relay.wait_until(lambda: relay.connections_open == 0)
