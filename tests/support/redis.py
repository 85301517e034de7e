"""Clients of a real Valkey and of a fake one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fakeredis import FakeAsyncRedis

from trio_worker.bridge import call
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions


@asynccontextmanager
async def open_real(url: str) -> AsyncIterator[RedisClient]:
    """A client of the real server, its queue empty."""
    async with open_redis_client(RedisOptions(url=url), 5.0) as client:
        await client.command("FLUSHALL")
        yield client


@asynccontextmanager
async def open_fake() -> AsyncIterator[RedisClient]:
    """A client of a new fake server."""
    fake = FakeAsyncRedis(socket_timeout=None)
    try:
        yield RedisClient(fake, fake)
    finally:
        await call(fake.aclose)
