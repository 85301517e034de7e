"""Trio. Durability check of a Redis: asks it how it is set up; what that means is said by `server`, which is pure."""

from __future__ import annotations

import time
from collections.abc import Mapping

from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.server import DurabilityRisk, find_risks, info_fields, pairs

# Said by CONFIG GET alone.
_SETTINGS = ("maxmemory-policy", "save", "appendfsync")


@frozen
class Evictions:
    """How many keys a server has evicted since its start; ``run_id`` tells its starts apart."""

    run_id: str
    count: int


@frozen
class Durability:
    """What Redis says of its settings and its state: ``evicted`` as `count_evicted` returns it."""

    risks: list[DurabilityRisk]
    evicted: Evictions | None


async def check_durability(client: RedisCalls) -> Durability | Unavailable:
    """Ask Redis for its settings and its state, in one round trip; find the risks for what trio-worker promises.

    A setting that a hosted Redis refuses to tell (CONFIG is often forbidden) counts as no risk.
    """
    our_time = time.time()
    commands = [("INFO",), ("TIME",), *(("CONFIG", "GET", name) for name in _SETTINGS)]
    answers = await client.pipeline(commands, may_fail=len(_SETTINGS))
    if isinstance(answers, Unavailable):
        return answers
    info, (seconds, microseconds), *told = answers
    settings: dict[str, str] = {}
    for answer in told:
        if answer is not None:
            settings |= info_fields(dict(pairs(answer)))
    fields = info_fields(info)
    risks = find_risks(fields, settings, int(seconds) + int(microseconds) / 1e6, our_time)
    return Durability(risks, _evicted(fields))


async def count_evicted(client: RedisCalls) -> Evictions | None:
    """Return how many keys Redis has evicted since its start under a policy that may evict jobs; None if unknown.

    Jobs never expire, so only the policies ``allkeys-*`` evict them. INFO may be refused.
    """
    answer = await client.command("INFO")
    return None if isinstance(answer, Unavailable) else _evicted(info_fields(answer))


def _evicted(info: Mapping[str, str]) -> Evictions | None:
    evicted = info.get("evicted_keys", "")
    if not evicted.isdigit() or not info.get("maxmemory_policy", "").startswith("allkeys"):
        return None
    return Evictions(info.get("run_id", ""), int(evicted))
