"""A drain under load ends in time, near or far from Redis: the list is full, jobs in flight, the ledger balances."""

from __future__ import annotations

import pytest
import trio
from attrs import evolve

from nemesis import Proxy
from tests.support.bridge import Complaints
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import InjectedFaults, parse_faults
from trio_worker.capture.server import open_catcher
from trio_worker.capture.store import MemoryStore
from trio_worker.fleet.report import Reporter
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.options import QueueOptions
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions
from trio_worker.smtp.options import PoolOptions
from trio_worker.worker.options import ShutdownOptions
from trio_worker.worker.phase import Disposition

GRACE_SECONDS = 5.0
JOBS = 3000


async def drained(reporter: Reporter, relay: Catcher, *, hurries: bool) -> tuple[float, int]:
    """Run a worker under load and drain it; return the seconds that took, and the jobs in flight when it began."""
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            await relay.wait_for_mails(100)
            began, in_hand = trio.current_time(), len(reporter.worker.in_flight)
            reporter.worker.drain("SIGTERM")
            if hurries:
                reporter.worker.hurry()
    return trio.current_time() - began, in_hand


@pytest.mark.case("B2", "B3")
@pytest.mark.parametrize("depth", [1, 64])
@pytest.mark.parametrize("round_trip_ms", [0, 2, 10, 50, 200])
async def test_a_drain_under_load_ends_within_its_grace(
    bridge: Complaints,
    valkey_url: str,
    composer: Composer,
    catalogue: Catalogue,
    round_trip_ms: int,
    depth: int,
) -> None:
    """No claim is made after the signal; jobs in flight are sent or given back, and the list keeps the others."""
    proxy = Proxy(int(valkey_url.rpartition(":")[2].partition("/")[0]), one_way_seconds=round_trip_ms / 2000)
    async with trio.open_nursery() as nursery, open_catcher(store=MemoryStore(max_mails=2 * JOBS)) as relay:
        await nursery.start(proxy.serve)
        async with open_redis_client(RedisOptions(url=f"redis://127.0.0.1:{proxy.port}"), 5.0) as client:
            await client.command("FLUSHALL")
            workers = WorkerMaker(client, composer, catalogue)
            for start in range(0, JOBS, 500):
                await workers.push(*(job_bytes(number) for number in range(start, start + 500)))
            options = workers.options(relay.port, shutdown=ShutdownOptions(GRACE_SECONDS))
            reporter = workers.make(evolve(options, pool=PoolOptions(pipeline_depth=depth)), is_burst=False)
            seconds, in_hand = await drained(reporter, relay, hurries=depth == 64)

            ledger = reporter.board.ledger
            assert seconds <= GRACE_SECONDS + 1
            assert ledger.balances, str(ledger)
            # A claim that was under way at the signal brings at most what there was room for.
            assert ledger.settled[Disposition.RELEASED] <= in_hand + reporter.worker.in_flight.limit
            assert ledger.settled[Disposition.UNSETTLED] == 0
            left = await count_jobs(client, "jobs")
            assert isinstance(left, Counts)
            assert left.leased == 0
            assert left.waiting + left.delayed + relay.total == JOBS
        nursery.cancel_scope.cancel()


async def test_a_drain_does_not_wait_for_a_redis_that_has_stopped(
    real_redis: RedisClient, workers: WorkerMaker, catcher: Catcher
) -> None:
    """A claim that is under way is broken off when the grace is over: its jobs are left to their leases."""
    url = real_redis.client.connection_pool.connection_kwargs
    proxy = Proxy(int(url["port"]))
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        async with open_redis_client(RedisOptions(url=f"redis://127.0.0.1:{proxy.port}"), 5.0) as client:
            made = WorkerMaker(client, workers.composer, workers.catalogue)
            options = made.options(
                catcher.port, shutdown=ShutdownOptions(grace_seconds=1.0), queue=QueueOptions(lease_seconds=30)
            )
            reporter = made.make(options, is_burst=False)
            with trio.fail_after(30):
                async with trio.open_nursery() as running:
                    running.start_soon(reporter.run)
                    await workers.push(job_bytes())
                    await catcher.wait_for_mails(1)
                    proxy.swallows_replies_to = b"EVALSHA"
                    await workers.push(*(job_bytes(number) for number in range(50)))
                    await proxy.has_swallowed.wait()
                    began = trio.current_time()
                    reporter.worker.drain("SIGTERM")
            assert trio.current_time() - began <= 1.0 + 3.0
            assert reporter.board.ledger.balances
        nursery.cancel_scope.cancel()


@pytest.mark.case("B2")
async def test_a_relay_that_has_fallen_silent_gets_no_more_than_the_grace_and_a_second(workers: WorkerMaker) -> None:
    """Neither for its final reply nor for its answers to QUIT."""
    parsed = parse_faults("quit=stall")
    assert isinstance(parsed, InjectedFaults)
    async with open_catcher(faults=parsed) as relay:
        options = workers.options(relay.port, pool=PoolOptions(min_idle=10), shutdown=ShutdownOptions(1.0))
        reporter = workers.make(options, is_burst=False)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reporter.run)
                await workers.push(*(job_bytes(number) for number in range(30)))
                await relay.wait_for_mails(30)
                stalling = parse_faults("quit=stall,final=stall")
                assert isinstance(stalling, InjectedFaults)
                relay.faults = stalling
                await workers.push(job_bytes(30))
                await relay.wait_until(lambda: str(relay.commands).count("BDAT") == 31)
                began = trio.current_time()
                reporter.worker.drain("SIGTERM")

    assert 1.0 <= trio.current_time() - began <= 2.0
    assert reporter.board.ledger.balances
    assert reporter.board.ledger.uncertain == 1
