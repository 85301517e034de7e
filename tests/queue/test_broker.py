"""The queue's scripts, on a real Valkey and on the fake one: the conformance suite."""

from __future__ import annotations

import re

import pytest
import trio
from attrs import evolve

from tests.support.jobs import job_bytes
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claim, Claims, Source
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import RetryBatch, find_shelved, read_shelf, retry_shelved
from trio_worker.queue.job_id import new_id_prefix
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import Bury, Delay, Done, Hold, Release, Settlement, SettleResult, Verdict
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient

CAUSE = Cause("tested")


async def score(redis: RedisClient, key: str, member: str) -> float:
    answer = await redis.command("ZSCORE", key, member)
    assert not isinstance(answer, Unavailable)
    return float(answer)


async def claim(broker: Broker, limit: int = 10) -> Claims:
    claims = await broker.claim(limit)
    assert isinstance(claims, Claims), claims
    return claims


async def settle(broker: Broker, claimed: Claim, verdict: Verdict) -> SettleResult:
    answers = await broker.settle([Settlement(claimed, verdict).stored])
    assert isinstance(answers, list), answers
    return answers[0]


async def counts(redis: RedisClient) -> Counts:
    counted = await count_jobs(redis, "jobs")
    assert isinstance(counted, Counts), counted
    assert counted.balances
    return counted


def verdicts(record: Record) -> list[tuple[Verdict, str]]:
    return [
        (Done(), ""),
        (Delay(1000.0, record, CAUSE), "delayed"),
        (Release(record, CAUSE), "delayed"),
        (Hold(record, CAUSE), "held"),
        (Bury(record, CAUSE), "dead"),
    ]


async def test_foreign_word_among_the_totals_is_passed_over(redis: RedisClient) -> None:
    """A value that another program wrote there does not prevent counting."""
    await redis.command("HSET", "{jobs}:totals", "done", "3", "note", "hello", b"\xff", "1e3")

    counted = await count_jobs(redis, "jobs")

    assert isinstance(counted, Counts)
    assert counted.sent == 3


async def test_a_claim_takes_fresh_jobs_in_the_order_they_were_pushed(redis: RedisClient) -> None:
    """Fresh jobs come with their bytes untouched, an id that sorts by birth, and their place in the list's history."""
    await redis.command("RPUSH", "jobs", b"first", b"\xff\x00second", b"third")

    claims = await claim(Broker(redis, QueueOptions()), 2)

    assert [job.body for job in claims.jobs] == [b"first", b"\xff\x00second"]
    assert [job.place for job in claims.jobs] == [1, 2]
    assert [job.source for job in claims.jobs] == [Source.FRESH, Source.FRESH]
    assert claims.jobs[0].job_id < claims.jobs[1].job_id
    assert (claims.waiting, claims.pushed) == (1, 3)
    assert (await counts(redis)).leased == 2


async def test_an_empty_queue_gives_no_jobs_and_no_next_event(redis: RedisClient) -> None:
    """An empty claim says that nothing will become due."""
    claims = await claim(Broker(redis, QueueOptions()))

    assert (claims.jobs, claims.next_seconds) == ((), None)


@pytest.mark.parametrize("which", range(5))
async def test_each_verdict_moves_the_job_to_its_state(redis: RedisClient, which: int) -> None:
    """A settlement leaves the job in the one state that its verdict names, or nowhere when it is done."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    verdict, state = verdicts(claimed.record)[which]

    assert await settle(broker, claimed, verdict) is SettleResult.SETTLED

    after = await counts(redis)
    found = {name for name in ("leased", "delayed", "held", "dead") if getattr(after, name)}
    assert found == ({state} if state else set())


@pytest.mark.parametrize("which", range(5))
async def test_a_settlement_can_be_repeated(redis: RedisClient, which: int) -> None:
    """The same settlement again changes nothing, and says so: its first answer may have been lost."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    verdict, state = verdicts(claimed.record)[which]
    await settle(broker, claimed, verdict)
    before = await counts(redis)

    answer = await settle(broker, claimed, verdict)

    assert answer is (SettleResult.REPEATED if state else SettleResult.GONE)
    after = await counts(redis)
    assert (after.delayed, after.held, after.dead) == (before.delayed, before.held, before.dead)


