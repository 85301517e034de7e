"""Edge. Wakes idle workers when jobs become due that no push announces, such as retried dead letters."""

from __future__ import annotations

from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import RedisCalls


async def wake_workers(client: RedisCalls, name: str) -> None:
    """Let all workers that wait for a push claim now; one round trip.

    An idle worker waits for an element of the list (BLMOVE), and would find a job that is due only when its wait ends,
    after some seconds. That is also what happens if this fails, so a failure is not told.
    """
    await client.run_scripts(keys_of(name).of_jobs, [("wake", ("push",)), ("wake", ("take",))])
