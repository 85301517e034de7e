"""Edge. The pause of a queue, for all of its workers: every claim checks it, so it takes effect at once.

A pause has a reason, the operator's name and, unless it has no limit, an end: then its key expires. A full Redis can be
paused too, and that may be when it is needed: the script that does it begins with a removal.
"""

from __future__ import annotations

from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction, action_name
from trio_worker.redis.calls import RedisCalls, Unavailable

# By default a pause ends by itself: a forgotten one must not stop the mail for a night.
PAUSE_SECONDS = 900.0
_MAX_REASON_CHARACTERS = 200


async def pause_queue(
    client: RedisCalls, name: str, reason: str, by: str, seconds: float | None = PAUSE_SECONDS
) -> Unavailable | None:
    """Pause the queue for ``seconds`` (None: no limit), or until `resume_queue`; an earlier pause is replaced."""
    kept = " ".join(reason.split())[:_MAX_REASON_CHARACTERS]
    why = f"{kept} ({by})" if by else kept
    length_ms = 0 if seconds is None else max(1, round(seconds * 1000))
    action = action_name(OperatorAction.QUEUE_PAUSE)
    answer = await client.run_script("pause", keys_of(name).of_jobs, action, why, length_ms)
    return answer if isinstance(answer, Unavailable) else None


async def resume_queue(client: RedisCalls, name: str) -> bool | Unavailable:
    """End a pause; return whether there was one."""
    action = action_name(OperatorAction.QUEUE_RESUME)
    answer = await client.run_script("pause", keys_of(name).of_jobs, action, "", -1)
    return answer if isinstance(answer, Unavailable) else bool(answer)
