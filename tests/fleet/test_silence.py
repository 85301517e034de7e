"""A worker that Redis does not let say all: it is seen as far as that goes, and says what is missing where it can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve

from tests.support.fleet import overview
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.cli.status import find_problems
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.keys import keys_of
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions
from trio_worker.telemetry.heartbeat import WorkerSeen
from trio_worker.worker.events import HeartbeatTroubled

ALL = ("~jobs", "~{jobs}:*", "+@all")


@asynccontextmanager
async def worker_as(
    workers: WorkerMaker, url: str, relay: Catcher, *rules: str
) -> AsyncIterator[tuple[WorkerMaker, list[HeartbeatTroubled]]]:
    """A worker of a user with these permissions, beside an operator who may do everything."""
    admin = workers.client
    await admin.command("ACL", "SETUSER", "mailer", "reset", "on", ">secret", *rules)
    async with open_redis_client(RedisOptions(url=url, username="mailer", password="secret"), 5.0) as client:
        limited = evolve(workers, client=client)
        reporter = limited.make(limited.options(relay.port), is_burst=False)
        troubles: list[HeartbeatTroubled] = []
        reporter.worker.sinks = [
            *reporter.worker.sinks,
            lambda event: troubles.append(event) if isinstance(event, HeartbeatTroubled) else None,
        ]
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reporter.run)
                yield limited, troubles
                reporter.worker.drain("the test is over")
        assert [each async for each in _left(admin)] == []
    await admin.command("ACL", "DELUSER", "mailer")


async def _left(admin: RedisClient) -> AsyncIterator[WorkerSeen]:
    for worker in (await overview(admin)).workers:
        yield worker


async def heard(admin: RedisClient) -> WorkerSeen:
    """The worker, when it is heard for the first time."""
    with trio.fail_after(60):
        while not (workers := (await overview(admin)).workers):
            pass  # each look waits for Redis
    return workers[0]


@pytest.mark.usefixtures("quick_beats")
async def test_a_worker_that_may_not_publish_outcomes_is_heard(
    workers: WorkerMaker, catcher: Catcher, valkey_url: str
) -> None:
    """Each part of the report is tried by itself: XADD is for the live feed alone."""
    async with worker_as(workers, valkey_url, catcher, *ALL, "-xadd") as (_, troubles):
        seen = await heard(workers.client)

    assert not seen.is_lost
    assert troubles == []


@pytest.mark.usefixtures("quick_beats")
async def test_a_worker_that_may_run_no_script_says_so_in_a_plain_heartbeat(
    workers: WorkerMaker, catcher: Catcher, valkey_url: str
) -> None:
    """It claims nothing, and status says why, in the words that the worker has of it."""
    async with worker_as(workers, valkey_url, catcher, *ALL, "-eval", "-evalsha") as (_, troubles):
        admin = workers.client
        seen = await heard(admin)
        with trio.fail_after(60):
            while not seen.beat.is_refused or not any(notice.word == "MUTE" for notice in seen.beat.notices):
                seen = (await overview(admin)).workers[0]

    assert not seen.is_lost
    assert troubles[0].is_heard
    assert "EVAL" in troubles[0].why


@pytest.mark.usefixtures("quick_beats")
async def test_a_worker_that_may_not_write_its_heartbeat_sends_and_says_so(
    workers: WorkerMaker, catcher: Catcher, valkey_url: str
) -> None:
    """Once, in its log and at /readyz; status concludes from a lease that a worker is there."""
    rules = (*(f"~{key}" for key in keys_of("jobs").of_jobs), "~{jobs}:trial", "+@all")
    async with worker_as(workers, valkey_url, catcher, *rules) as (limited, troubles):
        await workers.push(job_bytes(1))
        await catcher.wait_for_mails(1)
        await limited.wait_until(lambda: bool(troubles))

    (trouble,) = troubles
    assert not trouble.is_heard
    assert "no permission for a key" in trouble.why


async def test_a_lease_is_a_sign_of_a_worker_that_is_not_heard(redis: RedisClient) -> None:
    """Unless it has ended: then its worker may be dead."""
    counts = await count_jobs(redis, "jobs")
    assert isinstance(counts, Counts)

    words = find_problems(evolve(counts, leased=3, run_out=1, bodies=3, leases=3), live=0, able=0)
    assert words[0] == "2 jobs leased by a worker that is not heard: its log and trio-worker health say why"
    assert "leased by" not in str(find_problems(evolve(counts, leased=1, run_out=1), live=0, able=0))
