"""Edge. What follows from the silence of workers: they report by writing to Redis, which may refuse that."""

from __future__ import annotations

from trio_worker.queue.needs import TO_BE_SEEN, find_refusal
from trio_worker.redis.calls import RedisCalls


async def silence_words(client: RedisCalls, queue_name: str) -> str:
    """Return what to say when no worker reports: that none is heard, and why that may be so."""
    refusal = await find_refusal(client, queue_name, TO_BE_SEEN)
    if refusal is None:
        return "no worker is heard"
    if refusal.is_denied:
        # Of our login: that of the workers may have the permission.
        return f"no worker is heard; workers with the same login cannot be: {refusal.reason}"
    return f"Redis refuses what workers write, so it is not known whether one runs: {refusal.reason}"
