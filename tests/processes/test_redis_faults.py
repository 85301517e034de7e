"""Faults of Redis and of the way to it, each provoked on a real server; numbers are those of docs/reliability.md."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, evolve

from nemesis import Proxy
from proving_ground import Valkey
from tests.support.bridge import Complaints
from tests.support.catcher import times_sent
from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.fleet.report import Reporter
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import read_shelf
from trio_worker.queue.losses import LossSign
from trio_worker.queue.options import QueueOptions
from trio_worker.redis import client as redis_client
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.deadlines import CALL_SECONDS
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.scripts import read_script
from trio_worker.smtp.events import ConnectionOpened
from trio_worker.worker import consumer, delivery
from trio_worker.worker.events import Claimed, DataLost, JobBroke, RedisFailed, RedisRecovered
from trio_worker.worker.options import ShutdownOptions
from trio_worker.worker.phase import Disposition

# Short, so that a claim whose reply was lost is recovered while the test waits.
QUEUE = QueueOptions(lease_seconds=1.0)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, to be stopped, killed and reconfigured."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = Valkey(tmp_path / "valkey", taken.getsockname()[1])
    server.start()
    yield server
    server.signal(signal.SIGCONT)
    server.kill()


@define
class Field:
    """One server behind a proxy, workers on it, and a sync client past the proxy."""

    valkey: Valkey
    proxy: Proxy
    workers: WorkerMaker

    def do(self, *words: Any) -> Any:
        with self.valkey.client() as client:
            return client.execute_command(*words)

    def push(self, count: int) -> None:
        self.do("RPUSH", "jobs", *(job_bytes(number) for number in range(count)))

    def reporter(self, relay: Catcher, **changes: Any) -> Reporter:
        options = evolve(self.workers.options(relay.port), queue=QUEUE, **changes)
        return self.workers.make(options, is_burst=False)


@pytest.fixture
async def field(bridge: Complaints, valkey: Valkey, composer: Composer, catalogue: Catalogue) -> AsyncIterator[Field]:
    """Workers that reach their server through a proxy."""
    proxy = Proxy(valkey.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        url = f"redis://127.0.0.1:{proxy.port}"
        async with open_redis_client(RedisOptions(url=url), 5.0) as client:
            made = Field(valkey, proxy, WorkerMaker(client, composer, catalogue))
            for name in ("claim", "settle", "renew"):
                made.do("SCRIPT", "LOAD", read_script(name).text)
            yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(reporter: Reporter, seconds: float = 90.0) -> AsyncIterator[None]:
    """Run a worker during the block, then drain it; its ledger must balance."""
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            yield
            reporter.worker.drain("the test is over")
    assert reporter.board.ledger.balances, str(reporter.board.ledger)


async def assert_all_sent(field: Field, relay: Catcher, count: int) -> None:
    """Nothing lost, the queue clean and empty, and no more duplicates than were counted."""
    assert set(times_sent(relay)) == {f"user{number}@example.com" for number in range(count)}
    counted = await count_jobs(field.workers.client, "jobs")
    if isinstance(counted, Unavailable):  # the first call after a cut finds its connection broken
        counted = await count_jobs(field.workers.client, "jobs")
    assert isinstance(counted, Counts)
    assert counted.balances
    assert (counted.known, counted.waiting) == (0, 0)
    assert [stray async for stray in find_strays(field.workers.client, "jobs")] == []
    assert sum(times_sent(relay).values()) - count <= counted.uncertain


@pytest.mark.case("A2")
async def test_a_claim_whose_reply_is_lost_strands_no_job(field: Field, catcher: Catcher) -> None:
    """Redis gave the jobs but the reply was lost; when their leases expire they are sent, each once."""
    field.proxy.swallows_replies_to = read_script("claim").digest.encode()
    field.push(20)
    async with running(field.reporter(catcher)):
        with trio.fail_after(60):
            while not field.do("ZCARD", "{jobs}:leased"):  # noqa: ASYNC110  the server is another program
                await trio.sleep(0.01)
        field.proxy.swallows_replies_to = b""
        field.proxy.cut()
        await catcher.wait_for_mails(20)

    assert set(times_sent(catcher).values()) == {1}
    await assert_all_sent(field, catcher, 20)
    assert field.workers.events


@pytest.mark.case("A3")
async def test_a_settlement_whose_reply_is_lost_is_repeated_and_no_mail_goes_twice(
    field: Field, catcher: Catcher
) -> None:
    """The second telling finds the first applied."""
    field.push(10)
    catcher.faults = faults("final=delay-300ms")
    reporter = field.reporter(catcher)
    async with running(reporter):
        await catcher.wait_until(lambda: catcher.connections_opened >= 10)
        field.proxy.swallows_replies_to = read_script("settle").digest.encode()
        await catcher.wait_for_mails(10)
        with trio.fail_after(60):
            while field.do("ZCARD", "{jobs}:leased") == 10:  # noqa: ASYNC110  the server is another program
                await trio.sleep(0.01)
        field.proxy.swallows_replies_to = b""
        field.proxy.cut()
        await field.workers.wait_until(lambda: reporter.board.ledger.settled.total() == reporter.board.ledger.claimed)

    assert reporter.board.ledger.settled[Disposition.SENT] == 10
    assert set(times_sent(catcher).values()) == {1}
    await assert_all_sent(field, catcher, 10)


@pytest.mark.case("A4", "A6")
async def test_a_redis_that_is_killed_and_comes_back_loses_nothing_it_had_answered(
    field: Field, catcher: Catcher
) -> None:
    """Settlements wait in memory, claiming goes on by itself, and no mail goes twice uncounted."""
    catcher.faults = faults("every=delay-10ms")
    field.push(200)
    async with running(field.reporter(catcher)):
        await catcher.wait_for_mails(40)
        field.valkey.kill()
        await field.workers.wait_until(lambda: any(isinstance(event, RedisFailed) for event in field.workers.events))
        await trio.to_thread.run_sync(field.valkey.start)
        with trio.fail_after(60):
            while len(times_sent(catcher)) < 200:
                await catcher.wait_for_mails(catcher.total + 1)
        await field.workers.wait_until(lambda: any(isinstance(event, RedisRecovered) for event in field.workers.events))

    await assert_all_sent(field, catcher, 200)


@pytest.mark.case("A9", "A10")
async def test_a_demotion_is_waited_out(field: Field, catcher: Catcher) -> None:
    """A waiting worker is unblocked, a claim is refused with READONLY; when the server is primary again mails flow."""
    async with running(field.reporter(catcher)):
        field.push(1)
        await catcher.wait_for_mails(1)
        field.do("REPLICAOF", "127.0.0.1", "1")
        await field.workers.wait_until(lambda: any(isinstance(event, RedisFailed) for event in field.workers.events))
        field.do("REPLICAOF", "NO", "ONE")
        field.push(20)
        await catcher.wait_for_mails(21)


REFUSALS = {
    "NOREPLICAS": ("min-replicas-to-write", "1", "0"),
    "MASTERDOWN": ("replica-serve-stale-data", "no", "yes"),
}


@pytest.mark.case("A13")
@pytest.mark.parametrize("state", sorted(REFUSALS))
async def test_a_state_of_redis_that_passes_is_waited_out(state: str, field: Field, catcher: Catcher) -> None:
    """Jobs stay, nothing dies, and the worker goes on by itself."""
    key, wrong, right = REFUSALS[state]
    field.push(30)
    if state == "MASTERDOWN":
        field.do("REPLICAOF", "127.0.0.1", "1")
    field.do("CONFIG", "SET", key, wrong)
    async with running(field.reporter(catcher)):
        await field.workers.wait_until(lambda: any(isinstance(event, RedisFailed) for event in field.workers.events))
        assert catcher.total == 0
        field.do("CONFIG", "SET", key, right)
        field.do("REPLICAOF", "NO", "ONE")
        await catcher.wait_for_mails(30)

    await assert_all_sent(field, catcher, 30)


@pytest.mark.case("A13")
async def test_a_busy_redis_is_waited_out(field: Field, catcher: Catcher) -> None:
    """Somebody's endless script makes every call fail with BUSY until it is killed."""
    field.do("CONFIG", "SET", "busy-reply-threshold", "50")
    field.push(10)
    async with trio.open_nursery() as nursery:

        async def block() -> None:
            def loop() -> None:
                with field.valkey.client() as client:
                    client.connection_pool.connection_kwargs["socket_timeout"] = 30
                    try:
                        client.eval("while true do end", 0)
                    except Exception as error:  # noqa: BLE001  the server kills it, and says so
                        assert "killed" in str(error).lower() or "UNKILLABLE" in str(error)  # noqa: PT017

            await trio.to_thread.run_sync(loop)

        nursery.start_soon(block)
        with trio.fail_after(60):
            while True:
                try:
                    field.do("GET", "x")
                except Exception as error:  # noqa: BLE001  BUSY, which is what is waited for
                    if "BUSY" in str(error):
                        break
                await trio.sleep(0.01)
        async with running(field.reporter(catcher)):
            await field.workers.wait_until(
                lambda: any(isinstance(event, RedisFailed) for event in field.workers.events)
            )
            field.do("SCRIPT", "KILL")
            await catcher.wait_for_mails(10)

    await assert_all_sent(field, catcher, 10)