async def test_a_released_job_comes_back_at_once_with_its_record(redis: RedisClient) -> None:
    """A release is due now, keeps id and record, notes its cause, and resets the deliveries."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    record = Record(born=5.0, attempts=3, email_type="Registration")
    await settle(broker, claimed, Release(record, CAUSE))

    (again,) = (await claim(broker)).jobs

    assert (again.job_id, again.body, again.record) == (claimed.job_id, b"job", evolve(record, cause=CAUSE))
    assert (again.source, again.deliveries, again.place) == (Source.DUE, 1, None)


async def test_a_delayed_job_is_not_claimed_before_its_time(redis: RedisClient) -> None:
    """The claim says how long until the next job is due."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    await settle(broker, claimed, Delay(100.0, claimed.record, CAUSE))

    claims = await claim(broker)

    assert claims.jobs == ()
    assert claims.next_seconds is not None
    assert 99 < claims.next_seconds <= 100


async def test_a_lease_that_runs_out_is_given_to_another_worker(redis: RedisClient) -> None:
    """The next claim of any worker recovers it, and the late worker's settlement is fenced."""
    slow, other = Broker(redis, QueueOptions(lease_seconds=0.02)), Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (late,) = (await claim(slow)).jobs
    await trio.sleep(0.03)

    claims = await claim(other)

    (taken,) = claims.jobs
    assert (taken.job_id, taken.source, taken.deliveries) == (late.job_id, Source.RECOVERED, 2)
    assert claims.recovered == 1
    assert await settle(slow, late, Done()) is SettleResult.FENCED
    assert await settle(other, taken, Done()) is SettleResult.SETTLED


async def test_a_late_settlement_counts_when_nobody_took_the_job(redis: RedisClient) -> None:
    """The token fences, not the deadline."""
    broker = Broker(redis, QueueOptions(lease_seconds=0.01))
    await redis.command("RPUSH", "jobs", b"job")
    (late,) = (await claim(broker)).jobs
    await trio.sleep(0.02)

    assert await settle(broker, late, Done()) is SettleResult.SETTLED
    assert (await counts(redis)).known == 0


async def test_renewing_keeps_a_lease_and_tells_what_is_lost(redis: RedisClient) -> None:
    """A renewed lease does not run out; a settled job is reported as not ours."""
    broker = Broker(redis, QueueOptions(lease_seconds=0.1))
    await redis.command("RPUSH", "jobs", b"kept", b"settled")
    kept, settled = (await claim(broker)).jobs
    await settle(broker, settled, Done())
    for _ in range(3):
        await trio.sleep(0.05)
        lost = await broker.renew([kept, settled])

        assert lost == [settled]

    assert (await claim(broker)).jobs == ()


async def test_a_started_job_whose_lease_runs_out_is_held(redis: RedisClient) -> None:
    """A job marked started may have been sent: it waits for a human."""
    broker = Broker(redis, QueueOptions(lease_seconds=0.02))
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    assert await broker.confirm([claimed], marks_started=True) == []
    await trio.sleep(0.03)

    claims = await claim(broker)

    assert (claims.jobs, claims.held) == ((), 1)
    held = await read_shelf(redis, "jobs", "held", 10, with_bodies=True)
    assert isinstance(held, list)
    assert [job.cause.word for job in held] == ["uncertain"]
    assert await broker.confirm([claimed], marks_started=True) == [claimed]


