"""Trio. Taking back jobs that nobody has begun: they become dead letters, from where they can come back."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from trio_worker.queue.broker import new_id_prefix
from trio_worker.queue.keys import queue_keys
from trio_worker.queue.record import Attempt, Cause, Record, ShelvedJob, write_record
from trio_worker.redis.client import RedisClient, Unavailable

# Jobs in one script call. Finding one takes Redis the longer the farther back it waits: a millisecond in a list of
# 100,000, and nobody else is served meanwhile.
_AT_ONCE = 10


@frozen
class Waiting:
    """A job of the producers' list, which has no id there, and the email type that it names."""

    body: bytes
    email_type: str


async def cancel(
    client: RedisClient, name: str, delayed: Sequence[ShelvedJob], waiting: Sequence[Waiting], by: str, at: float
) -> frozenset[str] | Unavailable:
    """Put delayed jobs, and waiting ones, found by their bytes, among the dead letters; return the ids they have there.

    What a worker has taken meanwhile is left out. ``at`` is Redis' clock in epoch seconds. On `Unavailable` some may
    have been cancelled: those that were are dead letters.
    """
    cause = Cause("cancelled", text=f"by {by}" if by else "")
    prefix = new_id_prefix()
    words: list[tuple[str, str, str, bytes]] = [
        (job.job_id, write_record(_cancelled(job.record, cause, at)), "delayed", b"") for job in delayed
    ]
    for place, job in enumerate(waiting):
        record = _cancelled(Record(at, job.email_type), cause, at)
        words.append((f"{prefix}{place:03d}", write_record(record), "waiting", job.body))
    done: set[str] = set()
    for start in range(0, len(words), _AT_ONCE):
        flat = [word for each in words[start : start + _AT_ONCE] for word in each]
        answer = await client.run_script("cancel", queue_keys(name), *flat)
        if isinstance(answer, Unavailable):
            return answer
        done.update(job_id.decode("utf-8", "replace") for job_id in answer)
    return frozenset(done)


def _cancelled(record: Record, cause: Cause, at: float) -> Record:
    return evolve(record.noting(Attempt(at, "cancelled")), cause=cause)
