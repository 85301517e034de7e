"""Trio. Durability check of a Redis: asks it how it is set up; what that means is said by `server`, which is pure."""

from __future__ import annotations

import time

from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.server import DurabilityRisk, find_risks, info_fields, pairs


async def check_durability(client: RedisCalls) -> list[DurabilityRisk] | Unavailable:
    """Ask Redis for its settings and its state, and return the risks for what trio-worker promises.

    A setting that a hosted Redis refuses to tell (CONFIG is often forbidden) counts as no risk.
    """
    our_time = time.time()
    answers = await client.pipeline([("INFO",), ("TIME",)])
    if isinstance(answers, Unavailable):
        return answers
    info, (seconds, microseconds) = answers
    settings: dict[str, str] = {}
    for name in ("maxmemory-policy", "save", "appendfsync"):
        answer = await client.command("CONFIG", "GET", name)
        if not isinstance(answer, Unavailable):
            settings |= info_fields(dict(pairs(answer)))
    return find_risks(info_fields(info), settings, int(seconds) + int(microseconds) / 1e6, our_time)


async def count_evicted(client: RedisCalls) -> int | None:
    """Return how many keys Redis has evicted since its start under a policy that may evict jobs; None if unknown.

    Jobs never expire, so only the policies ``allkeys-*`` evict them. INFO may be refused.
    """
    answer = await client.command("INFO")
    if isinstance(answer, Unavailable):
        return None
    info = info_fields(answer)
    evicted = info.get("evicted_keys", "")
    if not evicted.isdigit() or not info.get("maxmemory_policy", "").startswith("allkeys"):
        return None
    return int(evicted)