async def test_a_job_given_out_too_often_without_a_settlement_is_dead(redis: RedisClient) -> None:
    """It may be what crashes the workers; its bytes are kept."""
    broker = Broker(redis, QueueOptions(lease_seconds=0.01, max_deliveries=2))
    await redis.command("RPUSH", "jobs", b"poison")
    for deliveries in (1, 2):
        (claimed,) = (await claim(broker)).jobs
        assert claimed.deliveries == deliveries
        await trio.sleep(0.02)

    claims = await claim(broker)

    assert (claims.jobs, claims.crashed) == ((), 1)
    dead = await read_shelf(redis, "jobs", "dead", 10, with_bodies=True)
    assert isinstance(dead, list)
    assert [(job.body, job.cause.word) for job in dead] == [(b"poison", "crashed")]


async def crash_twice(redis: RedisClient, *jobs: bytes) -> Broker:
    """Jobs that two workers died with: both leases have run out."""
    broker = Broker(redis, QueueOptions(lease_seconds=0.01, max_deliveries=5))
    await redis.command("RPUSH", "jobs", *jobs)
    for _ in range(2):
        assert len((await claim(broker)).jobs) == len(jobs)
        await until_run_out(redis, len(jobs))
    return Broker(redis, QueueOptions(max_deliveries=5))


async def until_run_out(redis: RedisClient, jobs: int) -> None:
    with trio.fail_after(20):
        while (await counts(redis)).run_out < jobs:
            await trio.lowlevel.checkpoint()


async def test_a_job_that_two_workers_died_with_is_given_alone(redis: RedisClient) -> None:
    """One by one, without any other job, so that none is blamed for a third crash; then new jobs are claimed again."""
    broker = await crash_twice(redis, b"first", b"second")
    await redis.command("RPUSH", "jobs", b"fresh")

    given = []
    for _ in range(3):
        claims = await claim(broker)
        given.append(([job.body for job in claims.jobs], claims.suspects, claims.recovered))
        for job in claims.jobs:
            await settle(broker, job, Done())

    assert given == [([b"first"], 1, 1), ([b"second"], 1, 1), ([b"fresh"], 0, 0)]


async def test_a_suspect_waits_for_a_worker_with_nothing_in_hand(redis: RedisClient) -> None:
    """A worker with other jobs in flight gets only the number of suspects, and claims again when it is idle."""
    broker = await crash_twice(redis, b"suspect")
    await redis.command("RPUSH", "jobs", b"fresh")

    busy = await broker.claim(10, is_idle=False)
    assert isinstance(busy, Claims)
    assert (busy.jobs, busy.suspects, busy.recovered) == ((), 1, 0)
    assert [job.body for job in (await claim(broker)).jobs] == [b"suspect"]


async def test_a_job_that_one_worker_died_with_is_no_suspect(redis: RedisClient) -> None:
    """After a plain crash recovery runs at full speed."""
    dying = Broker(redis, QueueOptions(lease_seconds=0.01))
    await redis.command("RPUSH", "jobs", *[b"job"] * 6)
    assert len((await claim(dying)).jobs) == 6
    await until_run_out(redis, 6)

    claims = await claim(Broker(redis, QueueOptions()))

    assert (len(claims.jobs), claims.suspects, claims.recovered) == (6, 0, 6)


@pytest.mark.case("D2")
async def test_an_element_over_the_size_limit_dies_unread_and_blocks_nobody(redis: RedisClient) -> None:
    """It goes to the dead letters inside Redis, with its bytes; the next job is claimed in the same call."""
    broker = Broker(redis, QueueOptions(max_job_bytes=100))
    await redis.command("RPUSH", "jobs", b"x" * 101, b"good")

    claims = await claim(broker, 1)

    assert ([job.body for job in claims.jobs], claims.too_large) == ([b"good"], 1)
    (dead,) = await read_shelf(redis, "jobs", "dead", 10, with_bodies=True)  # type: ignore[misc]  # a failure fails the test
    assert (dead.body, dead.cause.word) == (b"x" * 101, "too_large")


