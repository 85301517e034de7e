"""Workers among each other: heartbeats, orders, the minutes of the day, and outcomes for who watches."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.cli.target_workers import order_workers
from trio_worker.fleet.orders import (
    Drain,
    Order,
    OrderSent,
    Quiet,
    Resume,
    Trace,
    give_order,
    read_answers,
    read_order_messages,
)
from trio_worker.fleet.overview import Overview, read_overview
from trio_worker.fleet.presence import Presence, new_worker_name
from trio_worker.fleet.vitals import VitalsMeter
from trio_worker.fleet.watch import Watch
from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.pause import pause_queue
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.feed import FeedTrace, write_trace
from trio_worker.telemetry.heartbeat import BEAT_SECONDS, Heartbeat, Vitals, write_heartbeat
from trio_worker.worker.events import Phase, QuietChanged

KEYS = keys_of("jobs")


def beat(name: str) -> Heartbeat:
    return Heartbeat(name, "1.2.3", time.time(), Phase.RUNNING, number_workers=3, max_connections=2)


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process tell how they are ten times as often, so that nobody waits long to be heard."""
    monkeypatch.setattr("trio_worker.fleet.presence.BEAT_SECONDS", BEAT_SECONDS / 10)


async def overview(redis: RedisClient) -> Overview:
    seen = await read_overview(redis, "jobs")
    assert isinstance(seen, Overview)
    return seen


async def tell(redis: RedisClient, name: str, *, leaves: bool = False, silence_ms: int = 60_000) -> tuple[str, bool]:
    answer = await redis.run_script("beat", KEYS, name, write_heartbeat(beat(name)), silence_ms, int(leaves))
    assert not isinstance(answer, Unavailable)
    return answer[1].decode(), bool(answer[2])


async def test_worker_is_seen_until_it_leaves(redis: RedisClient) -> None:
    """A heartbeat puts a worker on the list with its figures; leaving takes it off at once."""
    await tell(redis, "a:1")
    await tell(redis, "b:2")

    workers = (await overview(redis)).workers
    assert {seen.beat.worker for seen in workers} == {"a:1", "b:2"}
    assert all(seen.beat.number_workers == 3 and not seen.is_lost for seen in workers)
    await tell(redis, "a:1", leaves=True)

    assert [seen.beat.worker for seen in (await overview(redis)).workers] == ["b:2"]


async def test_silent_worker_is_forgotten(redis: RedisClient) -> None:
    """What a worker left behind goes with it: nothing of it stays in Redis."""
    await tell(redis, "gone:1")
    await give_order(redis, "jobs", Quiet(), ["gone:1"])
    await redis.command("ZADD", KEYS.workers, "1", "gone:1")

    await tell(redis, "b:2")

    assert [seen.beat.worker for seen in (await overview(redis)).workers] == ["b:2"]
    assert await redis.command("HKEYS", KEYS.heartbeats) == [b"b:2"]
    assert await redis.command("HLEN", KEYS.orders) == 0


async def test_order_is_heard_once(redis: RedisClient) -> None:
    """A worker hears what is wanted of it with its next heartbeat, and not again."""
    await tell(redis, "a:1")

    told = await give_order(redis, "jobs", Drain(), ["a:1", "nobody:9"])

    assert isinstance(told, OrderSent)
    assert told.worker_names == frozenset({"a:1"})
    assert await tell(redis, "a:1") == (f"{told.answer_id} drain", False)
    assert await tell(redis, "a:1") == ("", False)


async def test_no_order_drives_out_another(redis: RedisClient) -> None:
    """Orders given between two heartbeats are all heard, in their order; a worker that hears none is told no more."""
    await tell(redis, "a:1")
    for order in (Quiet(), Resume(), Quiet()):
        await give_order(redis, "jobs", order, ["a:1"])

    unheard = (await tell(redis, "a:1"))[0]

    assert [letter.order for letter in read_order_messages(unheard.encode())] == [Quiet(), Resume(), Quiet()]
    while (told := await give_order(redis, "jobs", Quiet(), ["a:1"])).worker_names:  # type: ignore[union-attr]
        pass
    assert isinstance(told, OrderSent)
    assert 4096 <= len((await tell(redis, "a:1"))[0]) < 8192


