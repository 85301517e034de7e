"""Trio. The clients of producers for tests: redis-py for code that blocks, for asyncio and for trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from attrs import field
from redis import Redis
from redis.asyncio import Redis as AsyncioRedis
from redis.commands.core import AsyncCoreCommands

from trio_worker.bridge import call
from trio_worker.records import define


@define(eq=False)
class TrioRedis:
    """redis-py's asyncio client for trio: every command of its is a method that is awaited in trio.

    ``await queue.rpush("jobs", job)``. Pipelines and subscriptions are not: they are no single commands.
    """

    _client: AsyncioRedis

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name != "execute_command" and not hasattr(AsyncCoreCommands, name):
            raise AttributeError(f"{name} is no command of Redis")
        return partial(_run, getattr(self._client, name))


async def _run(command: Callable[..., Awaitable[Any]], *args: Any, **settings: Any) -> Any:
    async def in_asyncio() -> Any:
        return await command(*args, **settings)

    return await call(in_asyncio)


@define(eq=False)
class Producers:
    """Makes clients of one Redis, real or fake; closes those that need not be closed where they are used."""

    _make: Callable[[], Redis]
    _make_asyncio: Callable[[], AsyncioRedis]
    _blocking: list[Redis] = field(factory=list)
    _trio: list[AsyncioRedis] = field(factory=list)

    def connect(self) -> Redis:
        client = self._make()
        self._blocking.append(client)
        return client

    def connect_asyncio(self) -> AsyncioRedis:
        return self._make_asyncio()

    def connect_trio(self) -> TrioRedis:
        client = self._make_asyncio()
        self._trio.append(client)
        return TrioRedis(client)

    async def close(self) -> None:
        """Close the clients that `connect` and `connect_trio` returned."""
        for client in self._blocking:
            client.close()
        for waiting in self._trio:
            await call(waiting.aclose)


def producers_at(url: str) -> Producers:
    """Return the producers of a real Redis."""
    return Producers(partial(Redis.from_url, url), partial(AsyncioRedis.from_url, url))


def producers_of_fake(fakeredis: Any, server: Any) -> Producers:
    """Return the producers of a server of fakeredis."""
    return Producers(partial(fakeredis.FakeRedis, server=server), partial(fakeredis.FakeAsyncRedis, server=server))
