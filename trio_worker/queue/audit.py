"""Trio. Whether every job is in exactly one state, with its bytes and its lease entry."""

from __future__ import annotations

from collections.abc import AsyncIterator

from attrs import frozen

from trio_worker.queue.counts import PAGE
from trio_worker.queue.keys import keys_of
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.redis.server import pairs


@frozen
class Stray:
    """An id that is not in exactly one state, or whose bytes or lease entry are missing."""

    job_id: str
    reason: str


async def find_strays(client: RedisClient, name: str) -> AsyncIterator[Stray | Unavailable]:
    """Walk every id in bounded slices and tell of each that is not as it must be.

    A job that moves while the walk goes on is looked at in one consistent cut, so it is no stray. An id seen in
    several places is looked at as often.
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
                    what = _stray(found_in.decode(), has_body=bool(has_body), has_lease=bool(has_lease))
                    if what:
                        yield Stray(job_id.decode("utf-8", "replace"), what)
            if not cursor:
                break


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
