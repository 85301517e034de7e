"""Trio. The jobs in this worker's hands: how many more it may take, whose leases to renew, and how they leave."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias, assert_never

import trio
from attrs import define, field

from trio_worker.broker import Answered, Broker, Claim, Entry, Settlement
from trio_worker.events import (
    Disposition,
    Event,
    JournalFailed,
    JournalReplayed,
    LeaseLost,
    Publish,
    RedisFailed,
    RedisRecovered,
    Settled,
    SettlementsKept,
)
from trio_worker.journal import Journal
from trio_worker.redis_client import Unavailable
from trio_worker.verdict import Bury, Delay, Done, Hold, Release, Verdict

# A settlement that Redis did not take is tried again this much later, doubling up to the second figure.
SETTLE_AGAIN_SECONDS = 0.1
SETTLE_AGAIN_CAP_SECONDS = 2.0
# At most so many settlements in one script call, to keep it well under a millisecond.
SETTLE_LIMIT = 200
# Settlements that came while others were told wait for each other: so many of them, or so long. The lease of a mail
# that is done is a few thousand times as long.
GATHERED = 100
GATHERING_SECONDS = 0.005
# A job delayed for less than the claiming task may sleep has to wake it.
SOON_SECONDS = 5.0
# A renewal has to fail twice in a row before a lease can run out unseen.
RENEWALS_PER_LEASE = 3
RENEW_AGAIN_SECONDS = 1.0


@define(eq=False)
class Contact:
    """Whether Redis answers, told to the events once for each change and each new error."""

    publish: Publish
    _failing_since: float | None = None
    _last: str = ""

    @property
    def failing_seconds(self) -> float:
        """How long Redis has not answered; 0 while it does."""
        return 0.0 if self._failing_since is None else trio.current_time() - self._failing_since

    def failed(self, doing: str, unavailable: Unavailable) -> None:
        if self._failing_since is None:
            self._failing_since = trio.current_time()
        if unavailable.what != self._last:
            self._last = unavailable.what
            self.publish(RedisFailed(doing, unavailable.what))

    def answered(self) -> None:
        if self._failing_since is not None:
            self.publish(RedisRecovered(self.failing_seconds))
        self._failing_since, self._last = None, ""


@define(eq=False)
class Held:
    """How a job in hand is held; ``renewed_at`` is the local time at which its lease was surely young."""

    renewed_at: float
    is_lost: bool = False


@define(eq=False)
class Hands:
    """Every job between its claim and its settlement.

    At most ``limit`` of them are at work. One that only waits to be settled leaves its place to another, so that
    settlements can travel together; of those there are at most as many again.
    """

    limit: int
    _held: dict[Claim, Held] = field(factory=dict)
    _settling: int = 0
    _wanted_room: float = math.inf  # while nobody waits for room
    _has_room: trio.Event = field(factory=trio.Event)
    _emptied: trio.Event = field(factory=trio.Event)
    _done: trio.Event = field(factory=trio.Event)
    _until_return: trio.CancelScope = field(factory=trio.CancelScope)
    _ends_when_empty: bool = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def room(self) -> int:
        """How many more jobs may be claimed."""
        return self.limit - len(self._held) + min(self._settling, self.limit)

    @property
    def at_work(self) -> int:
        """Jobs in hand that are not done yet."""
        return len(self._held) - self._settling

    def set_limit(self, limit: int) -> None:
        """Take at most so many jobs from now on; more that are in hand already stay."""
        self.limit = limit
        self._has_room.set()  # whoever waits looks again

    def take(self, claim: Claim) -> None:
        self._held[claim] = Held(claim.began)

    def finish(self) -> None:
        """Note that one job in hand waits for nothing but its settlement; `drop` follows."""
        self._settling += 1
        if not self.at_work:
            self._done.set()
        self._announce()

    def drop(self, claims: Sequence[Claim], *, comes_back: bool) -> None:
        """Let go of settled jobs; ``comes_back`` tells that one of them can be claimed again, at once or soon."""
        for claim in claims:
            del self._held[claim]
        self._settling -= len(claims)
        self._announce()
        if comes_back:
            self._until_return.cancel()

    def expect_return(self, *, or_empty: bool) -> trio.CancelScope:
        """Return a scope that is cancelled when a job that can soon be claimed again is dropped from now on.

        ``or_empty`` has the drop of the last job do so too.
        """
        self._until_return, self._ends_when_empty = trio.CancelScope(), or_empty
        return self._until_return

    def held(self, claim: Claim) -> Held:
        return self._held[claim]

    def claims(self) -> tuple[Claim, ...]:
        """Return the jobs whose leases are ours to renew."""
        return tuple(claim for claim, held in self._held.items() if not held.is_lost)

    def note_renewed(self, claims: Sequence[Claim], lost: Sequence[Claim], at: float) -> list[Claim]:
        """Note a renewal that began at ``at``; return the claims in hand that it found lost."""
        for claim in claims:
            if claim in self._held:
                self._held[claim].renewed_at = at
        newly_lost = [claim for claim in lost if claim in self._held]
        for claim in newly_lost:
            self._held[claim].is_lost = True
        return newly_lost

    async def wait_for_room(self, wanted: int = 1) -> None:
        """Wait until so many jobs may be claimed; all of the limit, where it leaves room for fewer."""
        while self.room < (needed := min(wanted, self.limit)):
            self._wanted_room, self._has_room = needed, trio.Event()
            await self._has_room.wait()

    async def wait_until_done(self) -> None:
        """Wait until no job is at work: those in hand wait for nothing but their settlement."""
        while self.at_work:
            self._done = trio.Event()
            await self._done.wait()

    async def wait_until_empty(self) -> None:
        """Wait until every job is settled."""
        while self._held:
            self._emptied = trio.Event() if self._emptied.is_set() else self._emptied
            await self._emptied.wait()

    def _announce(self) -> None:
        if self.room >= self._wanted_room:
            self._has_room.set()
            self._wanted_room = math.inf
        if not self._held:
            self._emptied.set()
            if self._ends_when_empty:
                self._until_return.cancel()


# What an event says of a settlement: given what it came to, and the seconds from claim to settlement.
Tell: TypeAlias = Callable[[Disposition, float], Settled]

_DISPOSITIONS: dict[type[Verdict], Disposition] = {
    Done: Disposition.SENT,
    Delay: Disposition.DELAYED,
    Bury: Disposition.DEAD,
    Hold: Disposition.HELD,
    Release: Disposition.RELEASED,
}


@define(eq=False)
class _Pending:
    settlement: Settlement
    tell: Tell
    may_be_applied: bool = False  # an earlier try had no answer
    is_kept: bool = False  # the journal has it
    is_late: bool = False  # a call that should have told it failed


@define(eq=False)
class Settler:
    """Tells Redis what became of jobs: whatever waits goes in one round trip, and a lone settlement at once.

    `run` must outlive every task that settles; `give_up` accounts for what is left when the worker must go.
    """

    broker: Broker
    hands: Hands
    contact: Contact
    publish: Publish
    publish_all: Callable[[Sequence[Event]], None]
    journal: Journal | None = None
    _pending: list[_Pending] = field(factory=list)
    _woken: trio.Event = field(factory=trio.Event)
    _has_given_up: bool = False
    _is_gathering: bool = False
    _is_behind: bool = field(init=False)  # Redis lacks a settlement that it was or should have been told
    _caught_up: trio.Event = field(factory=trio.Event)
    _journal_trouble: str = ""

    def __attrs_post_init__(self) -> None:
        self._is_behind = self.journal is not None and bool(self.journal.orphaned)

    @property
    def can_keep(self) -> bool:
        """Whether what becomes of a mail that is sent now can be kept: in Redis, or else in the journal."""
        return not self.contact.failing_seconds or (self.journal is not None and not self._journal_trouble)

    def settle_nowait(self, settlement: Settlement, tell: Tell) -> None:
        """Hand over what became of a job; from here on the settlement cannot be lost while the worker lives."""
        self._pending.append(_Pending(settlement, tell))
        self.hands.finish()
        if not self._is_gathering or len(self._pending) >= GATHERED:
            self._woken.set()

    async def run(self) -> None:
        """Settle until given up; a settlement that Redis does not take is kept and tried again."""
        again_seconds = SETTLE_AGAIN_SECONDS
        while not self._has_given_up:
            answers = await (self._replay() if self._orphaned else self._settle())
            if self._has_given_up:
                return
            if isinstance(answers, Unavailable):
                self._is_behind = True
                for each in self._pending:
                    each.is_late = True
                self.contact.failed("settle", answers)
                await self.keep()
                await trio.sleep(again_seconds)
                again_seconds = min(2 * again_seconds, SETTLE_AGAIN_CAP_SECONDS)
                continue
            self.contact.answered()
            again_seconds = SETTLE_AGAIN_SECONDS
            if self._is_behind and not self._orphaned and not any(each.is_late for each in self._pending):
                await self._catch_up()

    async def wait_until_caught_up(self) -> None:
        """Wait until Redis has every settlement that it did not take at first.

        Before that nothing may be claimed: what we sent may still look unsent there.
        """
        while self._is_behind:
            await self._caught_up.wait()

    async def keep(self) -> None:
        """Write the settlements that wait into the journal, each once; when it cannot be written, tell so once."""
        fresh = [each for each in self._pending if not each.is_kept]
        if self.journal is None or not fresh:
            return
        trouble = await self.journal.append([each.settlement.entry for each in fresh])
        if not trouble:
            for each in fresh:
                each.is_kept = True
            self.publish(SettlementsKept(len(fresh)))
        elif trouble != self._journal_trouble:
            self.publish(JournalFailed(trouble))
        self._journal_trouble = trouble

    @property
    def _orphaned(self) -> Sequence[Entry]:
        return self.journal.orphaned if self.journal is not None else ()

    async def _settle(self) -> Sequence[Answered] | Unavailable:
        """Tell Redis of the settlements that wait, or wait for one.

        Under load the next ones are let gather for a moment; a worker with nothing else at work never waits.
        """
        if not self._pending:
            self._woken = trio.Event()
            await self._woken.wait()
        elif len(self._pending) < GATHERED and self.hands.at_work:
            self._woken, self._is_gathering = trio.Event(), True
            with trio.move_on_after(GATHERING_SECONDS):
                await self._woken.wait()
            self._is_gathering = False
        batch = self._pending[:SETTLE_LIMIT]
        answers = await self.broker.settle([each.settlement for each in batch])
        if self._has_given_up:
            return ()
        if isinstance(answers, Unavailable):
            for each in batch:
                each.may_be_applied |= not answers.is_refusal
            return answers
        del self._pending[: len(batch)]
        self._close(batch, [self._disposition(*each) for each in zip(batch, answers, strict=True)])
        return answers

    async def _replay(self) -> Sequence[Answered] | Unavailable:
        """Tell Redis what processes that are gone had written down."""
        counts: Counter[bool] = Counter()
        entries = self._orphaned
        for start in range(0, len(entries), SETTLE_LIMIT):
            answers = await self.broker.settle(entries[start : start + SETTLE_LIMIT])
            if isinstance(answers, Unavailable):
                return answers
            counts.update(answer is Answered.SETTLED for answer in answers)
        if self.journal is not None:
            self.journal.drop_orphaned()
        self.publish(JournalReplayed(counts[True], counts[False]))
        return ()

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
        self._close(self._pending, [Disposition.UNSETTLED] * len(self._pending))
        self._pending.clear()

    def _disposition(self, pending: _Pending, answer: Answered) -> Disposition:
        match answer:
            case Answered.SETTLED | Answered.REPEATED:
                return _DISPOSITIONS[type(pending.settlement.verdict)]
            case Answered.GONE if pending.may_be_applied:
                # Our own earlier try took effect and only its answer was lost.
                return _DISPOSITIONS[type(pending.settlement.verdict)]
            case Answered.GONE | Answered.FENCED:
                return Disposition.FENCED
            case _:
                assert_never(answer)

    def _close(self, batch: Sequence[_Pending], dispositions: Sequence[Disposition]) -> None:
        """Let go of jobs, and tell what became of each."""
        now, closed = trio.current_time(), list(zip(batch, dispositions, strict=True))
        comes_back = any(_comes_back(each.settlement.verdict, disposition) for each, disposition in closed)
        self.hands.drop([each.settlement.claim for each in batch], comes_back=comes_back)
        self.publish_all([each.tell(disposition, now - each.settlement.claim.began) for each, disposition in closed])


def _comes_back(verdict: Verdict, disposition: Disposition) -> bool:
    """Whether a job can be claimed again, at once or soon."""
    if disposition is Disposition.DELAYED and isinstance(verdict, Delay):
        return verdict.seconds < SOON_SECONDS
    return disposition is Disposition.RELEASED


async def keep_leases(broker: Broker, hands: Hands, contact: Contact, publish: Publish) -> None:
    """Renew the leases of all jobs in hand, for ever; ends only by cancellation, after the last settlement."""
    while True:
        await trio.sleep(broker.options.lease_seconds / RENEWALS_PER_LEASE)
        while claims := hands.claims():
            began = trio.current_time()
            lost = await broker.renew(claims)
            if not isinstance(lost, Unavailable):
                contact.answered()
                for claim in hands.note_renewed(claims, lost, began):
                    publish(LeaseLost(claim.job_id))
                break
            contact.failed("renew", lost)
            await trio.sleep(min(RENEW_AGAIN_SECONDS, broker.options.lease_seconds / 10))