@pytest.mark.case("A16")
async def test_a_redis_with_no_room_for_clients_is_waited_out(field: Field, catcher: Catcher) -> None:
    """Nobody crashes, nothing is lost."""
    field.push(10)
    with field.valkey.client() as guard:
        guard.execute_command("CONFIG", "SET", "maxclients", "1")
        async with running(field.reporter(catcher)):
            await field.workers.wait_until(
                lambda: any(isinstance(event, RedisFailed) for event in field.workers.events)
            )
            guard.execute_command("CONFIG", "SET", "maxclients", "100")
            await catcher.wait_for_mails(10)

    await assert_all_sent(field, catcher, 10)


@pytest.mark.case("A17")
async def test_a_password_that_is_changed_under_a_worker_is_told_as_such(field: Field, catcher: Catcher) -> None:
    """It keeps trying without haste, and works again with the old one."""
    async with running(field.reporter(catcher)):
        field.push(1)
        await catcher.wait_for_mails(1)
        with field.valkey.client() as guard:
            guard.execute_command("CONFIG", "SET", "requirepass", "other")
            guard.execute_command("AUTH", "other")
            guard.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            field.proxy.cut()
            await field.workers.wait_until(
                lambda: any(
                    isinstance(event, RedisFailed) and ("login refused" in event.reason or "NOAUTH" in event.reason)
                    for event in field.workers.events
                )
            )
            guard.execute_command("RPUSH", "jobs", job_bytes(0))
            guard.execute_command("CONFIG", "SET", "requirepass", "")
            await catcher.wait_for_mails(2)


