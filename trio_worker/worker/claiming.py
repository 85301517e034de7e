"""Trio. The claiming task: it takes jobs while consumers have room, Redis answers and the relay works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import TypeAlias

import trio
from attrs import field

from trio_worker.queue.broker import CLAIM_LIMIT, Broker
from trio_worker.queue.claim import Claim, Claims
from trio_worker.queue.counts import count_jobs
from trio_worker.queue.history import PushHistory
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.worker.events import Claimed, LeasesRecovered, Publish, QueuePaused
from trio_worker.worker.gate import Gate, RedisHealth
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.job_wait import MIN_WAIT_SECONDS, JobWait
from trio_worker.worker.loss_watch import LossWatch, QueueSum
from trio_worker.worker.settling import Settler

# The longest blocking wait for a job: a pause, a lease that ran out elsewhere and a dead letter limit are seen by
# claims alone, so this is also how late they are noticed by a worker that has nothing to do.
LONGEST_WAIT_SECONDS = 5.0
# How often a paused queue is checked: the end of a pause is noticed within a second.
PAUSED_POLL_SECONDS = 1.0
# After a failed claim: the first wait and the longest.
CLAIM_AGAIN_SECONDS = 0.1
CLAIM_AGAIN_CAP_SECONDS = 5.0


# Given the jobs of a claim, and how many more wait behind them.
Give: TypeAlias = Callable[[Sequence[Claim], int], object]


class BurstEnd(IntEnum):
    """How a run under ``--burst`` ended, as its exit code."""

    EMPTY = 0
    UNREACHABLE = 69
    PAUSED = 75


@define(eq=False)
class Claiming:
    """Claims until cancelled, or until the queue is empty under ``is_burst``, and deals the jobs to the consumers.

    A cancel loses nothing: a claim that is under way is waited for, and every job it brings is given.
    """

    broker: Broker
    in_flight: InFlight
    gate: Gate
    redis_health: RedisHealth
    settler: Settler
    losses: LossWatch
    history: PushHistory
    publish: Publish
    give: Give
    is_burst: bool
    patience_seconds: float  # how long a burst waits for a relay or a Redis that cannot be reached
    relay_capacity: Callable[[], int]  # jobs that can go to the relay at once; more in flight are claimed together
    has_claimed: trio.Event = field(factory=trio.Event)  # set when the first claim was answered
    _again_seconds: float = CLAIM_AGAIN_SECONDS
    _paused: str = ""
    _job_wait: JobWait = field(init=False)
    _is_busy: bool = False  # the last claim brought all that was asked for: there is more

    def __attrs_post_init__(self) -> None:
        self._job_wait = JobWait(self.broker, self.publish)

    async def run(self) -> BurstEnd:
        """Claim until a cancel, or until a burst is over."""
        while True:
            # A claim cannot be cancelled, and where jobs and room are always there nothing else waits.
            await trio.lowlevel.checkpoint_if_cancelled()
            troubled_seconds = max(self.gate.troubled_seconds, self.redis_health.failing_seconds)
            if self.is_burst and troubled_seconds > self.patience_seconds:
                return BurstEnd.UNREACHABLE
            if not await self._may_claim():
                continue
            until_return = self.in_flight.expect_return(or_empty=self.is_burst)
            limit = int(min(self.gate.limit, self.in_flight.room, CLAIM_LIMIT))
            claims = await self._claim(limit)
            self.has_claimed.set()
            if isinstance(claims, Unavailable):
                await self._wait_for_redis(claims)
                continue
            self._take(claims)
            self.gate.spend(len(claims.jobs))
            self._is_busy = len(claims.jobs) == limit and not claims.suspects
            if self._paused and self.is_burst:
                return BurstEnd.PAUSED
            if self._paused:
                await trio.sleep(PAUSED_POLL_SECONDS)
            elif self.gate.is_probing and claims.jobs:
                await self.in_flight.wait_until_empty()
                self.gate.end_probe()
            elif claims.suspects:
                # Before the one that was given alone is settled nothing may join it, and none is given while others are
                # in flight.
                await self.in_flight.wait_until_empty()
            elif not claims.jobs and self.is_burst and await self._is_all_done(claims):
                return BurstEnd.EMPTY
            elif not claims.jobs or (len(claims.jobs) < limit and claims.next_seconds != 0):
                await self._wait_for_job(claims, until_return)

    async def _claim(self, limit: int) -> Claims | Unavailable:
        """Claim, and take along what waits to be settled."""
        is_idle = not len(self.in_flight)
        batch = self.settler.take_along()
        if not batch:
            return await self.broker.claim(limit, is_idle=is_idle)
        answers, claims = await self.broker.settle_and_claim(batch, limit, is_idle=is_idle)
        self.settler.conclude(batch, answers)
        return claims

    async def _may_claim(self) -> bool:
        """Wait for room, a Redis that has all our settlements, and a breaker that lets claims through.

        False to check the burst's patience and the room again first.
        """
        wanted = max(1, min(self.in_flight.limit - self.relay_capacity(), CLAIM_LIMIT)) if self._is_busy else 1
        for wait in (partial(self.in_flight.wait_for_room, wanted), self.settler.wait_until_caught_up, self.gate.wait):
            if not self.is_burst:
                await wait()
                continue
            with trio.move_on_after(self.patience_seconds) as patience:
                await wait()
            if patience.cancelled_caught:
                return False
        if self.gate.is_probing:
            # A probe goes alone: the outcomes of mails that were under way before it are no evidence.
            await self.in_flight.wait_until_empty()
        # Since there was room, the limit may have been lowered below the jobs in flight.
        return self.in_flight.room > 0

    def _take(self, claims: Claims) -> None:
        """Take in all that one claim brought, without a checkpoint."""
        self._again_seconds = CLAIM_AGAIN_SECONDS
        self.redis_health.answered()
        self.history.note(claims.at, claims.pushed)
        self.losses.see(QueueSum(claims.at, claims.ever_popped, claims.generation, claims.popped), claims.waiting)
        if claims.recovered or claims.crashed or claims.held or claims.too_large:
            self.publish(LeasesRecovered(claims.recovered, claims.crashed, claims.held, claims.too_large))
        if claims.paused != self._paused:
            self._paused = claims.paused
            self.publish(QueuePaused(claims.paused))
        if claims.jobs:
            self.in_flight.take(claims.jobs, claims.jobs[0].began)
            self.publish(Claimed(tuple([(claim.job_id, claim.source, claim.deliveries) for claim in claims.jobs])))
            self.give(claims.jobs, claims.waiting)

    async def _wait_for_redis(self, unavailable: Unavailable) -> None:
        self.redis_health.failed("claim", unavailable)
        await trio.sleep(self._again_seconds)
        self._again_seconds = min(2 * self._again_seconds, CLAIM_AGAIN_CAP_SECONDS)

    async def _wait_for_job(self, claims: Claims, until_return: trio.CancelScope) -> None:
        """Wait until there is something to claim: a push, a due job, a lease that runs out, a release of our own."""
        # What the claim brought goes first, for to begin a wait takes as long as to make a mail: one round of the
        # scheduler in which the consumers take it, and one in case this task came before them.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        seconds = LONGEST_WAIT_SECONDS
        if claims.next_seconds is not None:
            seconds = min(seconds, max(claims.next_seconds, MIN_WAIT_SECONDS))
        with until_return:
            await self._job_wait.wait(seconds)

    async def _is_all_done(self, claims: Claims) -> bool:
        """Whether a burst is over: nothing waits, is due or is leased, here or elsewhere."""
        if claims.waiting or len(self.in_flight):
            return False
        counts = await count_jobs(self.broker.client, self.broker.options.name)
        return not isinstance(counts, Unavailable) and not (counts.waiting or counts.leased or counts.due)
