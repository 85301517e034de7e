"""Trio. Settles jobs in Redis: settlements that wait share a round trip, and a lone one goes at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

import trio
from attrs import evolve, field

from trio_worker.queue.broker import Broker
from trio_worker.queue.journal import Journal
from trio_worker.queue.settlement import Bury, Delay, Done, Hold, Release, SettlementRecord, SettleResult
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.worker.delivery import Delivery
from trio_worker.worker.events import (
    JournalFailed,
    JournalReplayed,
    Publish,
    Settled,
    SettledJob,
    SettlementsKept,
)
from trio_worker.worker.gate import RedisHealth
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.loss_watch import LossWatch
from trio_worker.worker.phase import Disposition

# A settlement that Redis did not take is tried again this much later, doubling up to the second figure.
SETTLE_AGAIN_SECONDS = 0.1
SETTLE_AGAIN_CAP_SECONDS = 2.0
# The most settlements in one script call: it stays well under a millisecond.
SETTLE_LIMIT = 200
# While a call is on its way, the next settlements are gathered until there are 100 or 5 ms have passed. A lease is a
# thousand times as long.
SETTLEMENTS_GATHERED = 100
GATHERING_SECONDS = 0.005
# While claims take settlements along, every few milliseconds under load, a call of their own is not needed so soon.
TAKEN_ALONG_SECONDS = 0.02
# A job delayed for less than the claiming task may sleep has to wake it.
SOON_SECONDS = 5.0


@define(eq=False)
class Settler:
    """Tells Redis what became of jobs; each delivery that is handed over has its verdict.

    `run` must outlive every task that settles; `give_up` accounts for what is left when the worker must go.
    """

    broker: Broker
    in_flight: InFlight
    redis_health: RedisHealth
    publish: Publish
    losses: LossWatch
    journal: Journal | None = None
    _pending: list[Delivery] = field(factory=list)
    _under_way: dict[Delivery, None] = field(factory=dict)  # in the call that is on its way
    _maybe_applied: set[Delivery] = field(factory=set)  # an earlier call had no answer
    _journaled: set[Delivery] = field(factory=set)
    _late: set[Delivery] = field(factory=set)  # a call with them failed
    _woken: trio.Event = field(factory=trio.Event)
    _has_given_up: bool = False
    _is_gathering: bool = False
    _is_taken_along: bool = False  # a claim has taken settlements along since they last had a call of their own
    _is_behind: bool = field(init=False)  # a settlement was sent, or was due, and Redis has not taken it
    _caught_up: trio.Event = field(factory=trio.Event)
    _journal_trouble: str = ""
    _uncounted: int = 0  # mails that may be sent twice, which the totals in Redis do not count yet

    def __attrs_post_init__(self) -> None:
        self._is_behind = self.journal is not None and bool(self.journal.orphaned)

    @property
    def can_keep(self) -> bool:
        """Whether the settlement of a mail that is sent now can be kept: in Redis, or else in the journal."""
        return not self.redis_health.failing_seconds or (self.journal is not None and not self._journal_trouble)

    def settle_nowait(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over what became of jobs; from here on no settlement can be lost while the worker lives."""
        self._pending += deliveries
        self.in_flight.finish(len(deliveries))
        if not self._is_gathering or len(self._pending) >= SETTLEMENTS_GATHERED:
            self._woken.set()

    def take_along(self) -> list[Delivery]:
        """Take the settlements that wait, to send them with a claim; `conclude` takes the answer."""
        self._is_taken_along = True
        return self._begin_batch()

    def _begin_batch(self) -> list[Delivery]:
        batch, self._pending = self._pending[:SETTLE_LIMIT], self._pending[SETTLE_LIMIT:]
        self._under_way.update(dict.fromkeys(batch))
        return batch

    def conclude(self, batch: Sequence[Delivery], answers: Sequence[SettleResult] | Unavailable) -> None:
        """Note what Redis answered to a batch; settlements that it did not take wait again, and go into the journal."""
        if self._has_given_up:
            return
        for delivery in batch:
            del self._under_way[delivery]
        if not isinstance(answers, Unavailable):
            self._close(batch, [self._disposition(*each) for each in zip(batch, answers, strict=True)])
            return
        self._pending[:0] = batch
        if not answers.is_refusal:
            self._maybe_applied.update(batch)
        self._fall_behind(answers)

    async def run(self) -> None:
        """Settle until `give_up`; a settlement that Redis does not take is written to the journal and repeated."""
        again_seconds = SETTLE_AGAIN_SECONDS
        while not self._has_given_up:
            failed = await (self._replay() if self._orphaned else self._settle())
            if self._has_given_up:
                return
            if failed:
                await self.keep()
                await trio.sleep(again_seconds)
                again_seconds = min(2 * again_seconds, SETTLE_AGAIN_CAP_SECONDS)
                continue
            again_seconds = SETTLE_AGAIN_SECONDS
            if self._is_behind and not self._orphaned and not self._late:
                await self._catch_up()

    async def wait_until_caught_up(self) -> None:
        """Wait until Redis has every settlement that it did not take at first.

        Before that nothing may be claimed: what we sent may still look unsent there.
        """
        while self._is_behind:
            await self._caught_up.wait()

    async def keep(self) -> None:
        """Write the settlements that wait into the journal, each once; publish once that it cannot be written."""
        if self._uncounted:
            await self._count_uncertain()
        fresh = [each for each in (*self._under_way, *self._pending) if each not in self._journaled]
        if self.journal is None or not fresh:
            return
        trouble = await self.journal.append([each.settlement.stored for each in fresh])
        if not trouble:
            self._journaled.update(fresh)
            self.publish(SettlementsKept(len(fresh)))
        elif trouble != self._journal_trouble:
            self.publish(JournalFailed(trouble))
        self._journal_trouble = trouble

    @property
    def _orphaned(self) -> Sequence[SettlementRecord]:
        return self.journal.orphaned if self.journal is not None else ()

    def count_uncertain(self, count: int) -> None:
        """Have mails that may be sent twice added to the queue's total of these."""
        self._uncounted += count
        self._woken.set()

    async def _count_uncertain(self) -> None:
        counted, self._uncounted = self._uncounted, 0
        if isinstance(await self.broker.count_uncertain(counted), Unavailable):
            self._uncounted += counted

    async def _settle(self) -> bool:
        """Send the settlements that wait, or wait for one; return whether Redis did not take them.

        Under load the next ones are let gather for a moment, and a claim may take them along; a worker with nothing
        else at work never waits.
        """
        if self._late:
            await self.keep()
        if self._uncounted:
            await self._count_uncertain()
        if not self._pending:
            self._woken = trio.Event()
            await self._woken.wait()
        elif len(self._pending) < SETTLEMENTS_GATHERED and self.in_flight.at_work:
            self._woken, self._is_gathering = trio.Event(), True
            with trio.move_on_after(TAKEN_ALONG_SECONDS if self._is_taken_along else GATHERING_SECONDS):
                await self._woken.wait()
            self._is_gathering = False
        batch = self._begin_batch()
        if not batch:
            return False
        self._is_taken_along = False
        answers = await self.broker.settle(batch)
        self.conclude(batch, answers)
        if isinstance(answers, Unavailable):
            return True
        self.redis_health.answered()
        return False

    async def _replay(self) -> bool:
        """Send the settlements of processes that have ended; return whether Redis did not take them."""
        counts: Counter[bool] = Counter()
        entries = self._orphaned
        for start in range(0, len(entries), SETTLE_LIMIT):
            answers = await self.broker.settle(entries[start : start + SETTLE_LIMIT])
            if isinstance(answers, Unavailable):
                self._fall_behind(answers)
                return True
            counts.update(answer is SettleResult.SETTLED for answer in answers)
        self.redis_health.answered()
        if self.journal is not None:
            self.journal.drop_orphaned()
        self.publish(JournalReplayed(counts[True], counts[False]))
        return False

    def _fall_behind(self, unavailable: Unavailable) -> None:
        self._is_behind = True
        self._late.update(self._under_way, self._pending)
        self.redis_health.failed("settle", unavailable)
        self._woken.set()

    async def _catch_up(self) -> None:
        if self.journal is not None and not self.journal.is_empty:
            await self.journal.clear()
        self._is_behind = False
        caught_up, self._caught_up = self._caught_up, trio.Event()
        caught_up.set()

    def give_up(self) -> None:
        """Account for the settlements that Redis did not take: the journal has them, or their leases run out.

        Ends `run`.
        """
        self._has_given_up = True
        pending, self._pending = [*self._under_way, *self._pending], []
        self._under_way.clear()
        if pending:
            self._close(pending, [Disposition.UNSETTLED] * len(pending))

    def _disposition(self, delivery: Delivery, answer: SettleResult) -> Disposition:
        match answer:
            case SettleResult.SETTLED | SettleResult.REPEATED:
                return _disposition_of(delivery)
            case SettleResult.GONE if delivery in self._maybe_applied:
                # Our own earlier call took effect; only its answer was lost.
                return _disposition_of(delivery)
            case SettleResult.GONE if self._is_leased(delivery):
                return Disposition.GONE
            case SettleResult.GONE | SettleResult.FENCED:
                return Disposition.FENCED
            case _:
                assert_never(answer)

    def _is_leased(self, delivery: Delivery) -> bool:
        """Whether the lease cannot have ended, so that nobody can have taken the job over and finished it."""
        return self.in_flight.was_leased(delivery.claim, trio.current_time() - self.broker.options.lease_seconds)

    def _close(self, batch: Sequence[Delivery], dispositions: Sequence[Disposition]) -> None:
        """Remove jobs from those in flight, and publish what became of each."""
        now, comes_back, jobs = trio.current_time(), False, []
        for delivery, disposition in zip(batch, dispositions, strict=True):
            settled = delivery.settled(disposition, now - delivery.claim.began)
            jobs.append(settled if disposition is not Disposition.GONE else self._gone(delivery, settled))
            if disposition is not Disposition.SENT and _comes_back(delivery, disposition):
                comes_back = True
        self.in_flight.drop([each.claim for each in batch], comes_back=comes_back)
        for marked in (self._maybe_applied, self._journaled, self._late):
            marked.difference_update(batch)
        self.publish(Settled(tuple(jobs)))
        gone = [*dispositions].count(Disposition.GONE)
        if gone:
            self.losses.see_gone(gone)

    def _gone(self, delivery: Delivery, settled: SettledJob) -> SettledJob:
        """Count a mail as uncertain that was sent, if its job may be back in the list, from where it is sent again."""
        if not isinstance(delivery.verdict, Done):
            return settled
        self.count_uncertain(1)
        return evolve(settled, is_uncertain=True)


def _disposition_of(delivery: Delivery) -> Disposition:
    verdict = delivery.verdict
    match verdict:
        case Done():
            return Disposition.SENT
        case Delay():
            return Disposition.DELAYED
        case Bury():
            return Disposition.DEAD
        case Hold():
            return Disposition.HELD
        case Release():
            return Disposition.RELEASED
        case None:
            raise AssertionError("a delivery is settled before its verdict")
        case _:
            assert_never(verdict)


def _comes_back(delivery: Delivery, disposition: Disposition) -> bool:
    """Whether a job can be claimed again, at once or soon."""
    if disposition is Disposition.DELAYED and isinstance(delivery.verdict, Delay):
        return delivery.verdict.seconds < SOON_SECONDS
    return disposition is Disposition.RELEASED
