"""Workers at relays that refuse all mail, or one: nothing is buried that the relay refuses for our sake."""

from __future__ import annotations

import pytest
import trio

from tests.support.jobs import job_bytes
from tests.support.limited_relay import InAll, LimitedRelay, PerSecond, open_limited_relay, take_all
from tests.support.workers import WorkerMaker
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import read_shelf
from trio_worker.redis.client import RedisClient
from trio_worker.smtp.backoff import BackOff
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.options import PoolOptions
from trio_worker.worker import breaker
from trio_worker.worker.breaker import Open
from trio_worker.worker.events import BreakerChanged, RateLimited, SettledJob
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.phase import Disposition

QUOTA = "550 5.4.5 Daily user sending limit exceeded"


async def counted(client: RedisClient) -> Counts:
    counts = await count_jobs(client, "jobs")
    assert isinstance(counts, Counts)
    assert counts.balances
    return counts


def became(workers: WorkerMaker, disposition: Disposition) -> list[SettledJob]:
    return [job for job in workers.jobs if job.disposition is disposition]


def troubles(workers: WorkerMaker) -> set[FailureKind]:
    """The kinds of trouble that opened the breaker."""
    changes = [event.breaker for event in workers.events if isinstance(event, BreakerChanged)]
    return {each.trouble.how for each in changes if isinstance(each, Open)}


