"""The way back to the plain list, deleting what waits, and taking back a retry: on a real Valkey and a fake one."""

from __future__ import annotations

import pytest

from tests.support.jobs import job_bytes
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claim, Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import (
    RetryBatch,
    amend,
    find_job,
    find_shelved,
    read_shelf,
    retry_now,
    retry_shelved,
    undo_retry_shelved,
)
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import Bury, Delay, Hold, Settlement, Verdict
from trio_worker.queue.waiting import Released, peek, purge, release, walk_bodies, walk_waiting
from trio_worker.redis.client import RedisClient
from trio_worker.smtp.outcome import Refusal, Refused
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.verdict import Terms, decide

CAUSE = Cause("refused", "550 5.1.1", "rcpt", "no")
OPTIONS = QueueOptions(lease_seconds=60)


async def claim(redis: RedisClient, count: int, options: QueueOptions = OPTIONS) -> tuple[Claim, ...]:
    claims = await Broker(redis, options).claim(count)
    assert isinstance(claims, Claims)
    return claims.jobs


async def settle(redis: RedisClient, claimed: Claim, verdict: Verdict) -> None:
    await Broker(redis, OPTIONS).settle([Settlement(claimed, verdict).stored])


async def counts(redis: RedisClient) -> Counts:
    found = await count_jobs(redis, "jobs")
    assert isinstance(found, Counts)
    return found


async def put(redis: RedisClient) -> list[Claim]:
    """Push eight jobs: the first is delayed, the second held, the third dead, the fourth leased, the others wait."""
    await redis.command("RPUSH", "jobs", *(job_bytes(number) for number in range(8)))
    jobs = list(await claim(redis, 4))
    await settle(redis, jobs[0], Delay(600, Record(1.0, attempts=1, cause=CAUSE), CAUSE))
    await settle(redis, jobs[1], Hold(Record(1.0, cause=CAUSE), CAUSE))
    await settle(redis, jobs[2], Bury(Record(1.0, attempts=3, cause=CAUSE), CAUSE))
    return jobs


async def waiting(redis: RedisClient) -> list[bytes]:
    found = await peek(redis, "jobs", 0, 100)
    assert isinstance(found, list)
    return found


async def run_out(redis: RedisClient, claimed: Claim) -> None:
    await redis.command("ZADD", "{jobs}:leased", 1, claimed.job_id)


async def test_released_jobs_are_as_they_were_pushed_and_in_their_order(redis: RedisClient) -> None:
    """Original bytes, the oldest first, before those that wait; nothing of them is left elsewhere."""
    jobs = await put(redis)
    await run_out(redis, jobs[3])

    found = await release(redis, "jobs", with_held=True, with_dead=True)

    assert found == Released(back=4, uncertain=1)
    assert await waiting(redis) == [job_bytes(number) for number in range(8)]
    after = await counts(redis)
    assert (after.leased, after.delayed, after.held, after.dead, after.bodies, after.records) == (0,) * 6
    assert after.balances
    assert after.popped == 0


async def test_held_and_dead_stay_unless_they_are_named(redis: RedisClient) -> None:
    """By default the jobs that were to be sent anyway go back."""
    jobs = await put(redis)
    await run_out(redis, jobs[3])

    assert await release(redis, "jobs") == Released(back=2, uncertain=1)
    assert ((await counts(redis)).held, (await counts(redis)).dead) == (1, 1)


async def test_job_in_a_workers_hands_is_not_released(redis: RedisClient) -> None:
    """A live lease means that it may be on its way out right now."""
    await put(redis)

    assert await release(redis, "jobs") == Released(back=1, live=1)
    assert (await counts(redis)).leased == 1


async def test_partly_delivered_job_stays(redis: RedisClient) -> None:
    """Somebody who knows nothing of recipients that have it would send it to all of them again."""
    await redis.command("RPUSH", "jobs", job_bytes(1))
    (job,) = await claim(redis, 1)
    await settle(redis, job, Delay(600, Record(1.0, due=("b@example.com",), delivered=1), CAUSE))

    planned = await release(redis, "jobs", only_counts=True)
    found = await release(redis, "jobs")

    assert planned == found == Released(partly=1, left=[job.job_id])
    assert (await counts(redis)).delayed == 1


@pytest.mark.parametrize(
    "refused",
    [
        Refused(Reply(451, "later", Stage.RCPT), (Refusal("a@example.com", Reply(451, "later", Stage.RCPT)),)),
        Refused(Reply(451, "later", Stage.FINAL)),
    ],
)
async def test_a_job_that_was_only_put_off_goes_back(redis: RedisClient, refused: Refused) -> None:
    """No recipient has the mail, with any record of its recipients; the dry run says the same."""
    await redis.command("RPUSH", "jobs", job_bytes(1))
    (job,) = await claim(redis, 1)
    terms = Terms(RetryPolicy(), "retry", 1000.0, 0.5)
    await settle(redis, job, decide(refused, ("a@example.com",), Record(1000.0), terms))

    assert await release(redis, "jobs", only_counts=True) == Released(back=1)
    assert await release(redis, "jobs") == Released(back=1)
    assert await waiting(redis) == [job_bytes(1)]


