"""Edge. Wakes idle workers when jobs become due that no push announces, such as retried dead letters."""

from __future__ import annotations

import json
import re

from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import RedisCalls, Unavailable

# The first version whose claims know the element that wakes; an older one would make a dead letter of it.
_KNOWN_SINCE = (0, 2)
_VERSION = re.compile(r"(\d+)\.(\d+)")


async def wake_workers(client: RedisCalls, name: str) -> None:
    """Let all workers that wait for a push claim now; two round trips.

    An idle worker waits for an element of the list (BLMOVE), and would find a job that is due only when its wait ends,
    after some seconds. That is also what happens if this fails, so a failure is not told, and while a worker runs that
    could take the element for a job: between the two halves of the call it is in the list.
    """
    seen = await client.run_script("overview", keys_of(name), 0, 0)
    if isinstance(seen, Unavailable):
        return
    _now, workers, *_ = seen
    if all(_knows(heartbeat) for _, _, heartbeat in workers):
        await client.run_scripts(keys_of(name).of_jobs, [("wake", ("push",)), ("wake", ("take",))])


def _knows(heartbeat: bytes) -> bool:
    """Whether the worker that sent this knows the element; no for one that cannot be read."""
    try:
        found = _VERSION.match(json.loads(heartbeat)["version"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return found is not None and (int(found[1]), int(found[2])) >= _KNOWN_SINCE
