"""Heartbeats without a worker, and a poll of all workers."""

from __future__ import annotations

import time

from trio_worker.fleet.overview import Overview, read_overview
from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry.heartbeat import Heartbeat, write_heartbeat
from trio_worker.worker.phase import Phase

KEYS = keys_of("jobs")


def beat(name: str) -> Heartbeat:
    return Heartbeat(name, "1.2.3", time.time(), Phase.RUNNING, number_workers=3, max_connections=2)


async def overview(redis: RedisClient) -> Overview:
    seen = await read_overview(redis, "jobs")
    assert isinstance(seen, Overview)
    return seen


async def tell(redis: RedisClient, name: str, *, leaves: bool = False, silence_ms: int = 60_000) -> tuple[str, bool]:
    answer = await redis.run_script("beat", KEYS, name, write_heartbeat(beat(name)), silence_ms, int(leaves))
    assert not isinstance(answer, Unavailable)
    return answer[1].decode(), bool(answer[2])
