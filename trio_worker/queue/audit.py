"""Edge. Consistency check of a queue: every job must be in exactly one state, with its bytes and its lease entry."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from trio_worker.queue.counts import PAGE
from trio_worker.queue.keys import keys_of
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.server import pairs


@frozen
class Stray:
    """An id that is not in exactly one state, or whose bytes or lease entry are missing."""

    job_id: str
    reason: str


async def find_strays(client: RedisCalls, name: str) -> AsyncGenerator[Stray | Unavailable]:
    """Check every id, a page in each round trip; give each stray.

    One script checks an id in all states at one moment, so a job that moves meanwhile is no stray. An id that is in
    several keys is checked several times.
    """
    keys = keys_of(name)
    states = [(key, "ZSCAN") for key in (keys.leased, keys.delayed, keys.held, keys.dead)]
    parts = [(key, "HSCAN") for key in (keys.body, keys.record, keys.lease)]
    for key, scan in states + parts:
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
                places = await client.run_script("places", keys.of_jobs, *page)
                if isinstance(places, Unavailable):
                    yield places
                    return
                for job_id, (found_in, has_body, has_lease) in zip(page, places, strict=True):
                    reason = _why_stray(found_in.decode(), has_body=bool(has_body), has_lease=bool(has_lease))
                    if reason:
                        yield Stray(job_id.decode("utf-8", "replace"), reason)
            if not cursor:
                break


def _why_stray(states: str, *, has_body: bool, has_lease: bool) -> str:
    names = states.split()
    if not names and not has_body and not has_lease:
        return ""  # done since its id was read
    faults = []
    if len(names) != 1:
        faults.append(f"in {' and '.join(names) or 'no state'}")
    if not has_body:
        faults.append("without its bytes")
    if not has_lease:
        faults.append("without a lease entry")
    return ", ".join(faults)
