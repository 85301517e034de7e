"""Trio. Pausing a queue for all of its workers: every claim looks, so a pause holds from the moment it is set.

A pause has a reason, a person and, unless somebody wants it for ever, an end: its key expires by itself.
"""

from __future__ import annotations

from trio_worker.queue.counts import count_action
from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.redis.client import RedisClient, Unavailable

# A pause that is forgotten does less harm than a night without mail.
PAUSE_SECONDS = 900.0
_MAX_REASON_CHARACTERS = 200


async def pause_queue(
    client: RedisClient, name: str, reason: str, by: str, seconds: float | None = PAUSE_SECONDS
) -> Unavailable | None:
    """Have nothing claimed from the queue for so long, or until `resume_queue`; a pause that stands is replaced."""
    kept = " ".join(reason.split())[:_MAX_REASON_CHARACTERS]
    words: list[str | int] = ["SET", keys_of(name).pause, f"{kept} ({by})" if by else kept]
    if seconds is not None:
        words += ["PX", max(1, round(seconds * 1000))]
    answer = await client.command(*words)
    if isinstance(answer, Unavailable):
        return answer
    await count_action(client, name, OperatorAction.QUEUE_PAUSE)
    return None


async def resume_queue(client: RedisClient, name: str) -> bool | Unavailable:
    """End a pause; return whether there was one."""
    answer = await client.command("DEL", keys_of(name).pause)
    if isinstance(answer, Unavailable):
        return answer
    if answer:
        await count_action(client, name, OperatorAction.QUEUE_RESUME)
    return bool(answer)
