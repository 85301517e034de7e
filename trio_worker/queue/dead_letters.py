"""Edge. Dead letters, held and delayed jobs: reading, retrying, dropping them; cancelling jobs, which makes them dead.

The bytes of jobs are read only on request: a list of a thousand dead letters should not transfer a thousand bodies.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Literal, TypeAlias

from attrs import evolve

from trio_worker.queue.counts import PAGE
from trio_worker.queue.job_id import new_id_prefix
from trio_worker.queue.keys import keys_of
from trio_worker.queue.record import UNKNOWN_CAUSE, Attempt, Cause, Record, ShelvedJob, read_record, write_record
from trio_worker.queue.waking import wake_workers
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.server import pairs

# A retry of more jobs cannot be undone: the records for it would fill Redis' memory.
MAX_UNDONE = 10_000
# How long a retry can be undone: a day.
UNDO_SECONDS = 86_400

Shelf: TypeAlias = Literal["dead", "held", "delayed"]

# The field of the undo data that has the batch of the last retry.
_LAST_BATCH = "last"

# Why the claim script made a job dead or held. No worker wrote a record with a cause then.
_CLAIM_REASONS = {
    "crashed": "claimed queue.max_deliveries times and never settled",
    "too_large": "larger than queue.max_job_bytes",
    "no_bytes": "its bytes are not in Redis",
    "uncertain": "its worker stopped when it may have sent the mail already",
}
_SHELVES: Mapping[str, Shelf] = {"dead": "dead", "held": "held", "delayed": "delayed"}
# Jobs in one call of the script. Redis searches the list for each: 1 ms in a list of 100,000 jobs, and meanwhile it
# serves no other client.
_AT_ONCE = 10


@frozen
class RetryBatch:
    """Jobs that were retried together; ``batch_id`` can undo it for a day, and is empty if it cannot be undone."""

    job_ids: frozenset[str]
    batch_id: str


async def read_shelf(
    client: RedisCalls, name: str, shelf: Shelf, limit: int, *, with_bodies: bool = False
) -> list[ShelvedJob] | Unavailable:
    """Return the first jobs of a shelf (the dead, held or delayed jobs), at most ``limit``, as `walk_shelf` does."""
    found: list[ShelvedJob] = []
    async with aclosing(walk_shelf(client, name, shelf, with_bodies=with_bodies)) as pages:
        async for page in pages:
            if isinstance(page, Unavailable):
                return page
            found += page[: limit - len(found)]
            if len(found) >= limit:
                break
    return found


async def walk_shelf(
    client: RedisCalls, name: str, shelf: Shelf, *, with_bodies: bool = False
) -> AsyncGenerator[list[ShelvedJob] | Unavailable]:
    """Give every job of a shelf, a page in each round trip; ends after the first `Unavailable`.

    Dead and held jobs come newest first, delayed ones with those that are due first. If jobs leave the shelf meanwhile,
    others may be left out; if jobs come, some may be on two pages.
    """
    place = 0
    while True:
        order = () if shelf == "delayed" else ("REV",)
        found = await client.command(
            "ZRANGE", keys_of(name).of_state(shelf), place, place + PAGE - 1, *order, "WITHSCORES"
        )
        if isinstance(found, Unavailable):
            yield found
            return
        at_by_id = {job_id.decode("utf-8", "replace"): float(score) / 1000 for job_id, score in pairs(found)}
        if not at_by_id:
            return
        page = await read_shelved(client, name, at_by_id, with_bodies=with_bodies)
        yield page
        if isinstance(page, Unavailable):
            return
        place += len(at_by_id)


async def last_job_id(client: RedisCalls, name: str, shelves: Sequence[Shelf]) -> str | Unavailable | None:
    """Return the id of the job that came onto one of the shelves last: of a delayed job, that was tried last.

    None if they are empty.
    """
    newest: tuple[float, str] | None = None
    for shelf in shelves:
        async with aclosing(walk_shelf(client, name, shelf)) as pages:
            async for page in pages:
                if isinstance(page, Unavailable):
                    return page
                came = [(_came_at(job, shelf), job.job_id) for job in page]
                newest = max(came if newest is None else [newest, *came])
                if shelf != "delayed":
                    break  # the newest comes first
    return None if newest is None else newest[1]


def _came_at(job: ShelvedJob, shelf: Shelf) -> float:
    if shelf != "delayed":
        return job.at
    return job.record.timeline[-1].at if job.record.timeline else job.record.born


async def find_shelved(
    client: RedisCalls, name: str, shelf: Shelf, job_ids: Sequence[str], *, with_bodies: bool = False
) -> list[ShelvedJob] | Unavailable:
    """Return those of the given jobs that are on the shelf, in the given order."""
    found: list[ShelvedJob] = []
    for start in range(0, len(job_ids), PAGE):
        page = job_ids[start : start + PAGE]
        scores = await client.pipeline([("ZSCORE", keys_of(name).of_state(shelf), job_id) for job_id in page])
        if isinstance(scores, Unavailable):
            return scores
        at_by_id = {
            job_id: float(score) / 1000 for job_id, score in zip(page, scores, strict=True) if score is not None
        }
        jobs = await read_shelved(client, name, at_by_id, with_bodies=with_bodies)
        if isinstance(jobs, Unavailable):
            return jobs
        found += jobs
    return found


async def read_places(
    client: RedisCalls, name: str, shelf: Shelf, places: Sequence[int], *, with_bodies: bool = False
) -> list[ShelvedJob] | Unavailable:
    """Return the jobs at some places of a shelf, at most a page of them; the place with the lowest score is 0."""
    key = keys_of(name).of_state(shelf)
    found = await client.pipeline([("ZRANGE", key, place, place, "WITHSCORES") for place in places])
    if isinstance(found, Unavailable):
        return found
    scored = [pair for answer in found for pair in pairs(answer)]
    at_by_id = {job_id.decode("utf-8", "replace"): float(score) / 1000 for job_id, score in scored}
    return await read_shelved(client, name, at_by_id, with_bodies=with_bodies)


async def read_shelved(
    client: RedisCalls, name: str, at_by_id: dict[str, float], *, with_bodies: bool = False
) -> list[ShelvedJob] | Unavailable:
    """Read one page of jobs; ``at_by_id`` has their ids and scores (epoch seconds)."""
    page = tuple(at_by_id)
    if not page:
        return []
    keys = keys_of(name)
    wanted = [("HMGET", keys.record, *page), ("HMGET", keys.lease, *page)]
    wanted += [("HMGET", keys.body, *page)] if with_bodies else [("HSTRLEN", keys.body, job_id) for job_id in page]
    read = await client.pipeline(wanted)
    if isinstance(read, Unavailable):
        return read
    records, leases, *rest = read
    found = rest[0] if with_bodies else [b""] * len(page)
    sizes = [len(body or b"") for body in found] if with_bodies else rest
    jobs = []
    for job_id, record, lease, body, size in zip(page, records, leases, found, sizes, strict=True):
        kept = read_record(record or b"", at_by_id[job_id])
        jobs.append(ShelvedJob(job_id, at_by_id[job_id], kept, _cause(kept, lease or b""), body or b"", size))
    return jobs


async def find_job(client: RedisCalls, name: str, job_id: str) -> tuple[str, ShelvedJob] | Unavailable | None:
    """Return the state of a job, and the job; None if unknown. ``at`` may be the end of its lease or its due time."""
    states = ("leased", "delayed", "held", "dead")
    scores = await client.pipeline([("ZSCORE", keys_of(name).of_state(state), job_id) for state in states])
    if isinstance(scores, Unavailable):
        return scores
    for state, score in zip(states, scores, strict=True):
        if score is not None:
            found = await read_shelved(client, name, {job_id: float(score) / 1000}, with_bodies=True)
            return found if isinstance(found, Unavailable) else (state, found[0])
    return None


async def drop(client: RedisCalls, name: str, shelf: Shelf, job_ids: Sequence[str]) -> frozenset[str] | Unavailable:
    """Delete jobs of a shelf permanently; return the ids that were still there. Repeat it on `Unavailable`."""
    dropped: set[str] = set()
    for start in range(0, len(job_ids), PAGE):
        answer = await client.run_script("drop", keys_of(name).of_jobs, shelf, *job_ids[start : start + PAGE])
        if isinstance(answer, Unavailable):
            return answer
        dropped.update(job_id.decode("utf-8", "replace") for job_id in answer)
    return frozenset(dropped)


async def retry_shelved(
    client: RedisCalls, name: str, shelf: Shelf, job_ids: Sequence[str], at: float, every_seconds: float = 0.0
) -> RetryBatch | Unavailable:
    """Retry jobs: the first is due now, each further one ``every_seconds`` later.

    Dead and held jobs get new attempts and a new age, delayed ones keep theirs. ``at`` is Redis' clock in epoch
    seconds. The old records are saved first, for undo. On `Unavailable` some pages may
    have been put back: repeat it.
    """
    back: set[str] = set()
    batch_id = secrets.token_hex(4) if len(job_ids) <= MAX_UNDONE else ""
    for start in range(0, len(job_ids), PAGE):
        jobs = await find_shelved(client, name, shelf, job_ids[start : start + PAGE])
        if isinstance(jobs, Unavailable):
            return jobs
        if batch_id:
            failed = await _keep_for_undo(client, name, shelf, f"{batch_id}.{start // PAGE}", jobs)
            if failed and not failed.is_full:
                return failed
            # A full Redis cannot save them. The retry goes on without undo.
            batch_id = "" if failed else batch_id
        args: list[str | int] = []
        for place, job in enumerate(jobs, start):
            record = job.record if shelf == "delayed" else job.record.reborn(at)
            args += [job.job_id, round(place * every_seconds * 1000), write_record(record)]
        answer = await client.run_script("revive", keys_of(name).of_jobs, shelf, *args)
        if isinstance(answer, Unavailable):
            return answer
        back.update(job_id.decode("utf-8", "replace") for job_id in answer)
        await wake_workers(client, name)
    return RetryBatch(frozenset(back), batch_id)


async def amend(
    client: RedisCalls, name: str, job: ShelvedJob, body: bytes, mail_id: str, at: float
) -> bool | Unavailable:
    """Retry a dead letter with other bytes and the same Message-ID, whose left side is ``mail_id``.

    False if it is no dead letter any more: then nothing is changed. ``at`` is Redis' clock in epoch seconds. On
    `Unavailable` it may have been put back: ask what became of it. There is no undo: the bytes before are gone.
    """
    # The id is kept in the record, because one that the producer gave would make another Message-ID of the new bytes.
    record = evolve(job.record.reborn(at), mail_id=mail_id)
    answer = await client.run_script("amend", keys_of(name).of_jobs, job.job_id, body, write_record(record))
    if isinstance(answer, Unavailable):
        return answer
    await wake_workers(client, name)
    return bool(answer)


async def undo_retry_shelved(
    client: RedisCalls, name: str, batch_id: str
) -> tuple[Shelf, frozenset[str]] | Unavailable | None:
    """Undo a retry; return the jobs that are dead, held or delayed as before, None for an unknown batch.

    ``batch_id`` may be the word last. Jobs that a worker has claimed meanwhile are left out.
    """
    back: set[str] = set()
    shelf: Shelf | None = None
    page = 0
    if batch_id == _LAST_BATCH:
        last = await client.command("HGET", keys_of(name).undo, _LAST_BATCH)
        if isinstance(last, Unavailable):
            return last
        batch_id = (last or b"").decode()
    while True:
        kept = await client.command("HGET", keys_of(name).undo, f"{batch_id}.{page}")
        if isinstance(kept, Unavailable):
            return kept
        if kept is None:
            return None if shelf is None else (shelf, frozenset(back))
        document = json.loads(kept)
        shelf = _SHELVES[document["shelf"]]
        answer = await client.run_script("rebury", keys_of(name).of_jobs, shelf, *document["words"])
        if isinstance(answer, Unavailable):
            return answer
        back.update(job_id.decode("utf-8", "replace") for job_id in answer)
        page += 1


async def retry_now(client: RedisCalls, name: str, job_ids: Sequence[str]) -> frozenset[str] | Unavailable:
    """Make delayed jobs due now, otherwise unchanged; return the ids that were delayed."""
    answer = await client.run_script("hasten", keys_of(name).of_jobs, *job_ids)
    if isinstance(answer, Unavailable):
        return answer
    await wake_workers(client, name)
    return frozenset(job_id.decode() for job_id in answer)


async def _keep_for_undo(
    client: RedisCalls, name: str, shelf: Shelf, field: str, jobs: Sequence[ShelvedJob]
) -> Unavailable | None:
    args: list[str] = []
    for job in jobs:
        # The cause of a job that the claim script moved is in the lease entry, which the retry overwrites.
        record = evolve(job.record, cause=job.cause)
        args += [job.job_id, str(round(job.at * 1000)), write_record(record)]
    key = keys_of(name).undo
    kept = json.dumps({"shelf": shelf, "words": args}, separators=(",", ":"))
    last = field.partition(".")[0]
    answers = await client.pipeline([("HSET", key, field, kept, _LAST_BATCH, last), ("EXPIRE", key, UNDO_SECONDS)])
    return answers if isinstance(answers, Unavailable) else None


def _cause(record: Record, lease: bytes) -> Cause:
    _, _, state = lease.decode("utf-8", "replace").rpartition("|")
    if state in _CLAIM_REASONS:
        return Cause(state, text=_CLAIM_REASONS[state])
    return record.cause or UNKNOWN_CAUSE


@frozen
class WaitingJob:
    """A job in the producers' list, where it has no id, and the email type that it names."""

    body: bytes
    email_type: str