@pytest.mark.case("A19")
async def test_a_redis_that_is_stopped_is_given_up_and_nothing_is_claimed_twice(
    field: Field, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls end at their deadline; what the server does when it wakes is fenced."""
    monkeypatch.setattr(redis_client, "CALL_SECONDS", 0.5)
    url = f"redis://127.0.0.1:{field.proxy.port}"
    catcher.faults = faults("every=delay-10ms")
    field.push(100)
    async with open_redis_client(RedisOptions(url=url), 1.0) as client:
        hasty = evolve(field, workers=evolve(field.workers, client=client))
        async with running(hasty.reporter(catcher)):
            await catcher.wait_for_mails(20)
            field.valkey.signal(signal.SIGSTOP)
            await hasty.workers.wait_until(
                lambda: any(isinstance(event, RedisFailed) for event in hasty.workers.events)
            )
            field.valkey.signal(signal.SIGCONT)
            with trio.fail_after(60):
                while len(times_sent(catcher)) < 100:
                    await catcher.wait_for_mails(catcher.total + 1)

    await assert_all_sent(field, catcher, 100)


@pytest.mark.case("A19")
async def test_an_idle_worker_leaves_a_redis_that_is_stopped(field: Field, catcher: Catcher) -> None:
    """Before any call has failed: neither the last poll nor the last heartbeat waits for the timeout of a call."""
    options = evolve(field.workers.options(catcher.port), queue=QueueOptions())
    reporter = field.workers.make(options, is_burst=False)
    reporter.poll_seconds = 60.0
    field.push(1)
    async with running(reporter):
        await field.workers.wait_until(lambda: reporter.board.ledger.balances and len(catcher.mails) == 1)
        await trio.testing.wait_all_tasks_blocked(0.1)  # no call is under way
        field.valkey.signal(signal.SIGSTOP)
        began = trio.current_time()
    assert trio.current_time() - began < CALL_SECONDS


@pytest.mark.case("A20")
async def test_a_reply_that_nobody_asked_for_is_no_answer_to_the_next_call(bridge: Complaints) -> None:
    """A connection that holds one is not used again."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            asked.append(bytes(chunk))
            commands = chunk.count(b"\r\n$") and chunk.count(b"*")
            replies = b"".join(b"+OK\r\n" for _ in range(int(commands)))
            is_get = b"GET" in chunk
            # One reply too many after each GET: a stale one that the next call must not take for its own.
            await stream.send_all(b"$4\r\nmine\r\n+stale\r\n" if is_get else replies)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with open_redis_client(RedisOptions(url=f"redis://127.0.0.1:{port}?protocol=2"), 1.0) as client:
            answers = [await client.command("GET", "a") for _ in range(6)]
        nursery.cancel_scope.cancel()

    assert b"stale" not in answers
    assert b"mine" in answers


@pytest.mark.case("A22")
async def test_a_connection_that_swallows_everything_is_given_up_at_the_deadline(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the quarter of an hour that TCP would take."""
    monkeypatch.setattr(redis_client, "CALL_SECONDS", 0.3)
    url = f"redis://127.0.0.1:{field.proxy.port}"
    async with open_redis_client(RedisOptions(url=url), 1.0) as client:
        assert await client.command("SET", "a", "1")
        field.proxy.swallows = True
        began = trio.current_time()
        answer = await client.command("GET", "a")
        assert isinstance(answer, Unavailable)
        assert trio.current_time() - began < 9
        field.proxy.swallows = False
        assert await client.command("GET", "a") == b"1"


@pytest.mark.case("A25")
async def test_the_same_bytes_pushed_twice_are_two_mails(workers: WorkerMaker, catcher: Catcher) -> None:
    """Nothing is taken for a duplicate silently."""
    await workers.push(job_bytes(1), job_bytes(1))
    with trio.fail_after(60):
        await workers.make(workers.options(catcher.port)).run()

    assert times_sent(catcher) == {"user1@example.com": 2}


@pytest.mark.case("A26")
async def test_a_million_due_jobs_are_given_in_bounded_batches(real_redis: RedisClient) -> None:
    """A hundred thousand here: each claim takes no more than it may, and the time of the script stays small."""
    member = [word for number in range(20_000) for word in (1, f"{number:019d}")]
    for chunk in range(5):
        ids = [f"{chunk}{word}" if isinstance(word, str) else word for word in member]
        await real_redis.command("ZADD", "{jobs}:delayed", *ids)
        await real_redis.command("HSET", "{jobs}:body", *(part for job_id in ids[1::2] for part in (str(job_id), b"x")))
    await real_redis.command("CONFIG", "RESETSTAT")
    broker = Broker(real_redis, QueueOptions())
    for _ in range(20):
        claims = await broker.claim(50)
        assert isinstance(claims, Claims)
        assert len(claims.jobs) == 50
    stats = str(await real_redis.command("INFO", "commandstats"))
    assert "evalsha" in stats


@pytest.mark.case("A27")
async def test_a_thousand_ids_without_bytes_do_not_keep_the_others_waiting(real_redis: RedisClient) -> None:
    """They are set aside as dead, and the job behind them is given."""
    planted = [word for number in range(1000) for word in (1, f"garbage{number}")]
    await real_redis.command("ZADD", "{jobs}:leased", *planted)
    await real_redis.command("RPUSH", "jobs", b"real")
    broker = Broker(real_redis, QueueOptions())
    given: list[bytes] = []
    for _ in range(12):
        claims = await broker.claim(100)
        assert isinstance(claims, Claims)
        given += [bytes(job.body) for job in claims.jobs]

    assert given == [b"real"]
    counted = await count_jobs(real_redis, "jobs")
    assert isinstance(counted, Counts)
    assert (counted.dead, counted.leased) == (1000, 1)


@pytest.mark.case("A28")
async def test_dead_letters_are_never_trimmed(real_redis: RedisClient) -> None:
    """Two thousand stay two thousand."""
    broker = Broker(real_redis, QueueOptions(max_job_bytes=1))
    await real_redis.command("RPUSH", "jobs", *[b"too large"] * 2000)
    for _ in range(12):
        await broker.claim(100)
    dead = await read_shelf(real_redis, "jobs", "dead", 5000, with_bodies=True)

    assert isinstance(dead, list)
    assert len(dead) == 2000
    assert {job.body for job in dead} == {b"too large"}


@pytest.mark.case("A29")
async def test_a_redis_that_is_emptied_while_mails_are_sent_does_not_stop_the_worker(
    workers: WorkerMaker, catcher: Catcher
) -> None:
    """They are sent, and told as gone, not as fenced: nobody else has them. Each may go twice, and is counted."""
    catcher.faults = faults("final=delay-300ms")
    await workers.push(*(job_bytes(number) for number in range(5)))
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    async with running(reporter):
        await catcher.wait_until(lambda: catcher.connections_opened >= 5)
        await workers.client.command("FLUSHALL")
        await catcher.wait_for_mails(5)
        await workers.push(job_bytes(7))
        await catcher.wait_for_mails(6)

    ledger = reporter.board.ledger
    gone = ledger.settled[Disposition.GONE]
    assert gone >= 1
    assert ledger.settled[Disposition.FENCED] == 0
    assert ledger.uncertain >= gone
    assert f"{gone} gone" in str(ledger)
    counted = await count_jobs(workers.client, "jobs")
    assert isinstance(counted, Counts)
    assert counted.uncertain == ledger.uncertain
    losses = [event for event in workers.events if isinstance(event, DataLost)]
    assert sum(loss.count for loss in losses if loss.sign is LossSign.GONE) == gone


@pytest.mark.case("A30")
async def test_an_element_larger_than_redis_would_take_from_us_never_loops(field: Field, catcher: Catcher) -> None:
    """It is moved inside Redis: no bytes of it travel back."""
    field.do("RPUSH", "jobs", b"x" * 2_000_000, job_bytes(0))
    field.do("CONFIG", "SET", "proto-max-bulk-len", str(1024 * 1024))
    async with running(field.reporter(catcher)):
        await catcher.wait_for_mails(1)
        with trio.fail_after(60):
            while field.do("ZCARD", "{jobs}:dead") < 1:  # noqa: ASYNC110  the server is another program
                await trio.sleep(0.01)

    dead = await read_shelf(field.workers.client, "jobs", "dead", 5, with_bodies=True)
    assert isinstance(dead, list)
    assert [(job.cause.word, len(job.body)) for job in dead] == [("too_large", 2_000_000)]


@pytest.mark.case("B1")
async def test_a_drain_while_a_claim_is_under_way_gives_its_jobs_back(field: Field, catcher: Catcher) -> None:
    """What Redis gave is settled; nothing waits for a lease to run out."""
    field.proxy.swallows_replies_to = read_script("claim").digest.encode()
    field.push(5)
    reporter = field.reporter(catcher, shutdown=ShutdownOptions(grace_seconds=5))
    async with running(reporter):
        with trio.fail_after(60):
            while not field.do("ZCARD", "{jobs}:leased"):  # noqa: ASYNC110  the server is another program
                await trio.sleep(0.01)
        reporter.worker.drain("SIGTERM")
        field.proxy.swallows_replies_to = b""
        field.proxy.cut()

    left = field.do("LLEN", "jobs") + field.do("ZCARD", "{jobs}:leased") + field.do("ZCARD", "{jobs}:delayed")
    assert left + catcher.total == 5
    assert catcher.total == reporter.board.ledger.settled[Disposition.SENT]


@pytest.mark.case("B1")
async def test_what_a_claim_brings_after_the_signal_is_given_back_unsent(
    workers: WorkerMaker, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if connections are ready: a drain sends only jobs that were in flight when it began."""
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    original = Broker.claim
    is_open, is_claimed = trio.Event(), trio.Event()

    async def claim(self: Broker, limit: int, **more: bool) -> Claims | Unavailable:
        claims = await original(self, limit, **more)
        if isinstance(claims, Claims) and claims.jobs:
            reporter.worker.drain("SIGTERM")
            is_claimed.set()
        return claims

    monkeypatch.setattr(Broker, "claim", claim)
    reporter.worker.sinks = [
        *reporter.worker.sinks,
        lambda event: is_open.set() if isinstance(event, ConnectionOpened) else None,
    ]
    async with running(reporter):
        await is_open.wait()
        await workers.push(*(job_bytes(number) for number in range(5)))
        await is_claimed.wait()

    assert catcher.total == 0
    assert reporter.board.ledger.settled == {Disposition.RELEASED: reporter.board.ledger.claimed}


@pytest.mark.case("B1")
async def test_the_grace_runs_from_the_signal(workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the end of a claim that is waited for: with a Redis that is stopped that is ten seconds later."""
    reporter = workers.make(workers.options(1, shutdown=ShutdownOptions(grace_seconds=7.0)), is_burst=False)
    original = Broker.claim
    left: list[float | None] = []

    async def claim(self: Broker, limit: int, **more: bool) -> Claims | Unavailable:
        left.append(reporter.snapshot().grace_seconds_left)
        reporter.worker.drain("SIGTERM")
        left.append(reporter.snapshot().grace_seconds_left)
        return await original(self, limit, **more)

    monkeypatch.setattr(Broker, "claim", claim)
    with trio.fail_after(60):
        await reporter.run()

    assert left == [None, pytest.approx(7.0, abs=0.5)]


@pytest.mark.case("B14")
async def test_random_cancels_of_redis_calls_never_mix_up_replies(real_redis: RedisClient) -> None:
    """A reply belongs to the call that asked for it, after any cancels before."""
    for number in range(60):
        with trio.move_on_after(0.0002 * (number % 7)):
            await real_redis.wait("empty", 0.05)
        assert await real_redis.command("ECHO", f"{number}") == f"{number}".encode()


@pytest.mark.case("E4")
@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_whose_clock_is_wrong_sends_once(
    hours: int, workers: WorkerMaker, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases run by Redis' clock: an hour of difference makes none expire early."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    await workers.push(*(job_bytes(number) for number in range(50)))
    reporter = workers.make(workers.options(catcher.port, queue=QUEUE))
    with trio.fail_after(60):
        assert await reporter.run() == 0

    assert set(times_sent(catcher).values()) == {1}
    assert reporter.board.ledger.uncertain == 0


@pytest.mark.case("E2", "E12")
async def test_a_worker_that_slept_longer_than_its_lease_does_not_send_what_another_took(
    field: Field, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is confirmed before the bytes go out when it is older than half its length."""
    field.push(1)
    reporter = field.reporter(catcher)
    compose = reporter.worker.composer.compose

    def slow(*words: Any) -> Any:
        # The whole loop is blocked, as under SIGSTOP, and meanwhile another worker takes the job over.
        with field.valkey.client() as client:
            while not client.zrangebyscore("{jobs}:leased", "-inf", _milliseconds(client)):
                pass
            (job_id,) = client.zrange("{jobs}:leased", 0, -1)
            client.zadd("{jobs}:leased", {job_id: _milliseconds(client) + 60_000})
            client.hset("{jobs}:lease", job_id, "another|2|")
        return compose(*words)

    reporter.worker.composer = _Composer(slow)  # type: ignore[assignment]  # all that a worker calls
    async with running(reporter):
        await field.workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.FENCED] == 1)

    assert catcher.total == 0
    assert [event for event in field.workers.events if isinstance(event, Claimed)]


def _milliseconds(client: Any) -> int:
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@define
class _Composer:
    compose: Any


@pytest.mark.case("D6")
@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), ZeroDivisionError("x")])
async def test_a_job_whose_composing_raises_dies_alone(
    error: Exception, workers: WorkerMaker, catcher: Catcher
) -> None:
    """The traceback is logged, the job is dead, and the next one is sent."""
    await workers.push(*(job_bytes(number) for number in range(3)))
    reporter = workers.make(workers.options(catcher.port))
    compose = reporter.worker.composer.compose

    numbers = iter(range(3))

    def broken(*words: Any) -> Any:
        if next(numbers) == 1:
            raise error
        return compose(*words)

    reporter.worker.composer = _Composer(broken)  # type: ignore[assignment]  # all that a worker calls
    with trio.fail_after(60):
        assert await reporter.run() == 0

    assert catcher.total == 2
    dead = await read_shelf(workers.client, "jobs", "dead", 5, with_bodies=True)
    assert isinstance(dead, list)
    assert [(job.cause.word, job.cause.text) for job in dead] == [("broke", type(error).__name__)]


@pytest.mark.case("D6")
@pytest.mark.parametrize(("module", "function"), [(delivery, "envelope_of"), (consumer, "report_of")])
async def test_a_job_whose_delivery_raises_dies_alone(
    module: ModuleType, function: str, workers: WorkerMaker, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its first byte and after its last reply alike; the place comes back and the next mails go."""
    await workers.push(*(job_bytes(number) for number in range(5)))
    reporter = workers.make(workers.options(catcher.port))
    original = getattr(module, function)
    numbers = iter(range(5))

    def broken(*words: Any, **more: Any) -> Any:
        if next(numbers) in {0, 3}:
            raise ZeroDivisionError("x")
        return original(*words, **more)

    monkeypatch.setattr(module, function, broken)
    with trio.fail_after(60):
        assert await reporter.run() == 0

    assert catcher.total == (3 if function == "envelope_of" else 5)
    assert reporter.worker.pool is not None
    assert reporter.worker.pool.borrowed == 0
    dead = await read_shelf(workers.client, "jobs", "dead", 5, with_bodies=True)
    assert isinstance(dead, list)
    assert [job.cause.word for job in dead] == ["broke", "broke"]
    assert len([event for event in workers.events if isinstance(event, JobBroke)]) == 2
