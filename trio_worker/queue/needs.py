"""Trio. What a worker needs from Redis: tried on a key that is gone afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.scripts import TRIAL, read_script
from trio_worker.redis.trial import commands_of, read_trial

# Without these no job can be claimed, sent and settled; without the others a worker cannot show itself.
TO_WORK = ("claim", "settle", "renew")
TO_REPORT = ("beat", "answer", "tell", "lost")
# Without these no command can see it.
TO_BE_SEEN = ("beat",)


async def find_refusal(client: RedisCalls, name: str, scripts: Sequence[str] = TO_WORK) -> Unavailable | None:
    """Try every command that these scripts may run; return why Redis refuses one, None if it refuses none.

    Also None if Redis is full: the scripts work then. ``{name}:trial`` is written and taken away again.
    """
    keys = keys_of(name).of_jobs if scripts == TO_WORK else keys_of(name)
    commands = commands_of({each: read_script(each) for each in scripts}, tuple(scripts))
    answer = await client.command("EVAL", read_script(TRIAL).text, len(keys), *keys, *commands)
    return answer if isinstance(answer, Unavailable) else read_trial(answer)


async def find_wait_refusal(client: RedisCalls, name: str) -> Unavailable | None:
    """Try the blocking wait for a job, on an empty key and for a moment; return why Redis refuses it."""
    key = keys_of(name).of_trial
    answer = await client.command("BLMOVE", key, key, "LEFT", "LEFT", "0.01")
    return answer if isinstance(answer, Unavailable) else None
