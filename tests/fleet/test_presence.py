"""A worker among others: seen from its first heartbeat until it leaves."""

from __future__ import annotations

import trio
import trio.testing

from tests.support.fleet import KEYS, beat, overview, tell
from trio_worker.fleet.orders import (
    Order,
    Quiet,
    send_order,
)
from trio_worker.fleet.presence import Presence, new_worker_name
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry.heartbeat import BEAT_SECONDS


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
    await send_order(redis, "jobs", Quiet(), ["gone:1"])
    await redis.command("ZADD", KEYS.workers, "1", "gone:1")

    await tell(redis, "b:2")

    assert [seen.beat.worker for seen in (await overview(redis)).workers] == ["b:2"]
    assert await redis.command("HKEYS", KEYS.heartbeats) == [b"b:2"]
    assert await redis.command("HLEN", KEYS.orders) == 0


async def test_what_was_obeyed_is_told_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Who waits for an order to be obeyed waits for the heartbeat that hears it, not for the one after it."""
    calls: list[tuple[float, str]] = []

    class Obeyed(RedisClient):
        async def run_script(self, name: str, *_: object) -> object:
            calls.append((trio.current_time(), name))
            return [b"0", b"17 quiet" if len(calls) == 1 else b"", 0, 0, b""]

    client = Obeyed(None, None, lambda: None, scripts={})  # type: ignore[arg-type]
    presence = Presence(client, "jobs", "a:1", lambda _vitals: beat("a:1"), lambda _order: "quiet")
    began = trio.current_time()

    with trio.move_on_after(0.5 * BEAT_SECONDS):
        await presence.run()

    assert calls == [(began, "beat"), (began, "answer"), (began, "beat")]


async def test_broken_redis_costs_a_heartbeat_and_nothing_more(autojump_clock: trio.testing.MockClock) -> None:
    """A heartbeat that Redis does not take is not reported, and the next one is tried."""
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
            return [b"0", b"", 0, 0, b""]

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
