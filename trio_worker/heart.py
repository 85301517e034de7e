"""Trio. The heart: one job from its claim to its settlement.

Decode, compose, borrow, deliver, decide, settle: each verb is a module, and everything a reader must believe about
one job's fate stands here.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias, assert_never

import trio
from attrs import define, evolve, field

from trio_worker.address import may_be_mailed
from trio_worker.age import PushHistory
from trio_worker.broker import Broker, Claim, Settlement
from trio_worker.capabilities import Capabilities
from trio_worker.connection import Connection, Delivery
from trio_worker.crew import Crew
from trio_worker.email_type import MESSAGE, TypeSpec
from trio_worker.events import Disposition, JobBroke, Publish, Settled
from trio_worker.fault import Malformed
from trio_worker.gate import Gate
from trio_worker.glance import glance
from trio_worker.hands import Hands, Settler
from trio_worker.job import Job, decode
from trio_worker.mail import Composer, Mail, MailOptions, TypeOptions
from trio_worker.outcome import Accepted, Outcome, Trouble, Uncertain, Unopened
from trio_worker.pool import Pool, Shut
from trio_worker.privacy import mask_address
from trio_worker.record import Cause, Record
from trio_worker.redis_client import Unavailable
from trio_worker.smtp import Envelope
from trio_worker.tried import Tried, tried_of
from trio_worker.verdict import (
    DONE,
    Delay,
    Done,
    Release,
    RetryPolicy,
    Terms,
    Verdict,
    admit,
    bury,
    cause_of_acceptance,
    decide,
    is_done,
)

Dice: TypeAlias = Callable[[], float]

# Redis is asked about so many mails at once: each question has a connection of its own, and half of those that the
# client may open are left to claims, renewals and settlements.
CONFIRMED_AT_ONCE = 16

_NO_OPTIONS = TypeOptions()


@define
class Told:
    """What is learnt of a job on its way, for the event that tells of its settlement."""

    record: Record
    email_type: str = ""
    recipients: tuple[str, ...] = ()
    waited_seconds: float | None = None
    is_estimate: bool = False
    outcome: Outcome | None = None
    smtp_seconds: float | None = None
    connection_id: int | None = None
    is_clock_ahead: bool = False
    compose_seconds: float = 0.0
    borrow_seconds: float = 0.0
    content_bytes: int = 0
    tried: Tried | None = None


@define(eq=False)
class Parcel:
    """A mail that is ready to go, for those recipients, and the job that it is of."""

    claim: Claim
    told: Told
    mail: Mail
    recipients: tuple[str, ...]
    on_uncertain: str
    ready_at: float  # of the counter that measures how long it waits for a connection, in seconds

    @property
    def holds(self) -> bool:
        """Whether the job is held when nobody can tell if its mail was accepted."""
        return self.on_uncertain == "hold"


@define(eq=False)
class Heart:
    """Handles the jobs of one worker."""

    types: Mapping[str, TypeSpec]
    composer: Composer
    mail_options: MailOptions
    retry: RetryPolicy
    only_to: str
    broker: Broker
    hands: Hands
    settler: Settler
    gate: Gate
    pool: Pool
    history: PushHistory
    publish: Publish
    dice: Dice = field(default=random.random)
    _confirming: trio.Semaphore = field(factory=partial(trio.Semaphore, CONFIRMED_AT_ONCE))

    def handle(self, claim: Claim, crew: Crew[Parcel]) -> None:
        """See one job through; it is settled however this ends. Never awaits.

        A mail that can go to the relay now goes now. One that has to wait for something is given to the crew, of which
        a task then sees it off.
        """
        told = Told(claim.record)
        try:
            verdict = self._begin(claim, told, crew)
        except Exception as error:  # noqa: BLE001  the edge of one job: it is buried, and the traceback logged
            verdict = self._bury_broken(claim, told, error)
        if verdict is not None:
            self._settle(claim, told, verdict)

    async def see_off(self, parcel: Parcel) -> None:
        """Have a mail go that has to wait; a cancel before that releases the job as it was."""
        verdict: Verdict | None = _stopped(parcel)
        try:
            verdict = await self._wait_and_begin(parcel)
        except Exception as error:  # noqa: BLE001  the edge of one job, as above
            verdict = self._bury_broken(parcel.claim, parcel.told, error)
        finally:
            if verdict is not None:
                self._settle(parcel.claim, parcel.told, verdict)

    def release(self, parcel: Parcel) -> None:
        """Give a job back whose mail never came to its turn."""
        self._settle(parcel.claim, parcel.told, _stopped(parcel))

    def _begin(self, claim: Claim, told: Told, crew: Crew[Parcel]) -> Verdict | None:
        """Get a mail on its way, or return what becomes of the job without."""
        made = self._make(claim, told)
        if not isinstance(made, Parcel):
            return made
        if crew.is_behind or not self._begin_now(made):
            crew.give(made)
        return None

    def _make(self, claim: Claim, told: Told) -> Parcel | Verdict:
        """Decode the job and compose its mail, or say what becomes of it without."""
        job = decode(claim.body, self.types)
        self._date(claim, job, told)
        now = self._now(claim)
        if isinstance(job, Malformed):
            return bury(told.record, _cause_of_faults(job), now)
        own = self.mail_options.types.get(job.email_type, _NO_OPTIONS)
        early_or_late = admit(told.record, job.not_before, job.expires_at, own.max_age_seconds, now)
        if early_or_late is not None:
            return early_or_late
        began = time.perf_counter()
        mail = self.composer.compose(job, claim.job_id, now)
        ready_at = time.perf_counter()
        told.compose_seconds = ready_at - began
        if isinstance(mail, Malformed):
            return bury(told.record, _cause_of_faults(mail), now)
        recipients = mail.recipients if told.record.due is None else told.record.due
        told.recipients = tuple(map(mask_address, recipients))
        if not may_be_mailed(self.only_to, recipients):
            return bury(told.record, Cause("not_allowed", text="smtp.only_to does not name a recipient"), now)
        return Parcel(claim, told, mail, recipients, own.on_uncertain or self.mail_options.on_uncertain, ready_at)

    def _begin_now(self, parcel: Parcel) -> bool:
        """Have a connection take the mail, if one has room and nothing has to be asked first."""
        if not self.settler.can_keep or self._needs_confirming(parcel, trio.current_time()):
            return False
        lane = self.pool.lend_nowait()
        if lane is None:
            return False
        try:
            self._begin_on(lane, parcel)
        except Exception:
            self.pool.take_back(lane)
            raise
        return True

    async def _wait_and_begin(self, parcel: Parcel) -> Verdict | None:
        """Wait for a connection with room, and for Redis where it has to be asked, and have the mail go.

        Or return what becomes of the job without.
        """
        told, loan = parcel.told, self.pool.borrow()
        async with loan as lane:
            told.borrow_seconds = time.perf_counter() - parcel.ready_at
            match lane:
                case Shut():
                    return Release(told.record, Cause("released", text="the worker drains"))
                case Trouble():
                    return self._judge(parcel, Unopened(lane))
                case Connection():
                    if not self.settler.can_keep:
                        what = "not sent: neither Redis nor the journal can be written"
                        return Release(told.record, Cause("unkept", text=what))
                    if self._needs_confirming(parcel, trio.current_time()):
                        withheld = await self._confirm(parcel)
                        if withheld is not None:
                            return withheld
                    self._begin_on(lane, parcel)
                    loan.keep()
                    return None
                case _:
                    assert_never(lane)

    def _begin_on(self, lane: Connection, parcel: Parcel) -> None:
        """Have a connection take the mail; from here `_conclude` gives it back and settles the job."""
        lane.begin(self._envelope(parcel, lane, trio.current_time()), partial(self._conclude, parcel, lane))

    def _conclude(self, parcel: Parcel, lane: Connection, delivery: Delivery) -> None:
        """Settle a mail, now that its connection tells what became of it."""
        self.pool.take_back(lane)
        try:
            verdict = self._judge(parcel, delivery)
        except Exception as error:  # noqa: BLE001  the edge of one job, as above
            verdict = self._bury_broken(parcel.claim, parcel.told, error)
        self._settle(parcel.claim, parcel.told, verdict)

    def _envelope(self, parcel: Parcel, lane: Connection, now: float) -> Envelope:
        is_cautious = parcel.holds or self.pool.is_rested(lane, now)
        envelope = envelope_of(parcel.mail, parcel.recipients, lane.opened.capabilities, is_cautious=is_cautious)
        parcel.told.content_bytes = len(envelope.content)
        return envelope

    def _judge(self, parcel: Parcel, found: Delivery | Unopened) -> Verdict:
        """Learn from what became of a mail, and decide what becomes of its job."""
        told, recipients = parcel.told, parcel.recipients
        if isinstance(found, Delivery):
            told.smtp_seconds, told.connection_id = found.seconds, found.connection_id
            outcome = found.outcome
            told.tried = tried_of(
                outcome, len(recipients), told.content_bytes, told.compose_seconds, told.borrow_seconds
            )
        else:
            outcome = found
        told.outcome = outcome
        self.gate.note(outcome)
        if is_done(outcome):
            return DONE
        now = self._now(parcel.claim)
        verdict = decide(outcome, recipients, told.record, Terms(self.retry, parcel.on_uncertain, now, self.dice()))
        if isinstance(verdict, Done):
            return verdict
        return evolve(verdict, record=verdict.record.tried_on(now, told.connection_id, told.smtp_seconds))

    def _bury_broken(self, claim: Claim, told: Told, error: Exception) -> Verdict:
        self.publish(JobBroke(claim.job_id, _places(error)))
        return bury(told.record, Cause("broke", text=type(error).__name__), self._now(claim))

    def _settle(self, claim: Claim, told: Told, verdict: Verdict) -> None:
        settlement = Settlement(claim, verdict, isinstance(told.outcome, Uncertain))
        self.settler.settle_nowait(settlement, partial(_settled, settlement, told))

    def _needs_confirming(self, parcel: Parcel, now: float) -> bool:
        """Whether Redis must say first that the job is still ours: its lease is past half, or its type is held."""
        held = self.hands.held(parcel.claim)
        is_old = now - held.renewed_at > self.broker.options.lease_seconds / 2
        return is_old or parcel.holds or held.is_lost

    async def _confirm(self, parcel: Parcel) -> Release | None:
        async with self._confirming:
            began = trio.current_time()
            is_ours = await self.broker.confirm(parcel.claim, marks_started=parcel.holds)
        if is_ours is True:
            self.hands.held(parcel.claim).renewed_at = began
            return None
        what = is_ours.what if isinstance(is_ours, Unavailable) else "another worker took it over"
        return Release(parcel.told.record, Cause("unconfirmed", text=f"not sent: {what}"))

    def _date(self, claim: Claim, job: Job | Malformed, told: Told) -> None:
        """Learn the job's type and age; a fresh job's age begins when it was pushed, if anything tells."""
        # A type that is not ours may say anything; one that is names nobody, and says whose producer to mend.
        named = job.email_type if isinstance(job, Job) else glance(claim.body).email_type
        told.email_type = named if named in self.types or named == MESSAGE else ""
        if claim.place is None:
            told.record = evolve(told.record, email_type=told.email_type)
            return
        born = claim.claimed_at
        said = job.enqueued_at if isinstance(job, Job) else None
        pushed_at = self.history.pushed_at(claim.place) if said is None else said
        if pushed_at is not None:
            # A producer's clock may run ahead of Redis': nothing waits for a negative time.
            told.is_clock_ahead = said is not None and said > claim.claimed_at
            told.waited_seconds = max(0.0, claim.claimed_at - pushed_at)
            told.is_estimate = said is None
            born = min(pushed_at, claim.claimed_at)
        told.record = Record(born, told.email_type)

    def _now(self, claim: Claim) -> float:
        """Return Redis' clock, carried on by ours since the claim."""
        return claim.claimed_at + trio.current_time() - claim.began


