"""The clients of Redis on a real server: what is broken off says so, and nothing is left behind."""

from __future__ import annotations

import pytest
from redis import exceptions

from conftest import Complaints
from trio_worker.bridge import call
from trio_worker.redis_client import (
    RedisOptions,
    RedisUrlError,
    Unavailable,
    open_redis_client,
)


async def test_a_write_on_a_connection_that_was_broken_off_fails_at_once(bridge: Complaints, valkey_url: str) -> None:
    """No writer is left waiting for a closed socket, of which asyncio would complain (Python 3.12 and later)."""
    async with open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:

        async def write_after_abort() -> None:
            connection = await client.client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                connection.abort()
                await connection.send_command("PING")
            finally:
                await client.client.connection_pool.release(connection)

        with pytest.raises(exceptions.ConnectionError, match="broken off"):
            await call(write_after_abort)
        assert await client.command("PING") in (b"PONG", True)


async def test_a_broken_connection_costs_one_call(bridge: Complaints, valkey_url: str) -> None:
    """The call after it runs on a new connection."""
    async with open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:
        assert await client.command("SET", "a", "1")
        client.abort_calls()
        answers = [await client.command("GET", "a") for _ in range(2)]

    assert answers[1] == b"1"
    assert answers[0] == b"1" or isinstance(answers[0], Unavailable)


async def test_a_port_without_a_server_is_unavailable(bridge: Complaints) -> None:
    """It is a value, not an exception, and it says what happened."""
    async with open_redis_client(RedisOptions(url="redis://127.0.0.1:1"), 5.0) as client:
        answer = await client.command("PING")

    assert isinstance(answer, Unavailable)
    assert not answer.is_refusal


async def test_a_url_that_cannot_be_used_is_refused(bridge: Complaints) -> None:
    """The message names the key and not the password."""
    with pytest.raises(RedisUrlError, match=r"redis\.url") as refused:
        async with open_redis_client(RedisOptions(url="http://:secret@127.0.0.1"), 5.0):
            pass
    assert "secret" not in str(refused.value)
