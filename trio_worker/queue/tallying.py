"""Trio. Counting in Redis what people did to a queue or its workers, for metrics that outlive every worker."""

from __future__ import annotations

from trio_worker.queue.keys import queue_keys
from trio_worker.queue.operator_counts import Act, act_name
from trio_worker.redis.client import RedisClient

_TOTALS_PLACE = 9  # in the key table


async def count_act(client: RedisClient, name: str, act: Act) -> None:
    """Count what was just done; where Redis does not take it (it is full, say) it stays uncounted."""
    await client.command("HINCRBY", queue_keys(name)[_TOTALS_PLACE], act_name(act), 1)
