"""Retried jobs are claimed at once: a wait for a push ends, and nothing that woke it stays behind."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.queue.test_waiting import claim, counts, put
from trio_worker import __version__
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.dead_letters import RetryBatch, amend, read_shelf, retry_now, retry_shelved
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.waking import wake_workers
from trio_worker.redis.client import RedisClient

# The wait itself is longer, so that a test that ends in time has seen it end early.
WAIT_SECONDS, PATIENCE_SECONDS = 60.0, 30.0


@pytest.mark.parametrize("way", ["retried", "corrected", "delayed"])
async def test_a_retry_ends_the_wait_for_a_push(real_redis: RedisClient, way: str) -> None:
    """Of dead letters, with the same or other bytes, and of delayed jobs; the list is empty again, the job claimed."""
    jobs = await put(real_redis)
    await claim(real_redis, 10)
    shelf = await read_shelf(real_redis, "jobs", "dead", 9, with_bodies=True)
    assert isinstance(shelf, list)
    found: list[object] = []

    async def wait() -> None:
        found.append(await Broker(real_redis, QueueOptions()).wait(WAIT_SECONDS))

    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            while not await _is_waiting(real_redis):  # noqa: ASYNC110  Redis has no event for it
                await trio.sleep(0.01)
            if way == "retried":
                assert isinstance(await retry_shelved(real_redis, "jobs", "dead", [jobs[2].job_id], 1.0), RetryBatch)
            elif way == "corrected":
                assert await amend(real_redis, "jobs", shelf[0], b"better", "mail1", 1.0) is True
            else:
                assert await retry_now(real_redis, "jobs", [jobs[0].job_id])

    assert found == [True]
    assert (await counts(real_redis)).waiting == 0
    assert [job.job_id for job in await claim(real_redis, 10)] == [jobs[0 if way == "delayed" else 2].job_id]
    assert [stray async for stray in find_strays(real_redis, "jobs")] == []


async def _is_waiting(redis: RedisClient) -> bool:
    """Whether a client waits in Redis, which has no event for it."""
    return "blmove" in str(await redis.command("CLIENT LIST"))


async def test_a_list_with_jobs_stays_as_it_is(redis: RedisClient) -> None:
    """Nobody waits then, and no element is put before the jobs."""
    await put(redis)
    await wake_workers(redis, "jobs")

    assert (await counts(redis)).waiting == 4
    assert [job.source for job in await claim(redis, 10)] == ["fresh"] * 4


async def test_what_wakes_is_no_job(redis: RedisClient) -> None:
    """If the second half of the call was lost: the claim drops the element, counts nothing and makes no dead letter."""
    await redis.run_scripts(keys_of("jobs").of_jobs, [("wake", ("push",))])
    assert (await counts(redis)).waiting == 1
    claims = await Broker(redis, QueueOptions()).claim(5)

    assert isinstance(claims, Claims)
    assert not claims.jobs
    found = await counts(redis)
    assert (found.waiting, found.known, found.popped) == (0, 0, 0)


@pytest.mark.parametrize("heartbeat", ['{"version":"0.1.0"}', '{"version":"0.1.9"}', "{}", "[]", "", '{"version":7}'])
async def test_no_worker_is_woken_while_one_could_bury_what_wakes(heartbeat: str, real_redis: RedisClient) -> None:
    """A worker of 0.1.0 would make a dead letter of the element if it claimed between the two halves of the call."""
    await _show(real_redis, "old:1", heartbeat)
    await _show(real_redis, "new:1", '{"version":"0.2.0"}')
    await wake_workers(real_redis, "jobs")

    assert await _pushes(real_redis) == 0


@pytest.mark.parametrize("version", ["0.2.0", "0.2.0.dev1", "0.10.0", "1.0"])
async def test_workers_that_know_it_are_woken(version: str, real_redis: RedisClient) -> None:
    """Those of this version and of later ones."""
    await _show(real_redis, "new:1", f'{{"version":"{version}"}}')
    await wake_workers(real_redis, "jobs")

    assert await _pushes(real_redis) == 1
    assert await real_redis.command("LLEN", "jobs") == 0


async def _show(redis: RedisClient, name: str, heartbeat: str) -> None:
    await redis.command("ZADD", keys_of("jobs").workers, 1, name)
    await redis.command("HSET", keys_of("jobs").heartbeats, name, heartbeat)
    await redis.command("CONFIG", "RESETSTAT")


async def _pushes(redis: RedisClient) -> int:
    """How many elements were put in a list since the last worker was shown."""
    stats: Any = await redis.command("INFO", "commandstats")
    return int(stats.get("cmdstat_lpush", {"calls": 0})["calls"])


def test_this_version_knows_it() -> None:
    """By the version that its heartbeats tell."""
    assert tuple(map(int, __version__.split(".")[:2])) >= (0, 2)