def envelope_of(mail: Mail, recipients: tuple[str, ...], capabilities: Capabilities, *, is_cautious: bool) -> Envelope:
    """Return a mail as it goes to those recipients over a connection that can do so much."""
    content = mail.content(eight_bit=capabilities.eight_bit)
    return Envelope(
        sender=mail.sender,
        recipients=recipients,
        content=content,
        needs_smtputf8=mail.needs_smtputf8,
        is_eight_bit=not content.isascii(),
        is_cautious=is_cautious,
    )


def _settled(settlement: Settlement, told: Told, disposition: Disposition, total_seconds: float) -> Settled:
    verdict, outcome = settlement.verdict, told.outcome
    cause = None if isinstance(verdict, Done) else verdict.cause
    if isinstance(outcome, Accepted) and cause is None:
        cause = cause_of_acceptance(outcome.reply)
    return Settled(  # by place: there is one for each mail, and names cost it half as much again
        settlement.claim.job_id,
        disposition,
        told.email_type,
        told.record.attempts + 1,
        cause,
        told.recipients,
        verdict.seconds if isinstance(verdict, Delay) else 0.0,
        told.waited_seconds,
        told.is_estimate,
        told.smtp_seconds,
        total_seconds,
        told.connection_id,
        settlement.is_uncertain,
        told.is_clock_ahead,
        told.tried,
    )


def _stopped(parcel: Parcel) -> Release:
    return Release(parcel.claim.record, Cause("released", text="the worker stopped before it was sent"))


def _cause_of_faults(malformed: Malformed) -> Cause:
    return Cause(str(malformed.reason), text="; ".join(map(str, malformed.faults)))


def _places(error: Exception) -> str:
    """Return the places of a traceback without its message, which may repeat what the job holds."""
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
