"""What Redis has lost is noted in Redis, once for all workers that saw it, and not taken from what came late."""

from __future__ import annotations

import pytest
from attrs import define, field

from trio_worker.fleet.overview import Overview, read_overview
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.keys import keys_of
from trio_worker.queue.losses import LOSS_SHOWN_SECONDS, LossSign, LostData, read_losses
from trio_worker.queue.options import QueueOptions
from trio_worker.redis.client import RedisClient
from trio_worker.worker.events import DataLost, Event
from trio_worker.worker.loss_watch import LossWatch, QueueSum


@define
class Seer:
    """A worker, as far as it watches for losses."""

    redis: RedisClient
    events: list[Event] = field(factory=list)
    losses: LossWatch = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.losses = LossWatch(self.redis, "jobs", self.events.append)

    async def claim(self) -> None:
        """Claim all that waits, look at the sums, and note what was lost."""
        await _later(self.redis)
        claims = await Broker(self.redis, QueueOptions()).claim(100)
        assert isinstance(claims, Claims)
        self.losses.see(
            QueueSum(claims.at, claims.ever_popped, claims.generation, claims.popped), waiting=claims.waiting
        )

    async def look(self) -> None:
        """Look at the sums as a heartbeat does."""
        await _later(self.redis)
        answer = await self.redis.run_script("beat", keys_of("jobs"), "w", "{}", 60000, 0)
        assert isinstance(answer, list)
        now, _, _, ever_popped, generation = answer
        self.losses.see(QueueSum(int(now) / 1000, ever_popped, generation.decode()))


async def _later(redis: RedisClient) -> None:
    """Wait for the next millisecond of Redis' clock, so that what comes is later than what came."""
    counts = await count_jobs(redis, "jobs")
    assert isinstance(counts, Counts)
    first = counts.at
    while counts.at == first:
        counts = await count_jobs(redis, "jobs")
        assert isinstance(counts, Counts)


async def seen(redis: RedisClient) -> tuple[dict[str, int], int]:
    """What commands are told: the losses by their sign, and the mails that may go out twice."""
    overview, counts = await read_overview(redis, "jobs"), await count_jobs(redis, "jobs")
    assert isinstance(overview, Overview)
    assert isinstance(counts, Counts)
    return {str(loss.sign): loss.count for loss in overview.losses}, counts.uncertain


async def popped(redis: RedisClient, count: int, *seers: Seer) -> None:
    """Have so many jobs popped, and all workers know it."""
    await redis.command("RPUSH", "jobs", *[b"x"] * count)
    await Broker(redis, QueueOptions()).claim(100)
    for seer in seers:
        await seer.look()


@pytest.mark.case("A29")
async def test_several_workers_count_one_loss_once(redis: RedisClient) -> None:
    """FLUSHALL, and then jobs: whoever notes it first counts it, at a claim or at a heartbeat."""
    first, second, third = Seer(redis), Seer(redis), Seer(redis)
    await popped(redis, 7, first, second, third)
    await redis.command("FLUSHALL")
    await redis.command("RPUSH", "jobs", b"a", b"b")
    await first.claim()
    await second.claim()
    await third.look()
    for seer in (first, second, third):
        await seer.losses.note()

    assert first.events == [DataLost(LossSign.TOTALS, 7, uncertain=2)]
    assert second.events == third.events == []
    assert await seen(redis) == ({"totals": 7}, 2)


async def test_a_worker_that_comes_after_the_note_does_not_note_it_again(redis: RedisClient) -> None:
    """It finds a new generation, and has missed the sums between."""
    first, second = Seer(redis), Seer(redis)
    await popped(redis, 7, first, second)
    await redis.command("FLUSHALL")
    await first.look()
    await first.losses.note()
    await second.look()
    await second.losses.note()

    assert len(first.events) == 1
    assert second.events == []


async def test_the_next_loss_is_another_one(redis: RedisClient) -> None:
    """Also one that takes the note of the one before, and one that takes only the last writes."""
    first, second = Seer(redis), Seer(redis)
    for _ in range(2):
        await popped(redis, 5, first, second)
        await redis.command("FLUSHALL")
        for seer in (first, second):
            await seer.look()
        for seer in (second, first):
            await seer.losses.note()
    assert len(first.events) + len(second.events) == 2
    await popped(redis, 5, first, second)
    await redis.command("HINCRBY", keys_of("jobs").totals, "popped", -2)
    for seer in (first, second):
        await seer.look()
        await seer.losses.note()

    assert len(first.events) + len(second.events) == 3
    assert (await seen(redis))[0] == {"totals": 7}


