"""Trio. Watches Redis beside the work: settings that weaken a promise, keys that it evicts, another primary."""

from __future__ import annotations

from typing import Never

import trio

from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.redis.durability import Evictions, check_durability, count_evicted
from trio_worker.worker.events import Publish, RedisWeak
from trio_worker.worker.loss_watch import LossWatch

# INFO takes Redis some 50 us; a loss cannot be undone, so nobody needs to know it sooner.
EVICTIONS_SECONDS = 15.0
# A primary that the Sentinels have replaced, and cannot reach, goes on taking the claims of those who can: what is sent
# from it is sent from the new one as well. Sentinels take some five seconds to replace one.
PRIMARY_SECONDS = 5.0


async def follow_primary(client: RedisClient) -> None:
    """Ask the Sentinels from time to time whether the primary is still this one; until cancelled, or without any."""
    while client.follow_primary is not None:
        await trio.sleep(PRIMARY_SECONDS)
        await client.follow_primary()


async def watch_redis(client: RedisCalls, publish: Publish, losses: LossWatch) -> Never:
    """Publish the durability risks of this Redis, once, and pass on each rise of its evicted keys; until cancelled.

    The claiming task reports a Redis that does not answer.
    """
    found = await check_durability(client)
    before: Evictions | None = None
    if not isinstance(found, Unavailable):
        before = found.evicted
        for risk in found.risks:
            publish(RedisWeak(risk))
    while True:
        await trio.sleep(EVICTIONS_SECONDS)
        evicted = await count_evicted(client)
        if evicted is not None and before is not None and evicted.count > before.count:
            losses.see_evicted(evicted.run_id, before.count, evicted.count)
        before = evicted
