"""The workers that a command is for, and the message if one could not be reached."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.fleet import tell
from trio_worker.cli.target_workers import order_workers
from trio_worker.fleet.orders import (
    Quiet,
)
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings


async def test_who_could_not_be_told_is_named(redis: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that left between the poll and the order gives no answer to wait for."""
    await tell(redis, "a:1")
    settings = Settings()

    with trio.fail_after(30):
        came = [each async for each in order_workers(redis, settings, Quiet(), ["gone:9"], 60.0)]

    assert came == [("gone:9", None)]
    assert "gone:9: order not sent" in capsys.readouterr().err