async def cancel(
    client: RedisCalls, name: str, delayed: Sequence[ShelvedJob], waiting: Sequence[WaitingJob], by: str, at: float
) -> frozenset[str] | Unavailable:
    """Make delayed and waiting jobs dead letters; return the ids that they have there.

    Waiting jobs are found by their bytes. Jobs that a worker has claimed meanwhile are left out. ``at`` is Redis' clock
    in epoch seconds. On `Unavailable` some jobs may have been cancelled: these are dead letters.
    """
    cause = Cause("cancelled", text=f"by {by}" if by else "")
    prefix = new_id_prefix()
    args: list[tuple[str, str, str, bytes]] = [
        (job.job_id, write_record(_cancelled(job.record, cause, at)), "delayed", b"") for job in delayed
    ]
    for place, job in enumerate(waiting):
        record = _cancelled(Record(at, job.email_type), cause, at)
        args.append((f"{prefix}{place:03d}", write_record(record), "waiting", job.body))
    done: set[str] = set()
    for start in range(0, len(args), _AT_ONCE):
        flat = [arg for each in args[start : start + _AT_ONCE] for arg in each]
        answer = await client.run_script("cancel", keys_of(name).of_jobs, *flat)
        if isinstance(answer, Unavailable):
            return answer
        done.update(job_id.decode("utf-8", "replace") for job_id in answer)
    return frozenset(done)


def _cancelled(record: Record, cause: Cause, at: float) -> Record:
    return evolve(record.noting(Attempt(at, "cancelled")), cause=cause)
