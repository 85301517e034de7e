"""Watching from elsewhere: outcomes, pauses and traces, as they come."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.fleet import KEYS
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.fleet.watch import Watch
from trio_worker.queue.pause import pause_queue
from trio_worker.redis.client import RedisClient
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.feed import FeedTrace, write_trace


@pytest.mark.usefixtures("quick_beats")
async def test_outcomes_are_told_only_while_somebody_watches(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """A watcher sees what becomes of jobs at any worker, masked; without one nothing is written."""
    client = any_workers.client
    reporter = any_workers.make(any_workers.options(catcher.port), is_burst=False)
    watch = Watch(client, "jobs", "cache", clock=trio.current_time)
    await any_workers.push(job_bytes(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            await any_workers.wait_until(lambda: reporter.board.ledger.settled.total() == 1)
            assert await client.command("EXISTS", KEYS.latest) == 0
            assert await watch.poll() is None
            while not reporter.presence._is_watched:
                await watch.poll()
            await any_workers.push(job_bytes(2))
            while not watch.polls.fleet.snapshot(0, 0).latest:
                await watch.poll()
        reporter.worker.drain("test")

    (line,) = watch.polls.fleet.snapshot(0, 0).latest
    assert line.worker == reporter.name
    assert "user2" not in str(await client.command("XRANGE", KEYS.latest, "-", "+"))


async def test_watcher_knows_when_a_pause_ends(redis: RedisClient) -> None:
    """As ``status`` does."""
    await pause_queue(redis, "jobs", "relay maintenance", "ana", 600.0)
    watch = Watch(redis, "jobs", "cache", clock=trio.current_time)
    await watch.poll()

    queue = watch.snapshot().queue
    assert queue is not None
    assert queue.pause_seconds_left == pytest.approx(600, abs=30)


async def test_watch_passes_over_what_was_told_before(redis: RedisClient) -> None:
    """Who traces now is not shown an older trace; what comes after is."""
    watch, told = (
        Watch(redis, "jobs", "cache", clock=trio.current_time),
        FeedTrace(1.0, "a:1", TraceLine("MAIL", "250 ok", 0.1)),
    )
    await redis.command("SET", KEYS.watch, "1")
    await redis.run_script("tell", KEYS, 1000, *("exchange", write_trace(told)) * 600)

    assert await watch.pass_over() is None
    await watch.poll()
    before = list(watch.exchanges)
    await redis.run_script("tell", KEYS, 1000, "exchange", write_trace(told))
    await watch.poll()

    assert (before, watch.exchanges) == ([], [told])
