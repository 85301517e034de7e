"""Polls of a queue: how often each figure is read, and in how many round trips."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import trio
import trio.testing

from tests.support.bridge import Complaints
from tests.support.fleet import KEYS, overview, tell
from tests.support.jobs import job_bytes
from tests.support.redis import open_fake
from trio_worker.fleet.overview import AGES_POLL_SECONDS, INFO_POLL_SECONDS, Overview, OverviewPoller, read_overview
from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry.heartbeat import Heartbeat, write_heartbeat
from trio_worker.worker.phase import Phase


async def score(redis: RedisClient, key: str, member: str) -> float:
    answer = await redis.command("ZSCORE", key, member)
    assert not isinstance(answer, Unavailable)
    return float(answer)


async def looked(poller: OverviewPoller) -> Overview:
    found = await poller.poll()
    assert isinstance(found, tuple)
    return found[0]


def dated(seconds_ago: float) -> str:
    at = datetime.fromtimestamp(datetime.now(UTC).timestamp() - seconds_ago, UTC)
    return json.dumps({"task_type": "Email", "enqueued_at": at.isoformat(), "data": {}})


async def test_ages_come_with_the_look_they_belong_to(redis: RedisClient) -> None:
    """Jobs are dated by their producers; one that nothing dates, or is too large to be sent, is said to be undated."""
    jobs = [dated(300), dated(20), dated(20), dated(5), "{}", json.dumps({"data": "x" * 300_000})]
    await redis.command("RPUSH", "jobs", *jobs)
    poller = OverviewPoller(redis, "jobs", is_close_up=True, clock=trio.current_time)

    bars = (await looked(poller)).ages

    assert bars is not None
    assert (bars.jobs, bars.undated) == ((0, 1, 2, 0, 1), 2)
    assert (bars.waiting, bars.looked_at) == (6, 6)


async def test_long_list_is_sampled_evenly_and_a_longer_one_not_at_all(redis: RedisClient) -> None:
    """Two hundred jobs from its head to its end; above 200,000 sampling would block Redis."""
    await redis.command("RPUSH", "jobs", *([dated(100)] * 500), *([dated(5)] * 500))
    bars = (await looked(OverviewPoller(redis, "jobs", is_close_up=True, clock=trio.current_time))).ages
    assert bars is not None
    assert (bars.looked_at, bars.jobs) == (200, (0, 500, 0, 0, 500))

    answer = await redis.run_script("ages", ["jobs"], 1000, 500, 9)
    assert answer == [1000, []]


async def test_large_jobs_are_not_all_fetched(redis: RedisClient) -> None:
    """What is too large to be sent is still read by Redis: after some of it the rest is left undated."""
    await redis.command("RPUSH", "jobs", *(["x" * 1000] * 20), "{}")

    answer = await redis.run_script("ages", ["jobs"], 500, 100, 100)

    assert not isinstance(answer, Unavailable)
    waiting, found = answer
    assert (waiting, found[1::2]) == (21, [b""] * 21)


async def test_look_is_one_round_trip_and_asks_the_server_rarely(real_redis: RedisClient) -> None:
    """Ages every five seconds, the server every ten, between them what was seen last; always one round trip."""
    await real_redis.command("RPUSH", "jobs", dated(5))
    poller = OverviewPoller(real_redis, "jobs", is_close_up=True, clock=trio.current_time)
    first = await looked(poller)  # scripts are sent with the first one
    await real_redis.command("RPUSH", "jobs", dated(5))

    calls = real_redis.calls
    second = await looked(poller)
    assert real_redis.calls == calls + 1
    assert first.server is not None
    assert (first.server.role, first.server.policy) == ("master", "noeviction")
    assert second.server == first.server
    assert second.ages is not None
    assert (second.ages.waiting, second.ages.looked_at, second.ages.jobs) == (2, 1, (0, 2, 0, 0, 0))

    poller._sampled_at = trio.current_time() - AGES_POLL_SECONDS
    poller._asked_at = trio.current_time() - INFO_POLL_SECONDS
    third = await looked(poller)
    assert real_redis.calls == calls + 2
    assert third.ages is not None
    assert third.ages.waiting == 2
    assert third.server is not first.server


async def test_server_that_tells_nothing_spoils_no_look(bridge: Complaints) -> None:
    """INFO may be forbidden, as the fake does not know it: the figures of the queue are there all the same."""
    async with open_fake() as client:
        seen = await looked(OverviewPoller(client, "jobs", is_close_up=True, clock=trio.current_time))

    assert seen.server is None
    assert seen.counts.waiting == 0


async def test_who_looks_from_afar_samples_nothing(redis: RedisClient) -> None:
    """Lines of a log and metrics have no place for it."""
    seen = await looked(OverviewPoller(redis, "jobs"))

    assert (seen.ages, seen.server) == (None, None)


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
    """The ring buffer still has the same minute of the day before if no worker has written since."""
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
    """After a restart of Redis the first poll loads its scripts."""
    await redis.command("SCRIPT FLUSH")

    assert (await overview(redis)).counts.waiting == 0


async def test_a_heartbeat_from_the_future_is_no_sign_of_life(redis: RedisClient) -> None:
    """It was sent before Redis' clock was set back; the next heartbeat of any worker lets it fade away."""
    keys = keys_of("jobs")
    for name in ("dead:1", "live:2"):
        beat = Heartbeat(name, "0", 0.0, Phase.RUNNING, 1, 1)
        await redis.run_script("beat", keys, name, write_heartbeat(beat), 60_000, 0)
    now = int(await score(redis, keys.workers, "dead:1"))
    await redis.command("ZADD", keys.workers, now + 3_600_000, "dead:1")

    seen = await read_overview(redis, "jobs")
    assert isinstance(seen, Overview)
    assert {worker.beat.worker: worker.is_lost for worker in seen.workers} == {"dead:1": True, "live:2": False}
    await redis.run_script("beat", keys, "live:2", "{}", 60_000, 0)
    assert await score(redis, keys.workers, "dead:1") < now


async def test_ages_are_those_of_the_jobs_that_wait(real_redis: RedisClient) -> None:
    """A list that was empty is sampled with the next poll; of one that is empty now nothing old is shown."""
    poller = OverviewPoller(real_redis, "jobs", is_close_up=True, clock=trio.current_time)
    empty = (await looked(poller)).ages
    assert empty is not None
    assert (empty.waiting, sum(empty.jobs)) == (0, 0)

    await real_redis.command("RPUSH", "jobs", dated(5), dated(5))
    assert (await looked(poller)).ages is None
    sampled = (await looked(poller)).ages
    assert sampled is not None
    assert (sampled.waiting, sampled.looked_at, sampled.jobs) == (2, 2, (0, 2, 0, 0, 0))

    await real_redis.command("LPOP", "jobs")
    fewer = (await looked(poller)).ages
    assert fewer is not None
    assert (fewer.waiting, fewer.looked_at, sum(fewer.jobs)) == (1, 1, 1)
    await real_redis.command("LPOP", "jobs")
    assert (await looked(poller)).ages == empty
