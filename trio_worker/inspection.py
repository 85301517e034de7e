"""Trio. Looking into the queue, and putting dead and held jobs back, for people at a shell."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Literal, TypeAlias

from attrs import frozen

from trio_worker.broker import queue_keys
from trio_worker.record import Cause, Record, read_record, write_record
from trio_worker.redis_client import Answer, RedisClient, Unavailable
from trio_worker.soundness import Weakness, find_weaknesses

# How many jobs one round trip reads; a page of a list, not all of it.
PAGE = 200

Shelf: TypeAlias = Literal["dead", "held"]

# Why a claim itself set a job aside, without a worker to write a record.
_CLAIM_REASONS = {
    "crashed": "given out as often as queue.max_deliveries allows, and never settled",
    "too_large": "larger than queue.max_job_bytes",
    "no_bytes": "its bytes are not in Redis",
    "uncertain": "its worker stopped while the mail may have been out",
}


@frozen
class Counts:
    """How many jobs are in each state, in one consistent cut; times are epoch seconds of Redis' clock.

    Since the queue began, by all workers: ``popped`` jobs left the list, ``sent`` were sent, ``delays`` and ``holds``
    count settlements, ``deaths`` those that ended in the dead letters, ``uncertain`` mails that may be out twice.
    """

    at: float
    waiting: int
    leased: int
    delayed: int
    held: int
    dead: int
    bodies: int
    records: int
    leases: int
    due: int
    run_out: int
    popped: int
    sent: int
    delays: int
    holds: int
    deaths: int
    uncertain: int
    paused: str
    next_due_at: float | None
    pause_seconds_left: float | None

    @property
    def known(self) -> int:
        """Jobs with an id: all but the waiting ones."""
        return self.leased + self.delayed + self.held + self.dead

    @property
    def balances(self) -> bool:
        """Whether every id in a state has its bytes and its lease entry, and no bytes are without a state."""
        return self.known == self.bodies == self.leases


@frozen
class ShelvedJob:
    """One dead or held job; ``at`` is when it got there, ``body`` its original bytes."""

    job_id: str
    at: float
    record: Record
    cause: Cause
    body: bytes


@frozen
class Stray:
    """An id that is not in exactly one state, or whose bytes or lease entry are missing."""

    job_id: str
    what: str


async def count_jobs(client: RedisClient, name: str) -> Counts | Unavailable:
    """Count the jobs in every state; constant time, writes nothing."""
    answer = await client.run_script("inspect", queue_keys(name))
    return answer if isinstance(answer, Unavailable) else counts_of(answer)


def counts_of(answer: Answer) -> Counts:
    """Read what the script ``inspect`` answers."""
    now, *numbers, pause, _lease_head, delayed_head, pause_ms, totals = answer
    popped, sent, delays, _released, holds, deaths, uncertain = (int(total or 0) for total in totals)
    waiting, leased, delayed, held, dead, bodies, records, leases, due, run_out = numbers
    return Counts(
        at=int(now) / 1000,
        waiting=waiting,
        leased=leased,
        delayed=delayed,
        held=held,
        dead=dead,
        bodies=bodies,
        records=records,
        leases=leases,
        due=due,
        run_out=run_out,
        popped=popped,
        sent=sent,
        delays=delays,
        holds=holds,
        deaths=deaths,
        uncertain=uncertain,
        paused=pause.decode("utf-8", "replace"),
        next_due_at=float(delayed_head) / 1000 if delayed_head else None,
        pause_seconds_left=pause_ms / 1000 if pause_ms >= 0 else None,
    )


async def read_shelf(client: RedisClient, name: str, shelf: Shelf, limit: int) -> list[ShelvedJob] | Unavailable:
    """Return the newest jobs of a shelf, at most ``limit``, newest first."""
    key = f"{{{name}}}:{shelf}"
    found = await client.command("ZRANGE", key, 0, limit - 1, "REV", "WITHSCORES")
    if isinstance(found, Unavailable):
        return found
    at_by_id = {job_id.decode("utf-8", "replace"): float(score) / 1000 for job_id, score in pairs(found)}
    return await read_shelved(client, name, at_by_id)


async def find_shelved(
    client: RedisClient, name: str, shelf: Shelf, job_ids: Sequence[str]
) -> list[ShelvedJob] | Unavailable:
    """Return those of the given jobs that stand on the shelf, in the order given."""
    key = f"{{{name}}}:{shelf}"
    scores = await client.pipeline([("ZSCORE", key, job_id) for job_id in job_ids]) if job_ids else []
    if isinstance(scores, Unavailable):
        return scores
    at_by_id = {job_id: float(score) / 1000 for job_id, score in zip(job_ids, scores, strict=True) if score is not None}
    return await read_shelved(client, name, at_by_id)


async def read_shelved(client: RedisClient, name: str, at_by_id: dict[str, float]) -> list[ShelvedJob] | Unavailable:
    """Read the bytes and records of jobs whose times on the shelf are known."""
    jobs: list[ShelvedJob] = []
    job_ids = tuple(at_by_id)
    keys = [f"{{{name}}}:{suffix}" for suffix in ("body", "record", "lease")]
    for start in range(0, len(job_ids), PAGE):
        page = job_ids[start : start + PAGE]
        read = await client.pipeline([("HMGET", key, *page) for key in keys])
        if isinstance(read, Unavailable):
            return read
        for job_id, body, record, lease in zip(page, *read, strict=True):
            at = at_by_id[job_id]
            kept = read_record(record or b"", at)
            jobs.append(ShelvedJob(job_id, at, kept, _cause(kept, lease or b""), body or b""))
    return jobs


async def find_job(client: RedisClient, name: str, job_id: str) -> tuple[str, ShelvedJob] | Unavailable | None:
    """Return a job's state and what is known of it, or None; its ``at`` may be its lease's end or its due time."""
    states = ("leased", "delayed", "held", "dead")
    scores = await client.pipeline([("ZSCORE", f"{{{name}}}:{state}", job_id) for state in states])
    if isinstance(scores, Unavailable):
        return scores
    for state, score in zip(states, scores, strict=True):
        if score is not None:
            found = await read_shelved(client, name, {job_id: float(score) / 1000})
            return found if isinstance(found, Unavailable) else (state, found[0])
    return None


async def drop(client: RedisClient, name: str, shelf: Shelf, job_ids: Sequence[str]) -> frozenset[str] | Unavailable:
    """Delete jobs of a shelf for good; return the ids that were still there. Repeat it on `Unavailable`."""
    dropped: set[str] = set()
    for start in range(0, len(job_ids), PAGE):
        answer = await client.run_script("drop", queue_keys(name), shelf, *job_ids[start : start + PAGE])
        if isinstance(answer, Unavailable):
            return answer
        dropped.update(job_id.decode("utf-8", "replace") for job_id in answer)
    return frozenset(dropped)


async def revive(
    client: RedisClient, name: str, shelf: Shelf, jobs: Sequence[ShelvedJob], at: float
) -> frozenset[str] | Unavailable:
    """Put jobs back, due now, with new attempts and a new age; return the ids that were still on the shelf.

    ``at`` is Redis' clock in epoch seconds. On `Unavailable` some pages may have been put back: repeat it.
    """
    back: set[str] = set()
    for start in range(0, len(jobs), PAGE):
        words = [
            word for job in jobs[start : start + PAGE] for word in (job.job_id, 0, write_record(job.record.reborn(at)))
        ]
        answer = await client.run_script("revive", queue_keys(name), shelf, *words)
        if isinstance(answer, Unavailable):
            return answer
        back.update(job_id.decode("utf-8", "replace") for job_id in answer)
    return frozenset(back)


async def find_strays(client: RedisClient, name: str) -> AsyncIterator[Stray | Unavailable]:
    """Walk every id in bounded slices and tell of each that is not as it must be.

    A job that moves while the walk goes on is looked at in one consistent cut, so it is no stray. An id seen in
    several places is looked at as often.
    """
    own = queue_keys(name)
    for key, scan in [*((key, "ZSCAN") for key in own[1:5]), *((key, "HSCAN") for key in own[5:8])]:
        cursor = 0
        while True:
            answer = await client.command(scan, key, cursor, "COUNT", PAGE)
            if isinstance(answer, Unavailable):
                yield answer
                return
            cursor, found = int(answer[0]), answer[1]
            job_ids = [job_id for job_id, _ in pairs(found)]
            for start in range(0, len(job_ids), PAGE):
                page = job_ids[start : start + PAGE]
                places = await client.run_script("places", own, *page)
                if isinstance(places, Unavailable):
                    yield places
                    return
                for job_id, (states, has_body, has_lease) in zip(page, places, strict=True):
                    what = _stray(states.decode(), has_body=bool(has_body), has_lease=bool(has_lease))
                    if what:
                        yield Stray(job_id.decode("utf-8", "replace"), what)
            if not cursor:
                break


async def examine(client: RedisClient) -> list[Weakness] | Unavailable:
    """Look at how Redis is set up and return what weakens our promises.

    What a hosted Redis refuses to tell (CONFIG is often forbidden) is not held against it.
    """
    our_time = time.time()
    answers = await client.pipeline([("INFO",), ("TIME",)])
    if isinstance(answers, Unavailable):
        return answers
    info, (seconds, microseconds) = answers
    settings: dict[str, str] = {}
    for name in ("maxmemory-policy", "save", "appendfsync"):
        told = await client.command("CONFIG", "GET", name)
        if not isinstance(told, Unavailable):
            settings |= {_text(key): _text(value) for key, value in pairs(told)}
    return find_weaknesses(_fields(info), settings, int(seconds) + int(microseconds) / 1e6, our_time)


def _fields(info: object) -> dict[str, str]:
    """Return INFO as text fields, whether the client has parsed it or not."""
    if isinstance(info, dict):
        return {_text(key): _text(value) for key, value in info.items()}
    lines = (line.partition(":") for line in _text(info).splitlines())
    return {key: value for key, colon, value in lines if colon}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(answer: object) -> list[tuple[bytes, bytes | float]]:
    """Return (member, value) pairs however this protocol version shapes them: flat, nested or as a map."""
    if isinstance(answer, dict):
        return list(answer.items())
    if not isinstance(answer, list):
        raise TypeError(f"no pairs: {type(answer).__name__}")
    if answer and isinstance(answer[0], list | tuple):
        return [(member, value) for member, value in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))


def _cause(record: Record, lease: bytes) -> Cause:
    _, _, state = lease.decode("utf-8", "replace").rpartition("|")
    if state in _CLAIM_REASONS:
        return Cause(state, text=_CLAIM_REASONS[state])
    return record.cause or Cause("unknown")


def _stray(states: str, *, has_body: bool, has_lease: bool) -> str:
    words = states.split()
    if not words and not has_body and not has_lease:
        return ""  # done while we looked
    faults = []
    if len(words) != 1:
        faults.append(f"in {' and '.join(words) or 'no state'}")
    if not has_body:
        faults.append("without its bytes")
    if not has_lease:
        faults.append("without a lease entry")
    return ", ".join(faults)
