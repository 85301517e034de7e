"""Trio. Watches Redis beside the work: settings that weaken a promise, and keys that it evicts."""

from __future__ import annotations

from typing import Never

import trio

from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.durability import check_durability, count_evicted
from trio_worker.worker.events import DataLost, LossSign, Publish, RedisWeak

# INFO takes Redis some 50 us; a loss cannot be undone, so nobody needs to know it sooner.
EVICTIONS_SECONDS = 15.0


async def watch_redis(client: RedisCalls, publish: Publish) -> Never:
    """Publish the durability risks of this Redis, once, and then each rise of its evicted keys; until cancelled.

    The claiming task reports a Redis that does not answer.
    """
    found = await check_durability(client)
    before: int | None = None
    if not isinstance(found, Unavailable):
        before = found.evicted
        for risk in found.risks:
            publish(RedisWeak(risk))
    while True:
        await trio.sleep(EVICTIONS_SECONDS)
        evicted = await count_evicted(client)
        if evicted is not None and before is not None and evicted > before:
            publish(DataLost(LossSign.EVICTED, evicted - before))
        before = evicted
