"""The whole path in one process: jobs in a real or a fake Redis, a worker, the strict catcher."""

from __future__ import annotations

import json
from collections import Counter
from contextvars import Context

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker, relay_at
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.cli.status import Health, health_of
from trio_worker.fleet.report import Reporter
from trio_worker.fleet.watch import Watch
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import read_shelf
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause, Record, ShelvedJob
from trio_worker.queue.settlement import Release, Settlement
from trio_worker.redis.client import RedisClient
from trio_worker.redis.scripts import TRIAL
from trio_worker.smtp.backoff import BackOff
from trio_worker.smtp.events import ConnectionOpened
from trio_worker.smtp.options import PoolOptions
from trio_worker.telemetry.alerts import Severity, alerts
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.worker import breaker
from trio_worker.worker.breaker import Open
from trio_worker.worker.events import BreakerChanged, Claimed, Event, Settled, SettledJob
from trio_worker.worker.options import RetryPolicy, ShutdownOptions
from trio_worker.worker.phase import Disposition


async def run(reporter: Reporter, seconds: float = 60.0) -> int:
    with trio.fail_after(seconds):
        code = await reporter.run()
    assert reporter.board.ledger.balances, str(reporter.board.ledger)
    return code


async def counts(client: RedisClient) -> Counts:
    counted = await count_jobs(client, "jobs")
    assert isinstance(counted, Counts)
    assert counted.balances
    assert [stray async for stray in find_strays(client, "jobs")] == []
    return counted


async def dead(client: RedisClient) -> list[ShelvedJob]:
    found = await read_shelf(client, "jobs", "dead", 1000, with_bodies=True)
    assert isinstance(found, list)
    return found


def recipients(catcher: Catcher) -> Counter[str]:
    return Counter(recipient for mail in catcher.mails for recipient in mail.recipients)


def settled(workers: WorkerMaker, disposition: Disposition) -> list[SettledJob]:
    return [job for job in workers.jobs if job.disposition is disposition]


