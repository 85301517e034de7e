"""A full Redis: it refuses pushes, and all that an operator and a worker do to end that must work."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.queue.test_waiting import claim, counts, put
from trio_worker.fleet.overview import Overview
from trio_worker.fleet.watch import Watch
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import count_action
from trio_worker.queue.dead_letters import drop
from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.pause import pause_queue, resume_queue
from trio_worker.queue.settlement import DONE, Settlement, SettleResult
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient


@pytest.fixture
async def full(real_redis: RedisClient) -> AsyncIterator[RedisClient]:
    """A real Valkey that becomes full with jobs in each state; a plain write is refused."""
    await put(real_redis)
    await real_redis.command("CONFIG", "SET", "maxmemory", "1")
    refused = await real_redis.command("SET", "another", "1")
    assert isinstance(refused, Unavailable)
    assert refused.is_full
    yield real_redis
    await real_redis.command("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.case("A14")
async def test_a_full_redis_can_be_paused_and_resumed(full: RedisClient) -> None:
    """With an end or without one; the actions are counted."""
    assert await pause_queue(full, "jobs", "Redis is full", "ana", 600.0) is None
    found = await counts(full)
    assert found.paused == "Redis is full (ana)"
    assert found.pause_seconds_left == pytest.approx(600, abs=30)

    assert await pause_queue(full, "jobs", "Redis is full", "ana", None) is None
    assert (await counts(full)).pause_seconds_left is None

    assert await resume_queue(full, "jobs") is True
    assert await resume_queue(full, "jobs") is False
    found = await counts(full)
    assert found.paused == ""
    assert found.operator_counts.acts[OperatorAction.QUEUE_PAUSE] == 2
    assert found.operator_counts.acts[OperatorAction.QUEUE_RESUME] == 1


async def test_a_pause_without_a_reason_is_a_pause(redis: RedisClient) -> None:
    """A program may give neither a reason nor a name; that must not end the pause."""
    assert await pause_queue(redis, "jobs", "why", "ana") is None
    assert await pause_queue(redis, "jobs", "", "") is None

    assert await redis.command("EXISTS", keys_of("jobs").pause) == 1


async def test_a_mail_that_was_sent_is_settled_in_a_full_redis(full: RedisClient) -> None:
    """With what it must count."""
    broker = Broker(full, QueueOptions())
    claims = await broker.claim(10)
    assert isinstance(claims, Claims)
    before = await counts(full)

    settled = await broker.settle([Settlement(job, DONE, is_uncertain=True) for job in claims.jobs])
    assert settled == [SettleResult.SETTLED] * 4
    assert await broker.count_uncertain(2) is None

    found = await counts(full)
    assert found.sent == before.sent + 4
    assert found.uncertain == before.uncertain + 6


async def test_room_is_made_in_a_full_redis(full: RedisClient) -> None:
    """Dead letters can be dropped, and that is counted."""
    jobs = await claim(full, 10)
    await full.run_script("settle", keys_of("jobs").of_jobs, jobs[0].job_id, f"{jobs[0].token}|bury|0|0|")

    assert await drop(full, "jobs", "dead", [jobs[0].job_id]) == frozenset({jobs[0].job_id})
    await count_action(full, "jobs", OperatorAction.DEAD_DROP)
    found = await counts(full)
    assert found.dead == 1  # the one of before
    assert found.operator_counts.acts[OperatorAction.DEAD_DROP] == 1


async def test_a_full_redis_can_be_watched(full: RedisClient) -> None:
    """Top and tail show what happens, and workers learn that there is a watcher."""
    watch = Watch(full, "jobs", "cache", clock=trio.current_time)

    assert await watch.poll() is None
    assert isinstance(watch.polls.last, Overview)
    assert await full.command("EXISTS", keys_of("jobs").watch) == 1
