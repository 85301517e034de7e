"""What a real Valkey may lose of the jobs that it took: checked when a worker starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.support.workers import WorkerMaker
from trio_worker.redis.client import RedisClient
from trio_worker.redis.durability import Durability, check_durability
from trio_worker.worker.events import RedisWeak

SOUND = Durability([], None)


@asynccontextmanager
async def configured(client: RedisClient, key: str, value: str) -> AsyncIterator[None]:
    before: Any = await client.command("CONFIG", "GET", key)
    await client.command("CONFIG", "SET", key, value)
    try:
        yield
    finally:
        old = before[key.encode()] if isinstance(before, dict) else before[1]
        await client.command("CONFIG", "SET", key, old)


@pytest.mark.case("A7", "A15")
async def test_a_worker_tells_at_its_start_what_is_weak(workers: WorkerMaker) -> None:
    """The embedded server is sound; one that may evict jobs is not."""
    assert await check_durability(workers.client) == SOUND
    async with configured(workers.client, "maxmemory-policy", "allkeys-lru"):
        reporter = workers.make(workers.options(1), is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                await workers.wait_until(lambda: any(isinstance(event, RedisWeak) for event in workers.events))
            reporter.worker.drain("told")
    (weak,) = [event for event in workers.events if isinstance(event, RedisWeak)]
    assert "allkeys-lru" in weak.risk.reason


async def test_a_redis_that_tells_nothing_of_its_settings_is_not_blamed(workers: WorkerMaker) -> None:
    """CONFIG is often forbidden; all else is checked."""
    await workers.client.command("ACL", "SETUSER", "default", "-config")
    try:
        assert await check_durability(workers.client) == SOUND
    finally:
        await workers.client.command("ACL", "SETUSER", "default", "+config")
