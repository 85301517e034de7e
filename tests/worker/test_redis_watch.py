"""What a worker sees of a Redis that loses data."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from redis.asyncio import Redis

from proving_ground import Valkey
from tests.support.bridge import Complaints
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.fleet.overview import Overview, read_overview
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.losses import LossSign
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions
from trio_worker.worker import redis_watch
from trio_worker.worker.events import DataLost, Event, RedisWeak
from trio_worker.worker.loss_watch import LossWatch
from trio_worker.worker.redis_watch import PRIMARY_SECONDS, follow_primary, watch_redis


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server that evicts keys when it is full."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        options = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random")
        server = Valkey(tmp_path / "valkey", taken.getsockname()[1], options)
    server.start()
    yield server
    server.kill()


async def test_evicted_keys_are_a_loss(bridge: Complaints, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a policy that may evict jobs; the risk itself is told at the start."""
    monkeypatch.setattr(redis_watch, "EVICTIONS_SECONDS", 0.01)
    events: list[Event] = []
    lost = trio.Event()

    def note(event: Event) -> None:
        events.append(event)
        if isinstance(event, DataLost):
            lost.set()

    opening = open_redis_client(RedisOptions(url=f"redis://127.0.0.1:{valkey.port}"), 5.0)
    async with opening as client, trio.open_nursery() as nursery:
        losses = LossWatch(client, "jobs", note)
        nursery.start_soon(watch_redis, client, note, losses)
        nursery.start_soon(losses.run)
        with trio.fail_after(60):
            number = 0
            while not lost.is_set():
                number += 1
                await client.command("SET", f"cache:{number}", b"x" * 100_000)
        nursery.cancel_scope.cancel()

    (loss,) = [event for event in events if isinstance(event, DataLost)][:1]
    assert loss.sign is LossSign.EVICTED
    assert loss.count > 0
    assert any(isinstance(event, RedisWeak) for event in events)


async def test_the_sentinels_are_asked_from_time_to_time(autojump_clock: trio.testing.MockClock) -> None:
    """Where there are any; without them nothing is left to do."""
    asked: list[float] = []

    async def ask() -> None:
        asked.append(trio.current_time())

    with trio.move_on_after(3.5 * PRIMARY_SECONDS):
        await follow_primary(RedisClient(Redis(), Redis(), follow_primary=ask))
    with trio.fail_after(0):
        await follow_primary(RedisClient(Redis(), Redis()))

    assert len(asked) == 3


async def test_a_worker_sees_that_redis_has_lost_the_queue(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """FLUSHALL, a restart without data: the totals go back. It is told once, and work goes on."""
    reporter = any_workers.make(any_workers.options(catcher.port), is_burst=False)
    await any_workers.push(*(job_bytes(number) for number in range(5)))
    losses: list[DataLost] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            await any_workers.wait_until(lambda: len(any_workers.jobs) == 5)
            await any_workers.client.command("FLUSHALL")
            await any_workers.push(job_bytes(7))
            await any_workers.wait_until(lambda: len(any_workers.jobs) == 6)
            await any_workers.wait_until(lambda: any(isinstance(event, DataLost) for event in any_workers.events))
            losses = [event for event in any_workers.events if isinstance(event, DataLost)]
            reporter.worker.drain("the test is over")

    assert losses == [DataLost(LossSign.TOTALS, 5, uncertain=1)]
    seen = await read_overview(any_workers.client, "jobs")
    assert isinstance(seen, Overview)
    assert [(loss.sign, loss.count) for loss in seen.losses] == [(LossSign.TOTALS, 5)]


async def test_a_worker_sees_that_redis_has_lost_its_last_writes(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Jobs are back in the list, and the total of those that were taken from it is that of before."""
    reporter = any_workers.make(any_workers.options(catcher.port), is_burst=False)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            await any_workers.push(job_bytes(1, id="order-9"))
            await any_workers.wait_until(lambda: len(any_workers.jobs) == 1)
            await any_workers.client.command("HINCRBY", "{jobs}:totals", "popped", -1)
            await any_workers.push(job_bytes(1, id="order-9"))
            await any_workers.wait_until(lambda: len(any_workers.jobs) == 2)
            reporter.worker.drain("the test is over")

    assert [event for event in any_workers.events if isinstance(event, DataLost)] == [
        DataLost(LossSign.TOTALS, 1, uncertain=1)
    ]
    counted = await count_jobs(any_workers.client, "jobs")
    assert isinstance(counted, Counts)
    assert (counted.uncertain, reporter.board.ledger.uncertain) == (1, 1)
    assert len({mail.content.partition(b"Message-ID:")[2].partition(b"\r\n")[0] for mail in catcher.mails}) == 1