@pytest.mark.case("D5")
async def test_an_id_planted_by_hand_is_set_aside(redis: RedisClient) -> None:
    """An id without bytes dies; the jobs behind it are claimed."""
    await redis.command("ZADD", "{jobs}:delayed", 0, "planted")
    await redis.command("ZADD", "{jobs}:leased", 0, "planted too")
    await redis.command("RPUSH", "jobs", b"good")

    claims = await claim(Broker(redis, QueueOptions()))

    assert [job.body for job in claims.jobs] == [b"good"]
    assert (await counts(redis)).dead == 2


async def test_a_paused_queue_gives_nothing_and_says_why(redis: RedisClient) -> None:
    """A claim honours the pause and touches nothing."""
    await redis.command("RPUSH", "jobs", b"job")
    await redis.command("SET", "{jobs}:pause", "maintenance")

    claims = await claim(Broker(redis, QueueOptions()))

    assert (claims.jobs, claims.paused, claims.waiting) == ((), "maintenance", 1)


async def test_claiming_stops_at_the_limit_of_dead_letters(redis: RedisClient) -> None:
    """With queue.dead_limit reached the claim says so; nothing is trimmed."""
    broker = Broker(redis, QueueOptions(dead_limit=1))
    await redis.command("RPUSH", "jobs", b"dies", b"waits")
    (claimed,) = (await claim(broker, 1)).jobs
    await settle(broker, claimed, Bury(claimed.record, CAUSE))

    claims = await claim(broker)

    assert claims.jobs == ()
    assert "dead_limit" in claims.paused


@pytest.mark.case("A18")
async def test_a_key_of_another_type_is_found_before_the_first_write(redis: RedisClient) -> None:
    """A script refuses, the job stays where it is, and the error names the key."""
    await redis.command("RPUSH", "jobs", b"job")
    await redis.command("SET", "{jobs}:lease", "something else")

    answer = await Broker(redis, QueueOptions()).claim(1)

    assert isinstance(answer, Unavailable)
    assert answer.is_misconfigured
    assert "{jobs}:lease" in answer.reason
    assert await redis.command("LLEN", "jobs") == 1


async def test_dead_jobs_come_back_with_new_attempts(redis: RedisClient) -> None:
    """Revived jobs are due now with a new age; one that is no longer dead is left out."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    await settle(broker, claimed, Bury(Record(born=1.0, attempts=9, cause=CAUSE), CAUSE))
    dead = await find_shelved(redis, "jobs", "dead", [claimed.job_id, "nobody"])
    assert isinstance(dead, list)
    assert [job.job_id for job in dead] == [claimed.job_id]

    first = await retry_shelved(redis, "jobs", "dead", [claimed.job_id], 100.0)
    second = await retry_shelved(redis, "jobs", "dead", [claimed.job_id], 100.0)

    assert isinstance(first, RetryBatch)
    assert isinstance(second, RetryBatch)
    assert (first.job_ids, second.job_ids) == (frozenset({claimed.job_id}), frozenset())
    (again,) = (await claim(broker)).jobs
    assert (again.body, again.record.attempts, again.record.born) == (b"job", 0, 100.0)


async def test_the_deep_audit_names_what_is_in_no_state_or_in_two(redis: RedisClient) -> None:
    """A walk over every id finds what counting cannot."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", *(job_bytes(number) for number in range(5)))
    first, second, *_ = (await claim(broker)).jobs
    assert [stray async for stray in find_strays(redis, "jobs")] == []
    await redis.command("ZREM", "{jobs}:leased", first.job_id)
    await redis.command("ZADD", "{jobs}:dead", 1, second.job_id)

    strays = {
        stray.job_id: stray.reason async for stray in find_strays(redis, "jobs") if not isinstance(stray, Unavailable)
    }

    assert strays == {first.job_id: "in no state", second.job_id: "in dead and leased"}