async def test_every_pushed_job_becomes_one_mail(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """A hundred jobs, a hundred mails, each once, over at most ten connections; then the burst is over."""
    await any_workers.push(*(job_bytes(number) for number in range(100)))
    reporter = any_workers.make(any_workers.options(catcher.port))

    assert await run(reporter) == 0

    assert catcher.total == 100
    assert set(recipients(catcher).values()) == {1}
    assert catcher.connections_opened <= 10
    after = await counts(any_workers.client)
    assert (after.waiting, after.known) == (0, 0)
    assert reporter.board.ledger.settled == {Disposition.SENT: 100}


async def test_no_more_jobs_are_at_work_than_may_be(workers: WorkerMaker, catcher: Catcher) -> None:
    """Jobs that only wait for their settlement are in hand too, but not at work."""
    await workers.push(*(job_bytes(number) for number in range(100)))
    reporter = workers.make(workers.options(catcher.port))
    seen: list[Snapshot] = []
    reporter.worker.sinks = [*reporter.worker.sinks, lambda _: seen.append(reporter.snapshot())]

    await run(reporter)

    assert all(each.at_work <= min(each.at_work_limit, each.in_hand) for each in seen)
    assert all(each.busy_consumers is not None and each.busy_consumers <= each.number_workers for each in seen)
    assert any(each.busy_consumers == each.number_workers for each in seen)
    assert any(each.at_work < each.in_hand for each in seen)


async def test_a_waiting_worker_sends_a_job_when_it_is_pushed(workers: WorkerMaker, catcher: Catcher) -> None:
    """It waits in Redis, not by polling, and a drain ends the wait at once."""
    doings: list[str] = []
    workers.client.on_call = lambda doing, _seconds, _unavailable: doings.append(doing)
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(30):
            await catcher.wait_until(lambda: catcher.connections_opened == 2)
            await workers.push(job_bytes())
            await catcher.wait_for_mails(1)
            reporter.worker.drain("the test is over")

    # A start asks twice for its permissions, and once for the durability of Redis.
    assert doings.count(TRIAL) == 2
    assert not {"CONFIG", "INFO"} & set(doings)
    assert workers.client.calls - 2 < 15


async def test_a_worker_that_has_taken_all_there_was_waits_and_does_not_claim_again(
    workers: WorkerMaker, catcher: Catcher
) -> None:
    """A mail to an idle worker costs the end of a wait, a claim and a settlement."""
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    done: list[str] = []
    is_settled = trio.Event()

    def note(event: Event) -> None:
        if isinstance(event, Claimed):
            done.clear()
        elif isinstance(event, Settled):
            is_settled.set()

    reporter.worker.sinks = [*reporter.worker.sinks, note]
    workers.client.on_call = lambda doing, *_: done.append(doing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(30):
            await workers.push(job_bytes())
            await is_settled.wait()
            reporter.worker.drain("the test is over")

    assert "settle" in done
    assert "claim" not in done


BAD_JOBS = {
    "not_utf8": b"\xff\xfe{}",
    "not_json": b'{"task_type": "Email", ',
    "not_a_job": b"[" * 64 + b"]" * 64,
    "unknown_type": b'{"task_type":"Email","data":{"email_type":"Nonsense","data":{}}}',
    "bad_field": b'{"task_type":"Email","data":{"email_type":"Registration","data":{"email":"a@b.example"}}}',
    "too_large": b'{"task_type":"' + b"x" * 1_100_000 + b'"}',
}


@pytest.mark.case("D1")
async def test_bad_jobs_die_with_a_reason_and_their_bytes_and_disturb_nobody(
    any_workers: WorkerMaker, catcher: Catcher
) -> None:
    """Three hundred good jobs among six bad ones: three hundred mails, six dead letters."""
    jobs = [job_bytes(number) for number in range(300)]
    for place, bad in enumerate(BAD_JOBS.values()):
        jobs.insert(place * 50, bad)
    await any_workers.push(*jobs)

    assert await run(any_workers.make(any_workers.options(catcher.port))) == 0

    assert catcher.total == 300
    letters = await dead(any_workers.client)
    assert {job.cause.word: job.body for job in letters} == BAD_JOBS
    # What names a type of ours keeps it, so that its producer can be found; any other word is not repeated.
    assert {job.cause.word for job in letters if job.record.email_type} == {"bad_field"}


def _registration(email: object, **more: object) -> bytes:
    fields = {"email": email, "username": "ann", "token": "abc", **more}
    return json.dumps({"task_type": "Email", "data": {"email_type": "Registration", "data": fields}}).encode()


@pytest.mark.case("C28")
@pytest.mark.parametrize("bad", [
    b"[" * 100_000,
    b'{"task_type":"Email","data":{"n":' + b"9" * 5000 + b"}}",
    b'{"task_type":"Email","data":NaN}',
    b'{"task_type":"Email","task_type":"Email","data":{}}',
    rb'{"task_type":"Email","data":{"email_type":"\ud800","data":{}}}',
    b"\xef\xbb\xbf{}", b"true", b"", b"{} {}", "{}".encode("utf-16"),
    _registration("a@b.example, c@d.example"),
    _registration("a@b.example\r\nDATA"),
    _registration("a@b.example\x00"),
    _registration("a@b.example", username="x\r\nBcc: c@d.example"),
    _registration(["a@b.example"]), _registration(7), _registration(None), _registration(""),
], ids=lambda bad: bytes(bad[:40]).hex()[:20])  # fmt: skip
async def test_a_bad_job_reaches_nobody(workers: WorkerMaker, catcher: Catcher, bad: bytes) -> None:
    """It is dead with its original bytes; no connection has heard of it, the job behind it is sent."""
    await workers.push(bad, job_bytes(1))

    assert await run(workers.make(workers.options(catcher.port))) == 0

    assert recipients(catcher) == {"user1@example.com": 1}
    (letter,) = await dead(workers.client)
    assert letter.body == bad
    assert letter.cause.text


@pytest.mark.case("C16")
async def test_mails_refused_for_now_are_sent_later(workers: WorkerMaker, catcher: Catcher) -> None:
    """Each is tried again until it goes through, with the Message-ID of its first attempt."""
    catcher.faults = faults("rcpt=451:first20")
    await workers.push(*(job_bytes(number) for number in range(30)))
    first = workers.make(workers.options(catcher.port))
    await run(first)
    assert first.board.ledger.settled[Disposition.DELAYED] > 0
    reporter = workers.make(workers.options(catcher.port), is_burst=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(30):
            await catcher.wait_for_mails(30)
        reporter.worker.drain("all sent")

    assert set(recipients(catcher).values()) == {1}
    assert (await counts(workers.client)).known == 0


@pytest.mark.case("C9", "C19")
async def test_a_mail_refused_for_good_is_dead_with_the_relays_words(workers: WorkerMaker, catcher: Catcher) -> None:
    """Code, stage and text are kept; the other recipient is not affected."""
    await workers.push(job_bytes(email="rcpt-550@example.com"), job_bytes(1))
    await run(workers.make(workers.options(catcher.port)))

    (letter,) = await dead(workers.client)
    assert (letter.cause.word, letter.cause.codes[:3], letter.cause.stage) == ("refused", "550", "rcpt")
    assert catcher.total == 1


@pytest.mark.case("C17")
async def test_of_two_recipients_each_gets_the_mail_once(workers: WorkerMaker, catcher: Catcher) -> None:
    """The one refused for now is tried again alone."""
    catcher.faults = faults("rcpt=452:first1")
    message = {"to": ["a@example.org", "b@example.org"], "subject": "hi", "text": "hello"}
    await workers.push(json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": message}}).encode())
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(30):
            await catcher.wait_for_mails(2)
        reporter.worker.drain("all sent")

    assert recipients(catcher) == {"a@example.org": 1, "b@example.org": 1}


@pytest.mark.case("C14", "C26")
async def test_a_relay_that_closes_after_every_five_mails_costs_no_attempt(
    workers: WorkerMaker, catcher: Catcher
) -> None:
    """All mails are sent on their first attempt, and claiming never stops."""
    catcher.faults = faults("mail=421:after5")
    await workers.push(*(job_bytes(number) for number in range(300)))
    await run(workers.make(workers.options(catcher.port)))

    assert set(recipients(catcher).values()) == {1}
    assert catcher.total == 300
    assert {event.attempt for event in settled(workers, Disposition.SENT)} == {1}
    assert not any(isinstance(event, BreakerChanged) for event in workers.events)


@pytest.mark.case("C20")
async def test_a_refused_login_stops_claiming_and_sending_resumes_by_itself(
    workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job dies, no attempt is spent, and the relay sees one login per back-off."""
    monkeypatch.setattr(breaker, "LOGIN_BACKOFF", BackOff(0.1, 0.4))
    async with open_catcher(credentials=("u", "p"), faults=faults("auth=535:first3")) as catcher:
        relay = relay_at(catcher.port, username="u", password="p")
        await workers.push(*(job_bytes(number) for number in range(20)))
        await run(workers.make(workers.options(catcher.port, relay=relay)))

        assert catcher.total == 20
        assert catcher.logins_tried == 3 + logins_that_worked(workers)
    opened = [event.breaker for event in workers.events if isinstance(event, BreakerChanged)]
    assert sum(isinstance(each, Open) for each in opened) == 3
    assert {event.attempt for event in settled(workers, Disposition.SENT)} == {1}
    claims_while_closed = [job for event in workers.events if isinstance(event, Claimed) for job in event.jobs]
    assert len(claims_while_closed) == 20 + len(settled(workers, Disposition.RELEASED))
    assert len(settled(workers, Disposition.RELEASED)) <= 10 + 2


def logins_that_worked(workers: WorkerMaker) -> int:
    return sum(isinstance(event, ConnectionOpened) for event in workers.events)


@pytest.mark.case("C20")
async def test_a_login_that_is_refused_before_any_job_came_stops_claiming(workers: WorkerMaker) -> None:
    """The connection that the pool keeps ready is evidence too: a job pushed later is not even claimed."""
    async with open_catcher(credentials=("u", "p"), faults=faults("auth=535")) as catcher:
        relay = relay_at(catcher.port, username="u", password="p")
        reporter = workers.make(workers.options(catcher.port, relay=relay), is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await workers.wait_until(lambda: any(isinstance(event, BreakerChanged) for event in workers.events))
            await workers.push(job_bytes())
            # Long enough for a claim that is wrongly made to be seen; the right one has nothing to be waited for.
            with trio.move_on_after(0.3):
                await workers.wait_until(lambda: any(isinstance(event, Claimed) for event in workers.events))
            reporter.worker.drain("seen enough")

        assert catcher.logins_tried == 1
    assert (await counts(workers.client)).waiting == 1


async def test_a_login_that_was_mended_is_tried_at_once(workers: WorkerMaker) -> None:
    """Mail does not wait for the rest of a back-off of a minute; the same wrong login is not tried again."""
    async with open_catcher(credentials=("u", "right")) as catcher:
        relay = relay_at(catcher.port, username="u", password="wrong")
        reporter = workers.make(workers.options(catcher.port, relay=relay), is_burst=False)
        await workers.push(job_bytes())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await workers.wait_until(lambda: reporter.worker.is_login_refused)
                reporter.worker.use_login("u", "wrong")
                assert reporter.worker.is_login_refused
                reporter.worker.use_login("u", "right")
                await catcher.wait_for_mails(1)
            reporter.worker.drain("seen")

        assert {event.attempt for event in settled(workers, Disposition.SENT)} == {1}


async def test_a_reply_on_an_open_session_refuses_no_login(workers: WorkerMaker) -> None:
    """The secret is read again while the login is refused: the same one is no reason for a probe before its time."""
    async with open_catcher(credentials=("u", "p"), faults=faults("final=454-4.7.0-Temporary")) as catcher:
        relay = relay_at(catcher.port, username="u", password="p")
        reporter = workers.make(workers.options(catcher.port, relay=relay, number_workers=1), is_burst=False)
        await workers.push(*map(job_bytes, range(20)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await workers.wait_until(lambda: reporter.worker.is_login_refused)
                sent = str(catcher.commands).count("BDAT")
                for _ in range(5):
                    reporter.worker.use_login("u", "p")
                    await trio.testing.wait_all_tasks_blocked(0.05)
                assert str(catcher.commands).count("BDAT") == sent
                catcher.faults = faults("")
                reporter.worker.use_login("u", "another")  # a changed one is tried at once
                await catcher.wait_for_mails(1)
            reporter.worker.drain("seen")


async def test_a_login_that_changes_while_the_old_one_is_refused_is_tried(workers: WorkerMaker) -> None:
    """The refusal of a login that is not used any more opens no breaker."""
    async with open_catcher(credentials=("u", "right"), faults=faults("auth=delay-200ms")) as catcher:
        relay = relay_at(catcher.port, username="u", password="wrong")
        reporter = workers.make(workers.options(catcher.port, relay=relay, number_workers=1), is_burst=False)
        await workers.push(job_bytes())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await catcher.wait_until(lambda: "AUTH" in str(catcher.commands))
                reporter.worker.use_login("u", "right")
                await catcher.wait_for_mails(1)
            reporter.worker.drain("seen")

    assert not [event for event in workers.events if isinstance(event, BreakerChanged)]


@pytest.mark.case("C20")
async def test_a_login_refused_beside_working_connections_is_told_and_a_mended_one_is_tried_at_once(
    workers: WorkerMaker,
) -> None:
    """Two connections go on; the others are suspended, in the relay's words, until the secret is the right one."""
    async with open_catcher(credentials=("u", "old")) as catcher:
        relay = relay_at(catcher.port, username="u", password="old")
        reporter = workers.make(workers.options(catcher.port, relay=relay), is_burst=False)
        watch = Watch(workers.client, "jobs", "redis", clock=trio.current_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(20):
                await workers.wait_until(lambda: logins_that_worked(workers) == 2)
                catcher.profile = evolve(catcher.profile, credentials=("u", "new"))
                catcher.faults = faults("final=delay-100ms")
                await workers.push(*(job_bytes(number) for number in range(300)))
                while watch.snapshot().suspended is None:
                    await trio.sleep(0.1)
                    assert await watch.poll() is None
                tried = catcher.logins_tried
                reporter.worker.use_login("u", "old")  # what was refused is not tried again

                for seen in (reporter.snapshot(), watch.snapshot()):
                    assert seen.suspended is not None
                    assert (seen.suspended.count, seen.suspended.how) == (8, "login")
                    (alert,) = alerts(seen)
                    assert (alert.word, alert.severity) == ("SUSPENDED", Severity.TROUBLE)
                    assert alert.text.endswith("more: refuses the login with 535 5.7.8 (Wrong user or password)")
                assert watch.polls.last is not None
                assert health_of(watch.polls.last.counts, watch.snapshot(), []) is Health.DEGRADED

                reporter.worker.use_login("u", "new")
                assert reporter.snapshot().suspended is None
                await workers.wait_until(lambda: logins_that_worked(workers) == 10)
                await catcher.wait_for_mails(300)
            reporter.worker.drain("all sent")

        assert catcher.logins_tried == tried + 8
    assert not any(isinstance(event, BreakerChanged) for event in workers.events)
    assert {event.attempt for event in settled(workers, Disposition.SENT)} == {1}


@pytest.mark.case("C1")
async def test_a_burst_gives_up_on_a_relay_that_stays_away(workers: WorkerMaker) -> None:
    """After the grace it ends with 69; every job is back in the queue."""
    await workers.push(job_bytes())
    options = workers.options(1, shutdown=ShutdownOptions(grace_seconds=0.5))

    assert await run(workers.make(options)) == 69
    after = await counts(workers.client)
    assert after.waiting + after.delayed == 1


async def test_a_burst_on_a_paused_queue_ends_with_75(workers: WorkerMaker, catcher: Catcher) -> None:
    """A pause is not an empty queue."""
    await workers.push(job_bytes())
    await workers.client.command("SET", "{jobs}:pause", "maintenance")

    assert await run(workers.make(workers.options(catcher.port))) == 75


@pytest.mark.case("B2", "B3")
async def test_a_drain_finishes_what_is_in_flight_and_releases_the_rest(workers: WorkerMaker) -> None:
    """In the middle of 200 jobs at a slow relay: out in time, nothing sent twice, a second run sends the rest."""
    async with open_catcher(faults=faults("every=delay-50ms")) as catcher:
        await workers.push(*(job_bytes(number) for number in range(200)))
        reporter = workers.make(workers.options(catcher.port), is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await catcher.wait_for_mails(60)
            reporter.worker.drain("SIGTERM")
        sent = reporter.board.ledger.settled[Disposition.SENT]
        assert sent == catcher.total < 200
        after = await counts(workers.client)
        assert after.waiting + after.delayed == 200 - sent

        await run(workers.make(workers.options(catcher.port)))

        assert catcher.total == 200
        assert set(recipients(catcher).values()) == {1}


@pytest.mark.case("B4")
async def test_a_mail_whose_final_reply_never_comes_is_uncertain_when_the_grace_ends(workers: WorkerMaker) -> None:
    """The worker leaves on time; the mail is delayed, counted, and keeps its Message-ID."""
    async with open_catcher(faults=faults("final=stall")) as catcher:
        await workers.push(job_bytes())
        options = workers.options(catcher.port, shutdown=ShutdownOptions(grace_seconds=0.3))
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter, 30.0)
            with trio.fail_after(30):
                await catcher.wait_until(lambda: "BDAT" in str(catcher.commands))
            began = trio.current_time()
            reporter.worker.drain("SIGTERM")
        assert trio.current_time() - began < 15

    assert reporter.board.ledger.uncertain == 1
    assert reporter.board.ledger.settled == {Disposition.DELAYED: 1}


async def test_consumers_that_a_signal_starts_can_open_connections(workers: WorkerMaker) -> None:
    """Signals are received outside of the asyncio loop, and a task starts in the context of its starter."""
    async with open_catcher(faults=faults("final=delay-100ms")) as catcher:
        options = workers.options(catcher.port, number_workers=1, pool=PoolOptions(min_idle=0))  # none is opened ahead
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(20):
                await workers.push(*(job_bytes(number) for number in range(10)))
                await catcher.wait_for_mails(1)
                Context().run(reporter.worker.use_limits, 5, options.queue, options.pool, options.retry)
                await catcher.wait_for_mails(10)
            reporter.worker.drain("all sent")

    assert catcher.connections_opened == 5


async def test_a_drain_gives_back_at_once_what_no_consumer_has_begun(workers: WorkerMaker) -> None:
    """Another worker need not wait for our grace to end because all of our consumers wait for the relay."""
    async with open_catcher(faults=faults("final=stall")) as catcher:
        options = workers.options(
            catcher.port, number_workers=1, pool=PoolOptions(pipeline_depth=8), shutdown=ShutdownOptions(300)
        )
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(20):
                await workers.push(job_bytes())
                await catcher.wait_until(lambda: "BDAT" in str(catcher.commands))
                await workers.push(*(job_bytes(number) for number in range(1, 8)))
                await workers.wait_until(lambda: reporter.board.ledger.claimed == 8)
                reporter.worker.drain("SIGTERM")
                await workers.wait_until(lambda: len(settled(workers, Disposition.RELEASED)) == 7)
            reporter.worker.hurry()

    assert reporter.board.ledger.uncertain == 1


async def test_a_hurried_drain_shortens_the_grace(workers: WorkerMaker) -> None:
    """The second signal does not wait for a grace of minutes."""
    async with open_catcher(faults=faults("final=stall")) as catcher:
        await workers.push(job_bytes())
        options = workers.options(catcher.port, shutdown=ShutdownOptions(grace_seconds=300))
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter, 30.0)
            with trio.fail_after(30):
                await catcher.wait_until(lambda: "BDAT" in str(catcher.commands))
            reporter.worker.drain("SIGTERM")
            reporter.worker.hurry()

    assert reporter.board.ledger.uncertain == 1


async def test_a_type_that_is_held_when_uncertain_goes_to_held(workers: WorkerMaker) -> None:
    """mail.on_uncertain = hold: a human decides, nothing is sent twice."""
    async with open_catcher(faults=faults("final=accept-drop")) as catcher:
        await workers.push(job_bytes())
        options = workers.options(catcher.port)
        await run(workers.make(evolve(options, mail=evolve(options.mail, on_uncertain="hold"))))

        assert catcher.total == 1
    assert (await counts(workers.client)).held == 1
    assert [event.is_uncertain for event in settled(workers, Disposition.HELD)] == [True]


@pytest.mark.case("A1")
async def test_a_crashed_workers_jobs_are_sent_by_another(workers: WorkerMaker, catcher: Catcher) -> None:
    """When its leases have run out; each recovered lease counts one uncertain."""
    await workers.push(*(job_bytes(number) for number in range(10)))
    short = workers.options(catcher.port, queue=QueueOptions(lease_seconds=1.0))
    crashed = workers.make(short)
    await crashed.worker.broker.claim(10)

    reporter = workers.make(short)
    await run(reporter)

    assert catcher.total == 10
    assert (reporter.board.ledger.recovered, reporter.board.ledger.uncertain) == (10, 10)


async def test_leases_are_renewed_while_a_mail_takes_longer_than_one(workers: WorkerMaker) -> None:
    """A slow relay does not make another worker take the job over."""
    async with open_catcher(faults=faults("final=delay-2500ms")) as catcher:
        await workers.push(job_bytes())
        options = workers.options(catcher.port, queue=QueueOptions(lease_seconds=1.0))
        first, second = workers.make(options), workers.make(options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, first)
            nursery.start_soon(run, second)

        assert catcher.total == 1
    assert first.board.ledger.recovered + second.board.ledger.recovered == 0


async def test_two_workers_share_one_queue(workers: WorkerMaker, catcher: Catcher) -> None:
    """Every job goes to exactly one of them."""
    await workers.push(*(job_bytes(number) for number in range(300)))
    first, second = workers.make(workers.options(catcher.port)), workers.make(workers.options(catcher.port))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, first)
        nursery.start_soon(run, second)

    assert set(recipients(catcher).values()) == {1}
    assert catcher.total == 300
    assert first.board.ledger.claimed + second.board.ledger.claimed == 300


@pytest.mark.case("A8")
async def test_jobs_come_back_when_redis_forgets_the_scripts(workers: WorkerMaker, catcher: Catcher) -> None:
    """A flush of all scripts in the middle is not noticed."""
    await workers.push(*(job_bytes(number) for number in range(100)))
    reporter = workers.make(workers.options(catcher.port))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        for _ in range(20):
            await workers.client.command("SCRIPT", "FLUSH")

    assert catcher.total == 100


@pytest.mark.case("A21")
async def test_killed_redis_connections_lose_nothing(workers: WorkerMaker, catcher: Catcher) -> None:
    """Replies are lost with them: claims are left to their leases, settlements are repeated."""
    await workers.push(*(job_bytes(number) for number in range(200)))
    reporter = workers.make(workers.options(catcher.port, queue=QueueOptions(lease_seconds=1.0)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        for _ in range(10):
            await workers.client.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
            await trio.sleep(0.01)

    assert len(recipients(catcher)) == 200
    assert catcher.total - 200 <= reporter.board.ledger.uncertain
    assert (await counts(workers.client)).known == 0


async def test_a_job_outside_smtp_only_to_reaches_nobody(workers: WorkerMaker, catcher: Catcher) -> None:
    """The expression must match the whole address."""
    options = workers.options(catcher.port)
    relay = evolve(options.relay, options=evolve(options.relay.options, only_to=r".*@allowed\.example"))
    await workers.push(job_bytes(email="a@allowed.example"), job_bytes(email="a@allowed.example.org"))
    await run(workers.make(evolve(options, relay=relay)))

    assert recipients(catcher) == {"a@allowed.example": 1}
    assert [job.cause.word for job in await dead(workers.client)] == ["not_allowed"]


async def test_jobs_before_their_time_wait_and_jobs_past_it_die(workers: WorkerMaker, catcher: Catcher) -> None:
    """not_before and expires_at of the envelope."""
    await workers.push(
        job_bytes(1, not_before="2999-01-01T00:00:00Z"), job_bytes(2, expires_at="2001-01-01T00:00:00Z"), job_bytes(3)
    )
    await run(workers.make(workers.options(catcher.port)))

    assert recipients(catcher) == {"user3@example.com": 1}
    after = await counts(workers.client)
    assert (after.delayed, after.dead) == (1, 1)


async def test_a_mail_is_dead_when_its_attempts_are_used_up(workers: WorkerMaker, catcher: Catcher) -> None:
    """The last refusal is its reason, and its timeline names every attempt."""
    catcher.faults = faults("final=451")
    await workers.push(job_bytes())
    options = workers.options(catcher.port, retry=RetryPolicy(max_attempts=3, base_seconds=0.01, cap_seconds=0.01))
    reporter = workers.make(options, is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(30):
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.DEAD] == 1)
        reporter.worker.drain("done")

    (letter,) = await dead(workers.client)
    assert (letter.cause.word, letter.record.attempts, len(letter.record.timeline)) == ("deferred", 3, 3)
    assert [said.at for said in letter.record.said] == [attempt.at for attempt in letter.record.timeline]
    assert all(said.text and said.connection is not None and said.seconds is not None for said in letter.record.said)


@pytest.mark.parametrize("text", ["mail=554:first2", "mail=drop:first2"])
async def test_one_mail_that_the_relay_cannot_bear_does_not_stop_the_others(workers: WorkerMaker, text: str) -> None:
    """It is the first to probe, and then another one is: all others are sent while it waits."""
    await workers.push(*(job_bytes(number) for number in range(10)))
    async with open_catcher(faults=faults(text)) as catcher:
        options = workers.options(
            catcher.port, number_workers=1, retry=RetryPolicy(base_seconds=1000, cap_seconds=1000)
        )
        reporter = workers.make(options, is_burst=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(60):
                await catcher.wait_for_mails(9)
            reporter.worker.drain("the test")
        after = await count_jobs(workers.client, "jobs")
    assert isinstance(after, Counts)
    assert after.delayed == 1
    assert reporter.board.ledger.settled[Disposition.DEAD] == 0


def message_ids(catcher: Catcher) -> list[bytes]:
    return [mail.content.partition(b"Message-ID: ")[2].partition(b"\r\n")[0] for mail in catcher.mails]


async def test_a_job_that_comes_back_into_the_list_keeps_its_message_id(
    any_workers: WorkerMaker, catcher: Catcher
) -> None:
    """Redis may lose the last second of its writes, in which the job was claimed and sent: its producer's id stays.

    Another content under the same id has another one: a mail program would drop the second mail as a copy. Without an
    id nothing tells a job that came back from an equal one.
    """
    ordered, changed, nameless = job_bytes(1, id="order-9"), job_bytes(2, id="order-9"), job_bytes(3)
    for job in (ordered, ordered, changed, nameless, nameless):
        await any_workers.push(job)
        await run(any_workers.make(any_workers.options(catcher.port)))

    first, again, other, plain, plain_again = message_ids(catcher)
    assert first == again
    assert b"order" not in first
    assert len({first, other, plain, plain_again}) == 4


async def test_a_mail_that_is_tried_again_keeps_a_message_id_of_its_producers_id(
    workers: WorkerMaker, catcher: Catcher
) -> None:
    """`job show` and `job find` know it, too."""
    catcher.faults = faults("final=451:first1")
    await workers.push(job_bytes(1, id="order-9"))
    await run(workers.make(workers.options(catcher.port)))
    found = await workers.client.command("HVALS", "{jobs}:record")
    assert isinstance(found, list)
    (record,) = map(json.loads, found)
    with trio.fail_after(30):
        while not catcher.total:
            await run(workers.make(workers.options(catcher.port)))

    assert message_ids(catcher) == [f"<{record['mail_id']}@example.com>".encode()]


async def test_a_mail_of_an_older_version_keeps_its_message_id(workers: WorkerMaker, catcher: Catcher) -> None:
    """Its record says that it was tried, and has no id of the mail: it went out under the job's."""
    await workers.push(job_bytes(1, id="order-9"))
    broker = Broker(workers.client, QueueOptions())
    claims = await broker.claim(1)
    assert isinstance(claims, Claims)
    (claim,) = claims.jobs
    await broker.settle([Settlement(claim, Release(Record(claims.at, "Registration", attempts=1), Cause("x"))).stored])
    await run(workers.make(workers.options(catcher.port)))

    assert message_ids(catcher) == [f"<{claim.job_id}@example.com>".encode()]