async def test_sums_that_come_late_are_no_loss(redis: RedisClient) -> None:
    """A claim and a heartbeat are answered on two connections, and their answers may be taken in the wrong order."""
    seer = Seer(redis)
    await popped(redis, 7, seer)
    at = seer.losses._last.at if seer.losses._last else 0.0
    seer.losses.see(QueueSum(at, 3))
    seer.losses.see(QueueSum(at - 1.0, 3))
    await seer.losses.note()

    assert seer.events == []


async def test_a_clock_that_was_set_back_hides_no_loss(redis: RedisClient) -> None:
    """No answer is late by an hour."""
    seer = Seer(redis)
    await popped(redis, 7, seer)
    at = seer.losses._last.at if seer.losses._last else 0.0
    seer.losses.see(QueueSum(at - 3600.0, 0))
    await seer.losses.note()

    assert [event.count for event in seer.events if isinstance(event, DataLost)] == [7]


async def test_evicted_keys_are_counted_once(redis: RedisClient) -> None:
    """Each worker looks at another moment; after a new start of the server its count begins again."""
    first, second = Seer(redis), Seer(redis)
    first.losses.see_evicted("a", 0, 10)
    second.losses.see_evicted("a", 4, 12)
    first.losses.see_evicted("a", 10, 11)
    second.losses.see_evicted("b", 0, 5)
    for seer in (first, second):
        await seer.losses.note()

    # The server counted 12 keys before it was started again, and 5 after it.
    assert (await seen(redis))[0] == {"evicted": 17}
    assert sum(event.count for event in [*first.events, *second.events] if isinstance(event, DataLost)) == 17


async def test_a_restarted_worker_and_every_command_see_the_note(redis: RedisClient) -> None:
    """It is in Redis, and expires."""
    seer = Seer(redis)
    seer.losses.see_gone(3)
    seer.losses.see_gone(2)
    await seer.losses.note()

    assert (await seen(redis))[0] == {"gone": 5}
    left_ms = await redis.command("PTTL", keys_of("jobs").losses)
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= LOSS_SHOWN_SECONDS * 1000


async def test_a_note_that_redis_does_not_take_is_kept(real_redis: RedisClient) -> None:
    """Until it takes it: a server that is short of replicas, for example."""
    seer = Seer(real_redis)
    seer.losses.see_evicted("a", 0, 10)
    await real_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    await seer.losses.note()
    assert seer.events == []
    await real_redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await seer.losses.note()

    assert seer.events == [DataLost(LossSign.EVICTED, 10)]
    assert (await seen(real_redis))[0] == {"evicted": 10}


async def test_a_loss_that_may_not_be_noted_is_told_all_the_same(real_redis: RedisClient) -> None:
    """By this worker's log and metrics."""
    seer = Seer(real_redis)
    await popped(real_redis, 7, seer)
    await real_redis.command("FLUSHALL")
    await real_redis.command("SET", keys_of("jobs").losses, "not ours")
    seer.losses.see(QueueSum(9e9, 0), waiting=3)
    await seer.losses.note()
    await real_redis.command("DEL", keys_of("jobs").losses)

    assert seer.events == [DataLost(LossSign.TOTALS, 7, uncertain=3)]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([], ()),
        ([b"gone", b"1000 5"], (LostData(LossSign.GONE, 1.0, 5),)),
        (
            [b"gone", b"1000 5", b"totals", b"2000 1"],
            (LostData(LossSign.GONE, 1.0, 5), LostData(LossSign.TOTALS, 2.0, 1)),
        ),
        (
            [b"evicted_keys", b"abc 7", b"gone", b"much", b"totals", b"1 2 3", b"other", b"1 2", b"evicted", b"\xff 1"],
            (),
        ),
    ],
)
def test_what_others_wrote_there_is_ignored(fields: list[bytes], found: tuple[LostData, ...]) -> None:
    """Another version may know more signs."""
    assert read_losses(fields, 3.0) == found


def test_a_loss_is_shown_for_a_day() -> None:
    """Each by its own time, also if the key lives longer because of another one."""
    fields = [b"gone", b"1000 5", b"totals", b"50000000 1"]

    assert [loss.sign for loss in read_losses(fields, 1.0 + LOSS_SHOWN_SECONDS)] == [LossSign.TOTALS]