@pytest.mark.case("A24")
async def test_two_brokers_never_hold_the_same_job(redis: RedisClient) -> None:
    """Claims that race share the list out, each job once."""
    brokers = [Broker(redis, QueueOptions()) for _ in range(8)]
    await redis.command("RPUSH", "jobs", *(b"%d" % number for number in range(400)))
    bodies: list[bytes] = []

    async def race(broker: Broker) -> None:
        while jobs := (await claim(broker, 7)).jobs:
            bodies.extend(job.body for job in jobs)

    async with trio.open_nursery() as nursery:
        for broker in brokers:
            nursery.start_soon(race, broker)

    assert sorted(map(int, bodies)) == list(range(400))


@pytest.mark.case("A8")
async def test_a_flushed_script_is_sent_again(redis: RedisClient) -> None:
    """NOSCRIPT, as after a restart of Redis, costs one more call and nothing else."""
    broker = Broker(redis, QueueOptions())
    await claim(broker)
    await redis.command("SCRIPT", "FLUSH")
    await redis.command("RPUSH", "jobs", b"job")

    assert len((await claim(broker)).jobs) == 1


async def test_the_wait_leaves_the_list_as_it_is(redis: RedisClient) -> None:
    """A wait is a peek: order and length stay, and an empty list answers False."""
    broker = Broker(redis, QueueOptions())
    assert await broker.wait(0.01) is False
    await redis.command("RPUSH", "jobs", b"a", b"b", b"c")

    assert await broker.wait(0.01) is True
    assert await redis.command("LRANGE", "jobs", 0, -1) == [b"a", b"b", b"c"]


@pytest.mark.case("A14")
async def test_a_full_redis_still_claims_and_settles(real_redis: RedisClient) -> None:
    """Under noeviction and out of memory pushes fail, but every script still works: its first write frees."""
    broker = Broker(real_redis, QueueOptions())
    await real_redis.command("RPUSH", "jobs", b"one", b"two", b"three", b"four")
    await real_redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        push = await real_redis.command("RPUSH", "jobs", b"five")
        assert isinstance(push, Unavailable)
        assert push.is_full
        jobs = (await claim(broker)).jobs
        for job, (verdict, _) in zip(jobs, verdicts(jobs[0].record), strict=False):
            assert await settle(broker, job, verdict) is SettleResult.SETTLED
        assert await retry_shelved(real_redis, "jobs", "held", [jobs[3].job_id], 1.0) == RetryBatch(
            frozenset({jobs[3].job_id}), ""
        )
        (due, *_) = (await claim(broker)).jobs
        assert await broker.renew([due]) == []
    finally:
        await real_redis.command("CONFIG", "SET", "maxmemory", "0")


async def test_a_cancelled_wait_ends_at_once(real_redis: RedisClient) -> None:
    """A cancel breaks the waiting connection; the next wait works on a new one."""
    broker = Broker(real_redis, QueueOptions())
    with trio.move_on_after(0.05) as scope, trio.fail_after(20):
        await broker.wait(30)

    assert scope.cancelled_caught
    assert await broker.wait(0.01) is False


def test_ids_sort_by_birth() -> None:
    """Ids made later sort later, and ids of one moment differ."""
    made = [new_id_prefix() for _ in range(50)]

    assert len(set(made)) == 50
    assert [prefix[:10] for prefix in made] == sorted(prefix[:10] for prefix in made)
    assert all(re.fullmatch(r"[0-9a-z]{16}", prefix) for prefix in made)