async def test_release_that_was_cut_short_goes_on(redis: RedisClient) -> None:
    """After any page, the next release ends with the same list: the older jobs go before."""
    await redis.command("RPUSH", "jobs", *(job_bytes(number) for number in range(6)))
    jobs = await claim(redis, 6)
    for job in jobs:
        await settle(redis, job, Delay(600, Record(1.0), CAUSE))
    newest = [job.job_id for job in jobs[3:]][::-1]
    await redis.run_script("recall", Broker(redis, OPTIONS).keys, 0, 0, *newest)

    assert await release(redis, "jobs") == Released(back=3)
    assert await waiting(redis) == [job_bytes(number) for number in range(6)]
    assert [stray async for stray in find_strays(redis, "jobs")] == []


async def test_purge_deletes_what_waits_and_nothing_else(redis: RedisClient) -> None:
    """Only as many as were counted, from the head; totals do not go back."""
    await put(redis)

    assert await purge(redis, "jobs", 3) == 3
    assert await waiting(redis) == [job_bytes(7)]
    assert await purge(redis, "jobs", 5) == 1
    after = await counts(redis)
    assert (after.waiting, after.delayed, after.held, after.dead, after.leased) == (0, 1, 1, 1, 1)
    assert after.popped == 8


async def test_retry_can_be_undone_until_it_is_sent(redis: RedisClient) -> None:
    """What waits for its time goes back with its old record and time; what a worker has is left out."""
    await redis.command("RPUSH", "jobs", *(job_bytes(number) for number in range(3)))
    jobs = await claim(redis, 3)
    for job in jobs:
        await settle(redis, job, Bury(Record(1.0, "Registration", attempts=3, cause=CAUSE), CAUSE))
    ids = [job.job_id for job in jobs]
    before = await find_shelved(redis, "jobs", "dead", ids)
    batch = await retry_shelved(redis, "jobs", "dead", ids, 5.0, every_seconds=100.0)
    assert isinstance(batch, RetryBatch)
    assert [job.job_id for job in await claim(redis, 3)] == [ids[0]]

    undone = await undo_retry_shelved(redis, "jobs", batch.batch_id)

    assert undone == ("dead", frozenset(ids[1:]))
    assert isinstance(before, list)
    assert await find_shelved(redis, "jobs", "dead", ids) == before[1:]
    assert await undo_retry_shelved(redis, "jobs", batch.batch_id) == ("dead", frozenset())
    assert await undo_retry_shelved(redis, "jobs", "nosuch") is None


async def test_rate_spreads_jobs_over_time(redis: RedisClient) -> None:
    """Each further job is due later, so no program has to keep running to pace them."""
    await redis.command("RPUSH", "jobs", *(job_bytes(number) for number in range(3)))
    jobs = await claim(redis, 3)
    for job in jobs:
        await settle(redis, job, Bury(Record(1.0), CAUSE))

    await retry_shelved(redis, "jobs", "dead", [job.job_id for job in jobs], 5.0, every_seconds=2.0)

    scores = [await redis.command("ZSCORE", "{jobs}:delayed", job.job_id) for job in jobs]
    times = [float(score) for score in scores if isinstance(score, float | bytes)]
    assert [round(at - times[0]) for at in times] == [0, 2000, 4000]


async def test_dead_letter_is_amended_once_and_only_while_it_is_dead(redis: RedisClient) -> None:
    """It is due at once with the new bytes and new attempts; of two who correct it at the same time the first wins."""
    await put(redis)
    shelf = await read_shelf(redis, "jobs", "dead", 9, with_bodies=True)
    assert isinstance(shelf, list)
    (dead,) = shelf

    assert await amend(redis, "jobs", dead, b"better", "mail1", 7.0) is True
    assert await amend(redis, "jobs", dead, b"other", "mail2", 8.0) is False
    assert await read_shelf(redis, "jobs", "dead", 9) == []
    found = await find_job(redis, "jobs", dead.job_id)
    assert isinstance(found, tuple)
    state, amended = found
    assert (state, amended.body, amended.record.mail_id) == ("delayed", b"better", "mail1")
    assert (amended.record.born, amended.record.attempts, amended.record.cause) == (7.0, 0, None)
    assert (await counts(redis)).balances


async def test_delayed_job_is_hastened_as_it_is(redis: RedisClient) -> None:
    """It is due now; its attempts and its age stay."""
    jobs = await put(redis)

    assert await retry_now(redis, "jobs", [jobs[0].job_id, jobs[2].job_id]) == frozenset({jobs[0].job_id})
    (due,) = await claim(redis, 1)
    assert (due.job_id, due.record.attempts) == (jobs[0].job_id, 1)


async def test_walks_give_every_job(redis: RedisClient) -> None:
    """Bodies of jobs with ids, and the list from its head."""
    jobs = await put(redis)

    with_ids = {
        job_id: raw async for page in walk_bodies(redis, "jobs") if isinstance(page, list) for job_id, raw in page
    }
    in_list = [raw async for page in walk_waiting(redis, "jobs", 3) if isinstance(page, list) for raw in page]

    assert with_ids == {job.job_id: job_bytes(number) for number, job in enumerate(jobs)}
    assert in_list == [job_bytes(4), job_bytes(5), job_bytes(6)]


@pytest.mark.parametrize("bodies", [[b"", b"\xff\n", b"{}"]])
async def test_any_bytes_go_back(redis: RedisClient, bodies: list[bytes]) -> None:
    """Bytes that are no job go back as they came."""
    await redis.command("RPUSH", "jobs", *bodies)
    for job in await claim(redis, 3):
        await settle(redis, job, Bury(Record(1.0), CAUSE))

    assert await release(redis, "jobs", with_dead=True) == Released(back=3)
    assert await waiting(redis) == bodies
