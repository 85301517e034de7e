"""Edge. The pause of a queue, for all of its workers: every claim checks it, so it takes effect at once.

A pause has a reason, the operator's name and, unless it has no limit, an end: then its key expires.
"""

from __future__ import annotations

from trio_worker.queue.counts import count_action
from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.redis.calls import RedisCalls, Unavailable

# By default a pause ends by itself: a forgotten one must not stop the mail for a night.
PAUSE_SECONDS = 900.0
_MAX_REASON_CHARACTERS = 200


async def pause_queue(
    client: RedisCalls, name: str, reason: str, by: str, seconds: float | None = PAUSE_SECONDS
) -> Unavailable | None:
    """Pause the queue for ``seconds`` (None: no limit), or until `resume_queue`; an earlier pause is replaced."""
    kept = " ".join(reason.split())[:_MAX_REASON_CHARACTERS]
    command: list[str | int] = ["SET", keys_of(name).pause, f"{kept} ({by})" if by else kept]
    if seconds is not None:
        command += ["PX", max(1, round(seconds * 1000))]
    answer = await client.command(*command)
    if isinstance(answer, Unavailable):
        return answer
    await count_action(client, name, OperatorAction.QUEUE_PAUSE)
    return None


async def resume_queue(client: RedisCalls, name: str) -> bool | Unavailable:
    """End a pause; return whether there was one."""
    answer = await client.command("DEL", keys_of(name).pause)
    if isinstance(answer, Unavailable):
        return answer
    if answer:
        await count_action(client, name, OperatorAction.QUEUE_RESUME)
    return bool(answer)
