"""The wait for a job: where Redis does not let it block, it is told once and the worker polls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
import trio.testing
from attrs import define, field

from trio_worker.redis.calls import Unavailable
from trio_worker.worker.events import Event, WaitTroubled
from trio_worker.worker.job_wait import LOOK_SECONDS, JobWait

FULL = Unavailable("OOM command not allowed", is_refusal=True, is_full=True)
CLOSED = Unavailable("the connection was closed")


@define
class Redis:
    """Answers each wait in turn; ``waits`` has the seconds that were asked for."""

    answer: Callable[[float], Any]
    answers_after: Callable[[float], float] = lambda _seconds: 0.0
    waits: list[float] = field(factory=list)

    async def wait(self, seconds: float) -> bool | Unavailable:
        self.waits.append(seconds)
        await trio.sleep(self.answers_after(seconds))
        found: bool | Unavailable = self.answer(seconds)
        return found


def job_wait(redis: Redis) -> tuple[JobWait, list[Event]]:
    foreign: Any = redis
    events: list[Event] = []
    return JobWait(foreign, events.append), events


async def idle(wait: JobWait, seconds: float) -> int:
    """Wait again and again, as a worker with nothing to do; return how many claims went between."""
    claims = 0
    with trio.move_on_after(seconds):
        while True:
            await wait.wait(5.0)
            claims += 1
    return claims


async def test_a_refused_wait_is_told_once_and_the_worker_polls(autojump_clock: trio.testing.MockClock) -> None:
    """BLMOVE is refused on an empty list too when Redis is full: 139 lines in 11 s became one."""
    wait, events = job_wait(redis := Redis(lambda _: FULL))

    claims = await idle(wait, 600.0)

    assert events == [WaitTroubled(FULL.reason)]
    assert 590 / LOOK_SECONDS <= claims <= 640 / LOOK_SECONDS
    assert len(redis.waits) < 20


async def test_a_wait_that_works_again_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """And it blocks again."""
    answers: list[Any] = [FULL] * 3
    redis = Redis(lambda _: answers.pop() if answers else False, lambda seconds: 0.0 if answers else seconds)
    wait, events = job_wait(redis)

    await idle(wait, 60.0)
    claims = await idle(wait, 100.0)

    assert events == [WaitTroubled(FULL.reason), WaitTroubled("")]
    assert claims <= 100.0 / 5.0


async def test_one_failure_alone_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """A Redis that restarts closes the wait too, and the next claim says so."""
    answers: list[Any] = [CLOSED]
    wait, events = job_wait(Redis(lambda _: answers.pop() if answers else False, lambda seconds: seconds))

    await idle(wait, 60.0)

    assert events == []


async def test_waits_become_shorter_where_a_proxy_closes_idle_connections(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A proxy that closes them after three seconds is told once, and then no wait fails."""
    redis = Redis(lambda seconds: CLOSED if seconds >= 3 else False, lambda seconds: min(seconds, 3.0))
    wait, events = job_wait(redis)

    await idle(wait, 600.0)

    (told,) = events
    assert isinstance(told, WaitTroubled)
    assert not told.polls
    assert "3.0 s" in told.why
    assert set(redis.waits[2:]) == {1.5}


async def test_a_fake_that_answers_at_once_does_not_make_it_spin(autojump_clock: trio.testing.MockClock) -> None:
    """Fakeredis answers an empty blocking wait at once."""
    wait, events = job_wait(Redis(lambda _: False))

    assert await idle(wait, 1.0) <= 21
    assert events == []
