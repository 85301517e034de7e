"""Fixtures: run a command as a person types it, and query its queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_worker.bridge import open_bridge
from trio_worker.cli.command_line import app
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions


@pytest.fixture
def run(work_folder: Path, valkey_url: str) -> Callable[..., int]:
    """Run one command against the real Valkey, its queue empty at first, and return its exit code."""
    config = work_folder / "worker.toml"
    config.write_text(f'profile = "dev"\n[redis]\nurl = "{valkey_url}"\n[log]\nfile = "worker.log"\n')

    def command(*words: str) -> int:
        try:
            code = app([*words, "--config", str(config)])
        except SystemExit as left:
            code = left.code
        return 0 if code is None else int(code)

    return command


@pytest.fixture
def ask(valkey_url: str) -> Callable[[Callable[[RedisClient], Awaitable[Any]]], Any]:
    """Do something with a client of the real Valkey."""

    async def with_client(do: Callable[[RedisClient], Awaitable[Any]]) -> Any:
        async with open_bridge(print), open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:
            return await do(client)

    def asked(do: Callable[[RedisClient], Awaitable[Any]]) -> Any:
        return trio.run(with_client, do)

    asked(lambda client: client.command("FLUSHALL"))
    return asked
