"""Edge. Operations on the producers' list: read jobs without taking them, delete jobs, put unfinished jobs back.

`release` puts every unfinished job back as the producer pushed it, so that any other program that reads the plain list
can go on with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence

from attrs import field

from trio_worker.queue.counts import PAGE
from trio_worker.queue.keys import keys_of
from trio_worker.queue.record import read_record
from trio_worker.records import define
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.server import pairs

# Jobs that one call of the script deletes: freeing them must not block Redis for long.
_PURGED_AT_ONCE = 1000


@define
class Released:
    """The result of `release`: numbers of unfinished jobs, and the ids of the ``partly`` delivered ones.

    ``back`` are on the list again; ``live`` are leased by a worker; ``partly`` delivered ones stay, because another
    program would send the mail to some recipients twice; ``kept`` are held or dead and were not to be released.
    """

    back: int = 0
    live: int = 0
    partly: int = 0
    kept: int = 0
    uncertain: int = 0  # of those that are back: their worker may have sent them
    left: list[str] = field(factory=list, repr=False)


async def peek(client: RedisCalls, name: str, first: int, count: int) -> list[bytes] | Unavailable:
    """Return jobs of the list without taking them; ``first`` counts from its head: 0 is claimed next."""
    answer: list[bytes] | Unavailable = await client.command("LRANGE", name, first, first + count - 1)
    return answer


async def walk_waiting(client: RedisCalls, name: str, most: int) -> AsyncGenerator[list[bytes] | Unavailable]:
    """Give at most ``most`` waiting jobs from the head of the list, a page in each round trip."""
    for first in range(0, most, PAGE):
        page = await peek(client, name, first, min(PAGE, most - first))
        yield page
        if isinstance(page, Unavailable) or not page:
            return


async def walk_bodies(client: RedisCalls, name: str) -> AsyncGenerator[list[tuple[str, bytes]] | Unavailable]:
    """Give the ids and bytes of all jobs that have an id, in no order, a page in each round trip.

    HSCAN gives a job at least once if it is there from the beginning to the end.
    """
    cursor = 0
    while True:
        answer = await client.command("HSCAN", keys_of(name).body, cursor, "COUNT", PAGE)
        if isinstance(answer, Unavailable):
            yield answer
            return
        cursor = int(answer[0])
        yield [
            (job_id.decode("utf-8", "replace"), body) for job_id, body in pairs(answer[1]) if isinstance(body, bytes)
        ]
        if not cursor:
            return


async def purge(client: RedisCalls, name: str, count: int) -> int | Unavailable:
    """Delete at most ``count`` waiting jobs from the head of the list; return how many were deleted."""
    purged = 0
    while purged < count:
        gone = await client.run_script("purge", keys_of(name).of_jobs, min(_PURGED_AT_ONCE, count - purged))
        if isinstance(gone, Unavailable):
            return gone
        if not gone:
            break
        purged += gone
    return purged


async def release(
    client: RedisCalls, name: str, *, with_held: bool = False, with_dead: bool = False, only_counts: bool = False
) -> Released | Unavailable:
    """Put unfinished jobs back on the list, before all waiting jobs, the oldest at the head.

    It may be interrupted and repeated: each job is moved in one step, so none is lost or doubled. ``only_counts`` moves
    no job and counts those that would be moved, including the jobs that a worker has.
    """
    job_ids: set[str] = set()
    for state in ("leased", "delayed", *(["held"] if with_held else []), *(["dead"] if with_dead else [])):
        found = await _ids(client, keys_of(name).of_state(state))
        if isinstance(found, Unavailable):
            return found
        job_ids.update(found)
    released = Released()
    # Ids sort by age; the newest goes to the head first.
    ordered = sorted(job_ids, reverse=True)
    for start in range(0, len(ordered), PAGE):
        page = await _whole_jobs(client, name, ordered[start : start + PAGE], released)
        if isinstance(page, Unavailable):
            return page
        if only_counts:
            released.back += len(page)
            continue
        failed = await _recall(client, name, page, released, [with_held, with_dead])
        if failed:
            return failed
    return released


async def _whole_jobs(
    client: RedisCalls, name: str, page: Sequence[str], released: Released
) -> list[tuple[str, bool]] | Unavailable:
    """Return the jobs that no recipient has the mail of, and whether each is leased; count the others as ``partly``."""
    keys = keys_of(name)
    read = await client.pipeline(
        [
            ("HMGET", keys.record, *page),
            *(("ZSCORE", keys.leased, job_id) for job_id in page),
        ]
    )
    if isinstance(read, Unavailable):
        return read
    records, *leases = read
    whole = []
    for job_id, record, lease in zip(page, records, leases, strict=True):
        if read_record(record or b"", 0.0).delivered:
            released.partly += 1
            released.left.append(job_id)
        else:
            whole.append((job_id, lease is not None))
    return whole


async def _recall(
    client: RedisCalls, name: str, whole: Sequence[tuple[str, bool]], released: Released, may: Sequence[bool]
) -> Unavailable | None:
    answers = await client.run_script("recall", keys_of(name).of_jobs, *map(int, may), *(job_id for job_id, _ in whole))
    if isinstance(answers, Unavailable):
        return answers
    counts = Counter(answer.decode() for answer in answers)
    released.back += counts["back"]
    released.live += counts["live"]
    released.kept += counts["kept"]
    released.uncertain += sum(
        was_leased and answer == b"back" for (_, was_leased), answer in zip(whole, answers, strict=True)
    )
    return None


async def _ids(client: RedisCalls, key: str) -> list[str] | Unavailable:
    """Return all ids of a state, read in pages."""
    found: list[str] = []
    cursor = 0
    while True:
        answer = await client.command("ZSCAN", key, cursor, "COUNT", PAGE)
        if isinstance(answer, Unavailable):
            return answer
        cursor = int(answer[0])
        found += [job_id.decode("utf-8", "replace") for job_id, _ in pairs(answer[1])]
        if not cursor:
            return found