async def test_who_could_not_be_told_is_named(redis: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker that left between the look and the order has no answer to wait for."""
    await tell(redis, "a:1")
    settings = Settings()

    with trio.fail_after(30):
        came = [each async for each in order_workers(redis, settings, Quiet(), ["gone:9"], 60.0)]

    assert came == [("gone:9", None)]
    assert "gone:9: order not sent" in capsys.readouterr().err


async def test_answers_are_those_of_one_order(redis: RedisClient) -> None:
    """Who gave an order reads what came of it at each worker that has heard it, once, and nobody else's answers."""
    await tell(redis, "a:1")
    await tell(redis, "b:2")
    first = await give_order(redis, "jobs", Quiet(), ["a:1", "b:2"])
    other = await give_order(redis, "jobs", Drain(), ["a:1"])
    assert isinstance(first, OrderSent)
    assert isinstance(other, OrderSent)
    await redis.run_script("answer", KEYS, first.answer_id, "b:2", "quiet")
    await redis.run_script("answer", KEYS, other.answer_id, "a:1", "draining")

    lives_ms = await redis.command("PTTL", KEYS.answers)
    assert not isinstance(lives_ms, Unavailable)
    assert 0 < lives_ms <= 60_000

    assert await read_answers(redis, "jobs", first) == {"b:2": "quiet"}
    assert await read_answers(redis, "jobs", first) == {}
    assert await read_answers(redis, "jobs", other) == {"a:1": "draining"}
    assert await redis.command("EXISTS", KEYS.answers) == 0
    assert await read_answers(redis, "jobs", OrderSent(frozenset(), "none")) == {}


async def test_unreadable_heartbeat_is_counted_and_hides_nobody(redis: RedisClient) -> None:
    """A worker of a version that writes otherwise does not keep the others from being seen."""
    await tell(redis, "a:1")
    await redis.run_script("beat", KEYS, "new:2", '{"other": "shape"}', 60_000, 0)

    seen = await overview(redis)

    assert [worker.beat.worker for worker in seen.workers] == ["a:1"]
    assert seen.unreadable == 1


async def test_minutes_hold_the_totals_as_they_stand(redis: RedisClient) -> None:
    """Each heartbeat dates the totals: the last sample is what was pushed and waits now."""
    await redis.command("RPUSH", "jobs", job_bytes(1), job_bytes(2))
    await tell(redis, "a:1")

    (sample,) = (await overview(redis)).minutes

    assert (sample.pushed, sample.waiting, sample.sent) == (2, 2, 0)
    assert abs(sample.minute - time.time() / 60) < 2


async def test_sample_of_yesterday_is_not_shown_for_today(redis: RedisClient) -> None:
    """A ring holds the same minute of the day before where nobody wrote since."""
    await tell(redis, "a:1")
    minute = (await overview(redis)).minutes[0].minute
    stale = minute - 1440 - 5
    await redis.command("HSET", KEYS.minutes, stale % 1440, f"{stale} 9 9 9 9 9 9 9 9 9 9")

    assert [sample.minute for sample in (await overview(redis)).minutes] == [minute]


async def test_head_of_the_list_is_dated_by_its_producer(redis: RedisClient) -> None:
    """A job that says when it was pushed makes the age of the list exact; one that does not, an estimate or unknown."""
    await redis.command("RPUSH", "jobs", job_bytes(1, enqueued_at="2020-01-01T00:00:00Z"))
    dated = await overview(redis)
    await redis.command("LPUSH", "jobs", job_bytes(2))
    undated = await overview(redis)

    assert dated.oldest_seconds is not None
    assert dated.oldest_seconds > 1e8
    assert not dated.is_estimate
    assert undated.oldest_seconds is None


async def test_look_sends_scripts_that_redis_does_not_know(redis: RedisClient) -> None:
    """After a restart of Redis the first look loads what it needs."""
    await redis.command("SCRIPT FLUSH")

    assert (await overview(redis)).counts.waiting == 0


@pytest.mark.usefixtures("quick_beats")
async def test_outcomes_are_told_only_while_somebody_watches(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """A watcher sees what becomes of jobs at any worker, masked; without one nothing is written."""
    client = any_workers.client
    reporter = any_workers.make(any_workers.options(catcher.port), is_burst=False)
    watch = Watch(client, "jobs", "cache")
    await any_workers.push(job_bytes(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            await any_workers.wait_until(lambda: reporter.board.ledger.settled.total() == 1)
            assert await client.command("EXISTS", KEYS.latest) == 0
            assert await watch.look() is None
            while not reporter.presence._is_watched:
                await watch.look()
            await any_workers.push(job_bytes(2))
            while not watch.fleet.snapshot(0, 0).latest:
                await watch.look()
        reporter.worker.drain("test")

    (line,) = watch.fleet.snapshot(0, 0).latest
    assert line.worker == reporter.name
    assert "user2" not in str(await client.command("XRANGE", KEYS.latest, "-", "+"))


@pytest.mark.usefixtures("quick_beats")
async def test_worker_obeys_from_elsewhere(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Quiet: nothing is claimed; resume: it goes on; drain: it ends with a ledger that balances, then is gone."""
    client = any_workers.client
    reporter = any_workers.make(any_workers.options(catcher.port), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            while not await client.command("ZCARD", KEYS.workers):
                pass
            await give_order(client, "jobs", Quiet(), [reporter.name])
            await any_workers.wait_until(lambda: reporter.worker.is_quiet)
            await any_workers.push(job_bytes(1))
            await wait_for_beats(client, 2)
            assert reporter.board.ledger.claimed == 0
            await give_order(client, "jobs", Resume(), [reporter.name])
            await catcher.wait_for_mails(1)
            await give_order(client, "jobs", Drain(), [reporter.name])

    assert reporter.board.ledger.balances
    assert [event.is_quiet for event in any_workers.events if isinstance(event, QuietChanged)] == [True, False]
    seen = await overview(client)
    assert seen.workers == ()
    operator_counts = seen.counts.operator_counts
    acts = (
        operator_counts.acts[act]
        for act in (OperatorAction.WORKER_QUIET, OperatorAction.WORKER_RESUME, OperatorAction.WORKER_DRAIN)
    )
    assert (*acts, sum(operator_counts.drains)) == (1, 1, 1, 1)


async def wait_for_beats(client: RedisClient, count: int) -> None:
    """Wait until the only worker has told so often how it is."""
    seen: set[str] = set()
    while len(seen) <= count:
        seen.add(str(await client.command("ZRANGE", KEYS.workers, 0, -1, "WITHSCORES")))


async def test_what_was_obeyed_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits for an order to be obeyed waits for the heartbeat that hears it, not for the one after it."""
    calls: list[tuple[float, str]] = []

    class Obeyed(RedisClient):
        async def run_script(self, name: str, *_: object) -> object:
            calls.append((trio.current_time(), name))
            return [b"0", b"17 quiet" if len(calls) == 1 else b"", 0]

    client = Obeyed(None, None, lambda: None, scripts={})  # type: ignore[arg-type]
    presence = Presence(client, "jobs", "a:1", lambda _vitals: beat("a:1"), lambda _order: "quiet")
    began = trio.current_time()

    with trio.move_on_after(0.5 * BEAT_SECONDS):
        await presence.run()

    assert calls == [(began, "beat"), (began, "answer"), (began, "beat")]


async def test_watcher_knows_when_a_pause_ends(redis: RedisClient) -> None:
    """As whoever asks for the status does."""
    await pause_queue(redis, "jobs", "relay maintenance", "ana", 600.0)
    watch = Watch(redis, "jobs", "cache")
    await watch.look()

    queue = watch.snapshot().queue
    assert queue is not None
    assert queue.pause_seconds_left == pytest.approx(600, abs=30)


async def test_broken_redis_costs_a_heartbeat_and_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    """A heartbeat that Redis does not take is not told of, and the next one is tried."""
    calls: list[str] = []

    def obey(order: Order) -> str:
        raise AssertionError(order)

    class Broken(RedisClient):
        async def run_script(self, name: str, *_: object) -> object:
            calls.append(name)
            return Unavailable("away")

    client = Broken(None, None, lambda: None, scripts={})  # type: ignore[arg-type]
    presence = Presence(client, "jobs", "a:1", lambda _vitals: beat("a:1"), obey)

    with trio.move_on_after(4.5 * BEAT_SECONDS):
        await presence.run()

    assert calls == ["beat"] * 5


async def test_worker_that_left_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    """A heartbeat that is under way when the worker leaves is waited for, and none follows."""
    calls: list[object] = []

    class Slow(RedisClient):
        async def run_script(self, name: str, *words: object) -> object:
            calls.append(f"{name} begins, leaves {words[4]}")
            await trio.sleep(1)
            calls.append(f"{name} ends")
            return [b"0", b"", 0]

    client = Slow(None, None, lambda: None, scripts={})  # type: ignore[arg-type]
    presence = Presence(client, "jobs", "a:1", lambda _vitals: beat("a:1"), str)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.run)
        await trio.sleep(0.5)
        await presence.leave()
        await trio.sleep(3 * BEAT_SECONDS)
        nursery.cancel_scope.cancel()

    assert calls == ["beat begins, leaves 0", "beat ends", "beat begins, leaves 1", "beat ends"]


def test_names_of_workers_differ() -> None:
    """Two workers of one process are two workers."""
    assert new_worker_name() != new_worker_name()


def test_vitals_are_of_this_process() -> None:
    """A heartbeat says how much memory and processor its own process uses."""
    vitals = VitalsMeter().read(0.001)

    assert isinstance(vitals, Vitals)
    assert vitals.redis_seconds == 0.001
    assert vitals.rss_bytes is None or 10_000_000 < vitals.rss_bytes < 10**11


async def test_longer_trace_is_not_cut_off_by_a_shorter_one(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Two who trace the same worker see it for as long as each of them asked."""
    reporter = any_workers.make(any_workers.options(catcher.port))

    for seconds in (500.0, 1.0):
        reporter._carry_out(Trace(seconds))

    assert reporter._traces_until is not None
    assert reporter._traces_until > trio.current_time() + 400


async def test_watch_passes_over_what_was_told_before(redis: RedisClient) -> None:
    """Who traces now is not shown an older trace; what comes after is."""
    watch, told = Watch(redis, "jobs", "cache"), FeedTrace(1.0, "a:1", TraceLine("MAIL", "250 ok", 0.1))
    await redis.command("SET", KEYS.watch, "1")
    await redis.run_script("tell", KEYS, 1000, *("exchange", write_trace(told)) * 600)

    assert await watch.pass_over() is None
    await watch.look()
    before = list(watch.exchanges)
    await redis.run_script("tell", KEYS, 1000, "exchange", write_trace(told))
    await watch.look()

    assert (before, watch.exchanges) == ([], [told])