@pytest.mark.parametrize(
    ("stage", "words", "how"),
    [
        ("FINAL", QUOTA, FailureKind.STANDING),
        ("RCPT", QUOTA, FailureKind.STANDING),
        ("MAIL", QUOTA, FailureKind.STANDING),
        ("RCPT", "554 5.7.1 <a@example.org>: Relay access denied", FailureKind.US),
        ("RCPT", "454 4.7.1 <a@example.org>: Relay access denied", FailureKind.US),
        ("RCPT", "553 5.7.1 <no-reply@example.com>: Sender address rejected: not owned by user", FailureKind.US),
        ("RCPT", "504 5.5.2 <app>: Helo command rejected: need fully-qualified hostname", FailureKind.US),
        ("RCPT", "503 5.5.1 Error: authenticate first", FailureKind.US),
        ("FINAL", "554 5.7.0 Your limit is used up, try again later", FailureKind.STANDING),
        ("FINAL", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", FailureKind.STANDING),
        ("FINAL", "552 5.2.3 Your relay quota is used up", FailureKind.STANDING),
        ("FINAL", "554 Message rejected: Email address is not verified.", FailureKind.STANDING),
    ],
)
async def test_a_refusal_that_speaks_of_us_buries_no_mail(
    workers: WorkerMaker, stage: str, words: str, how: FailureKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty of three hundred are sent, the others wait; one mail at a time probes; then all are sent."""
    for name in ("STANDING_BACKOFF", "LOGIN_BACKOFF", "DOUBTFUL_BACKOFF"):
        monkeypatch.setattr(breaker, name, BackOff(0.2, 0.2))
    async with open_limited_relay(InAll(50, stage, words)) as relay:
        reporter = workers.make(workers.options(relay.port), is_burst=False)
        await workers.push(*map(job_bytes, range(300)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                await workers.wait_until(lambda: bool(troubles(workers)))
                refused = relay.refused.total()
                await relay.wait_for_refusals(refused + 3)
                after = await counted(workers.client)
                assert (after.dead, after.held) == (0, 0)
                assert len(relay.accepted) == 50
                # Those that were under way, and one for each probe.
                assert relay.refused.total() <= 10 + 10
                relay.policy = take_all
                await relay.wait_for(300)
            reporter.worker.drain("seen")

    assert troubles(workers) == {how}
    assert len(relay.accepted) == 300
    assert not became(workers, Disposition.DEAD)


async def test_words_that_no_table_has_bury_no_queue(workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine mails are dead, the next ones held, and the breaker is open, by a name of its own."""
    monkeypatch.setattr(breaker, "LOGIN_BACKOFF", BackOff(0.2, 0.2))
    async with open_limited_relay(InAll(0, "FINAL", "554 5.7.1 Computer says no (4XyzAb12C)")) as relay:
        reporter = workers.make(workers.options(relay.port), is_burst=False)
        await workers.push(*map(job_bytes, range(40)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                await workers.wait_until(lambda: bool(troubles(workers)))
                await workers.wait_until(lambda: len(became(workers, Disposition.HELD)) >= 2)
                relay.policy = take_all
                ends = (Disposition.SENT, Disposition.DEAD, Disposition.HELD)
                await workers.wait_until(lambda: sum(len(became(workers, end)) for end in ends) == 40)
            reporter.worker.drain("seen")
            await workers.wait_until(lambda: not len(reporter.worker.in_flight))
        held = await read_shelf(workers.client, "jobs", "held", 100)

    assert troubles(workers) == {FailureKind.GUARD}
    assert isinstance(held, list)
    assert {job.cause.word for job in held} == {"standing?"}
    assert (await counted(workers.client)).dead == 9


async def test_one_address_that_the_relay_refuses_stops_no_other_mail(workers: WorkerMaker) -> None:
    """Due jobs come first, so it would be every probe; it is delayed, and dead when its attempts are used up."""
    async with open_limited_relay() as relay:
        retry = RetryPolicy(max_attempts=3, base_seconds=0.05, cap_seconds=0.1)
        reporter = workers.make(workers.options(relay.port, retry=retry), is_burst=False)
        await workers.push(job_bytes(0, "bad@example.net"), *map(job_bytes, range(1, 21)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(30):
                await relay.wait_for(20)
                await workers.wait_until(lambda: bool(became(workers, Disposition.DEAD)))
            reporter.worker.drain("seen")

    assert troubles(workers) == set()
    assert len(became(workers, Disposition.DELAYED)) == 2
    (dead,) = became(workers, Disposition.DEAD)
    assert dead.cause is not None
    assert dead.cause.word == "exhausted"


async def test_a_relay_of_three_connections_gets_three(workers: WorkerMaker) -> None:
    """It says so at the end of each mail on a further one; those are closed, and no mail pays for it."""
    words = "432 4.3.2 Concurrent connections limit exceeded"

    async with open_limited_relay(reply_seconds=0.01) as relay:
        relay.policy = lambda stage, number: words if stage == "FINAL" and is_fourth(relay, number) else ""
        reporter = workers.make(workers.options(relay.port), is_burst=True)
        await workers.push(*map(job_bytes, range(60)))
        with trio.fail_after(30):
            await reporter.run()

    assert len(relay.accepted) == 60
    assert troubles(workers) == set()
    assert not became(workers, Disposition.DELAYED)
    assert relay.refused.total() <= 30


def is_fourth(relay: LimitedRelay, number: int) -> bool:
    return sorted(relay.open_connections).index(number) >= 3


@pytest.mark.parametrize("max_size", [1, 10])
async def test_one_mail_that_always_meets_a_limit_on_connections_stops_nobody(
    workers: WorkerMaker, max_size: int
) -> None:
    """Its words are about it alone: after some times they close no further connection, and stop no claims."""
    words = "432 4.3.2 Concurrent connections limit exceeded"
    async with open_limited_relay() as relay:
        relay.policy = lambda stage, number: (
            words if stage == "FINAL" and b"odd@" in relay.last_recipient[number] else ""
        )
        options = workers.options(relay.port, pool=PoolOptions(max_size=max_size, min_idle=0))
        reporter = workers.make(options, is_burst=False)
        await workers.push(job_bytes(0, "odd@example.com"), *map(job_bytes, range(1, 100)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                await relay.wait_for(99)
                await relay.wait_for_refusals(15)
                suspension = reporter.worker.pool.suspension if reporter.worker.pool is not None else None
            reporter.worker.drain("seen")

    assert suspension is None or suspension.places <= 6
    opened = [
        event for event in workers.events if isinstance(event, BreakerChanged) and isinstance(event.breaker, Open)
    ]
    assert len(opened) <= 2


async def test_a_relay_that_leaves_no_connection_is_probed(workers: WorkerMaker) -> None:
    """Others use up its limit: claims stop, by the name of the limit, and go on when there is room."""
    words = "432 4.3.2 Concurrent connections limit exceeded"
    async with open_limited_relay(lambda stage, _: words if stage == "FINAL" else "") as relay:
        options = workers.options(relay.port, pool=PoolOptions(max_size=3, min_idle=0))
        reporter = workers.make(options, is_burst=False)
        await workers.push(*map(job_bytes, range(12)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(30):
                await workers.wait_until(lambda: bool(troubles(workers)))
                relay.policy = take_all
                await relay.wait_for(12)
            reporter.worker.drain("seen")

    assert troubles(workers) == {FailureKind.CONCURRENCY}
    assert not became(workers, Disposition.DEAD)


async def test_a_relay_of_fourteen_mails_a_second_gets_nearly_fourteen(workers: WorkerMaker) -> None:
    """Few are refused, none pays for it, and the breaker stays closed: it is no trouble."""
    async with open_limited_relay(PerSecond(14, "454 Throttling failure: Maximum sending rate exceeded.")) as relay:
        reporter = workers.make(workers.options(relay.port, number_workers=2), is_burst=False)
        await workers.push(*map(job_bytes, range(100)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(30):
                await relay.wait_for(70)
            reporter.worker.drain("seen")

    assert troubles(workers) == set()
    assert any(isinstance(event, RateLimited) for event in workers.events)
    assert not became(workers, Disposition.DELAYED)
    assert relay.refused.total() <= 8


async def test_a_login_that_the_relay_wants_in_mid_session_is_probed_when_it_comes(
    workers: WorkerMaker,
) -> None:
    """530 speaks of us, and another login may end it; the same one does not."""
    async with open_limited_relay(
        lambda stage, _: "530 5.7.0 Authentication required" if stage == "MAIL" else ""
    ) as relay:
        reporter = workers.make(workers.options(relay.port, number_workers=1), is_burst=False)
        await workers.push(job_bytes())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(30):
                await workers.wait_until(lambda: reporter.worker.is_login_refused)
                relay.policy = take_all
                tried = relay.refused.total()
                reporter.worker.use_login("", "")
                assert relay.refused.total() == tried
            reporter.worker.drain("seen")

    assert troubles(workers) == {FailureKind.US}
