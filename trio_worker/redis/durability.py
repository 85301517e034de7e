"""Trio. Looks at how Redis is set up, and says what weakens a promise."""

from __future__ import annotations

import time

from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.redis.server import Weakness, find_weaknesses, info_fields, pairs


async def examine(client: RedisClient) -> list[Weakness] | Unavailable:
    """Look at how Redis is set up and return what weakens our promises.

    What a hosted Redis refuses to tell (CONFIG is often forbidden) is not held against it.
    """
    our_time = time.time()
    answers = await client.pipeline([("INFO",), ("TIME",)])
    if isinstance(answers, Unavailable):
        return answers
    info, (seconds, microseconds) = answers
    settings: dict[str, str] = {}
    for name in ("maxmemory-policy", "save", "appendfsync"):
        told = await client.command("CONFIG", "GET", name)
        if not isinstance(told, Unavailable):
            settings |= info_fields(dict(pairs(told)))
    return find_weaknesses(info_fields(info), settings, int(seconds) + int(microseconds) / 1e6, our_time)