async def delayed_due(redis: RedisClient, broker: Broker, count: int) -> None:
    """Leave ``count`` delayed jobs that are due."""
    await redis.command("RPUSH", "jobs", *(f"due {number}" for number in range(count)))
    jobs = (await claim(broker, count)).jobs
    await broker.settle([Settlement(job, Release(job.record, CAUSE)).stored for job in jobs])


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_due_jobs_and_new_ones_share_the_claims(redis: RedisClient, limit: int) -> None:
    """A password reset does not wait behind a backlog of retries, and retries not behind a burst of pushes."""
    broker = Broker(redis, QueueOptions())
    await delayed_due(redis, broker, 60)
    await redis.command("RPUSH", "jobs", *(f"new {number}" for number in range(60)))
    sources: list[Source] = []
    while len(sources) < 60:
        sources += [job.source for job in (await claim(broker, limit)).jobs]

    assert {sources.count(Source.DUE), sources.count(Source.FRESH)} == {30}
    for start in range(0, 60, 2 * limit):
        assert 0 < sources[start : start + 2 * limit].count(Source.FRESH) < 2 * limit


async def test_what_one_side_cannot_fill_the_other_does(redis: RedisClient) -> None:
    """A claim brings as many jobs as it can: a short list, or few due jobs, leave their places to the others."""
    broker = Broker(redis, QueueOptions())
    await delayed_due(redis, broker, 20)
    await redis.command("RPUSH", "jobs", "new 1", "new 2")
    first = [job.source for job in (await claim(broker, 10)).jobs]
    await redis.command("RPUSH", "jobs", *(f"newer {number}" for number in range(20)))
    rest = [job.source for job in (await claim(broker, 30)).jobs]

    assert first == [Source.DUE] * 8 + [Source.FRESH] * 2
    assert rest == [Source.DUE] * 12 + [Source.FRESH] * 18


async def test_a_lease_from_before_the_clock_was_set_back_is_cut(redis: RedisClient) -> None:
    """Its worker is dead: without the cut nobody would get the job for an hour."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"job")
    (claimed,) = (await claim(broker)).jobs
    until = await score(redis, "{jobs}:leased", claimed.job_id)
    await redis.command("ZADD", "{jobs}:leased", until + 3_600_000, claimed.job_id)

    claims = await claim(broker)

    assert claims.next_seconds is not None
    assert 59 < claims.next_seconds <= 60


async def test_a_lease_of_a_worker_with_longer_leases_is_not_cut(redis: RedisClient) -> None:
    """Its worker renews it late enough for the shorter lease to end before."""
    patient, hasty = Broker(redis, QueueOptions(lease_seconds=300)), Broker(redis, QueueOptions(lease_seconds=60))
    await redis.command("RPUSH", "jobs", b"job", b"other")
    await claim(hasty, 1)
    await claim(patient, 1)
    longest = "ZREVRANGE", "{jobs}:leased", 0, 0, "WITHSCORES"
    before = await redis.command(*longest)

    await claim(hasty)

    assert await redis.command(*longest) == before


async def test_a_lease_renewed_with_a_new_length_is_not_cut(redis: RedisClient) -> None:
    """A worker may read its settings again while it has jobs."""
    broker, hasty = Broker(redis, QueueOptions(lease_seconds=60)), Broker(redis, QueueOptions(lease_seconds=60))
    await redis.command("RPUSH", "jobs", b"job")
    jobs = (await claim(broker)).jobs
    broker.options = QueueOptions(lease_seconds=300)
    assert await broker.renew(jobs) == []

    claims = await claim(hasty)

    assert claims.next_seconds is not None
    assert claims.next_seconds > 299


async def test_jobs_that_are_given_back_to_the_list_are_no_loss(redis: RedisClient) -> None:
    """The number of jobs ever taken from the list falls only if Redis loses data."""
    broker = Broker(redis, QueueOptions())
    await redis.command("RPUSH", "jobs", b"one", b"two")
    first = await claim(broker)
    await settle(broker, first.jobs[0], Bury(first.jobs[0].record, CAUSE))
    await redis.run_script("recall", broker.keys, 1, 1, first.jobs[0].job_id)

    again = await claim(broker)

    assert (first.ever_popped, again.ever_popped) == (0, 2)
