"""Trio. A claimed job becomes a delivery whose mail is made, or whose verdict is known without one."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from functools import lru_cache, partial

import trio
from attrs import evolve, field

from trio_worker.jobs.address import as_sent, may_be_mailed
from trio_worker.jobs.budget import decode_within, named_type
from trio_worker.jobs.email_type import MESSAGE, TypeSpec
from trio_worker.jobs.fault import Malformed
from trio_worker.jobs.job import Job, decode
from trio_worker.jobs.summary import summarize
from trio_worker.mail.composer import Composer, Mail
from trio_worker.mail.message_id import derived_mail_id
from trio_worker.mail.options import MailOptions, TypeOptions
from trio_worker.privacy import mask_address
from trio_worker.queue.claim import Claim
from trio_worker.queue.history import PushHistory
from trio_worker.queue.job_id import first_claimed_at
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import Bury, Delay, Verdict
from trio_worker.records import define
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.worker.delivery import Delivery, envelope_of
from trio_worker.worker.events import JobBroke, Publish
from trio_worker.worker.turns import BIG_OCTETS, Turns
from trio_worker.worker.verdict import admit, bury

_NO_OPTIONS = TypeOptions()
# Jobs with these faults cannot be parsed, so they name no type.
_WITHOUT_TYPE = frozenset({"not_utf8", "not_json"})


# The fresh jobs of one claim are born at one of few times, and of few types.
@lru_cache(256)
def _fresh_record(born: float, email_type: str, pushed_at: float | None) -> Record:
    return Record(born, email_type, pushed_at=pushed_at)


@define(eq=False)
class Preparation:
    """Decodes, dates and composes the jobs of one worker."""

    types: Mapping[str, TypeSpec]
    composer: Composer
    options: MailOptions
    only_to: str
    history: PushHistory
    publish: Publish
    turns: Turns = field(factory=Turns)
    _budgets: Mapping[str, int] = field(init=False)
    _free_octets: int = field(init=False)  # a job of no more is within every budget

    def __attrs_post_init__(self) -> None:
        self._budgets = self.options.budgets
        self._free_octets = min(self._budgets.values(), default=0)

    def prepare(self, delivery: Delivery, now: float) -> None:
        """Make the mail of a delivery, or give it its verdict where there is nothing to send. Never raises for a job.

        ``now`` is Redis' clock in epoch seconds.
        """
        try:
            raw = delivery.claim.body
            job = decode(raw, self.types) if len(raw) <= self._free_octets else self._decoded(raw)
            self._date(delivery, job, job.email_type if isinstance(job, Job) else _type_of(raw, job))
            began = time.perf_counter()
            delivery.verdict = self._taken(delivery, self._made(delivery, job, now), began, now)
        except Exception as error:  # noqa: BLE001  the edge of one job: it is buried, and the traceback logged
            delivery.verdict = self.bury_broken(delivery, error)

    async def prepare_in_turn(self, delivery: Delivery, now: float, capabilities: Capabilities) -> None:
        """Do the same, if the turn is over after a round of the event loop; for a big job in a thread, beside the loop.

        The content of a big mail is made as well, for a relay with these ``capabilities``. A cancel leaves the delivery
        without a verdict.
        """
        octets = len(delivery.claim.body)
        if octets <= BIG_OCTETS:
            if not self.turns.take_nowait(octets):
                await self.turns.take(octets)
            self.prepare(delivery, now)
            return
        try:
            job, named = await self.turns.in_thread(partial(self._decoded_and_named, delivery.claim.body))
            self._date(delivery, job, named)
            began = time.perf_counter()
            mail = await self.turns.in_thread(partial(self._made_whole, delivery, job, now, capabilities))
            delivery.verdict = self._taken(delivery, mail, began, now)
        except Exception as error:  # noqa: BLE001  the same
            delivery.verdict = self.bury_broken(delivery, error)

    def bury_broken(self, delivery: Delivery, error: Exception) -> Bury:
        """Return the verdict for a job whose handling raised, and publish the traceback."""
        self.publish(JobBroke(delivery.claim.job_id, _places(error)))
        return bury(delivery.record, Cause("broke", text=type(error).__name__), now_of(delivery.claim))

    def _decoded(self, raw: bytes) -> Job | Malformed:
        return decode_within(raw, self.types, self._budgets)

    def _decoded_and_named(self, raw: bytes) -> tuple[Job | Malformed, str]:
        job = self._decoded(raw)
        return job, job.email_type if isinstance(job, Job) else _type_of(raw, job)

    def _made(self, delivery: Delivery, job: Job | Malformed, now: float) -> Mail | Malformed | Bury | Delay:
        if isinstance(job, Malformed):
            return job
        claim = delivery.claim
        delivery.producer_id = job.producer_id or ""
        if job.producer_id and not delivery.record.mail_id and not claim.record.may_have_gone:
            # Else it is the record of a version that sent the mail under the job's id.
            delivery.record = evolve(delivery.record, mail_id=derived_mail_id(claim.body))
        own = self.options.types.get(job.email_type, _NO_OPTIONS)
        return make_mail(
            job,
            delivery.record,
            delivery.record.mail_id or claim.job_id,
            now,
            self.composer,
            self.only_to,
            max_age_seconds=own.max_age_seconds,
        )

    def _made_whole(
        self, delivery: Delivery, job: Job | Malformed, now: float, capabilities: Capabilities
    ) -> Mail | Malformed | Bury | Delay:
        """Make the mail, and its content as this relay will most likely want it."""
        mail = self._made(delivery, job, now)
        if isinstance(mail, Mail):
            envelope_of(mail, mail.recipients, capabilities, awaits_recipients=False)
        return mail

    def _taken(
        self, delivery: Delivery, mail: Mail | Malformed | Bury | Delay, began: float, now: float
    ) -> Verdict | None:
        """Take the mail into the delivery, or say what becomes of the job without one."""
        delivery.ready_at = time.perf_counter()
        delivery.compose_seconds = delivery.ready_at - began
        if isinstance(mail, Malformed):
            return bury(delivery.record, _cause_of_faults(mail), now)
        if not isinstance(mail, Mail):
            return mail
        own = self.options.types.get(delivery.email_type, _NO_OPTIONS)
        delivery.mail, delivery.recipients = mail, _due_recipients(mail, delivery.record)
        delivery.masked = tuple(map(mask_address, delivery.recipients))
        delivery.on_uncertain = own.on_uncertain or self.options.on_uncertain
        delivery.is_held_when_uncertain = delivery.on_uncertain == "hold"
        return None

    def _date(self, delivery: Delivery, job: Job | Malformed, named: str) -> None:
        """Set the job's type and age; a fresh job's age begins with its push, where that is known or estimated."""
        claim = delivery.claim
        # An unknown type's name may hold anything. A known one names no person, and says which producer to fix.
        delivery.email_type = named if named in self.types or named == MESSAGE else ""
        said = job.enqueued_at if isinstance(job, Job) else None
        if claim.place is None:
            delivery.record = _dated_again(claim, said, delivery.email_type)
            pushed_at = delivery.record.pushed_at
        else:
            pushed_at = self.history.pushed_at(claim.place) if said is None else said
            born = claim.claimed_at
            if pushed_at is not None:
                # A producer's clock may run ahead of Redis': nothing waits for a negative time.
                delivery.is_clock_ahead = said is not None and said > claim.claimed_at
                pushed_at = born = min(pushed_at, claim.claimed_at)
                delivery.waited_seconds = claim.claimed_at - pushed_at
                delivery.is_estimate = said is None
            delivery.record = _fresh_record(born, delivery.email_type, pushed_at)
        if pushed_at is not None:
            # A mail that was pushed ahead of its time is not late before that.
            not_before = job.not_before if isinstance(job, Job) else None
            wanted_at = pushed_at if not_before is None else max(pushed_at, not_before)
            delivery.age_seconds = max(0.0, claim.claimed_at - wanted_at)


def _dated_again(claim: Claim, said: float | None, email_type: str) -> Record:
    """Return the record of a job that was claimed before, with the time of its push.

    If no record has it (a worker died with the job, or a version that did not keep it wrote the record), it is what the
    producer wrote, else the first claim: the job may be older, but no younger.
    """
    record, pushed_at = claim.record, claim.record.pushed_at
    if pushed_at is None:
        first = min(record.born, first_claimed_at(claim.job_id) or record.born)
        pushed_at = min(first if said is None else said, claim.claimed_at)
        if record == Record(claim.claimed_at):
            return _fresh_record(pushed_at, email_type, pushed_at)
    return evolve(record, email_type=email_type, pushed_at=pushed_at)


def _type_of(raw: bytes, job: Malformed) -> str:
    """Return the email type that a job with faults names, as far as it can be told."""
    return "" if job.reason in _WITHOUT_TYPE else named_type(raw) or summarize(raw).email_type


def make_mail(
    job: Job,
    record: Record,
    mail_id: str,
    now: float,
    composer: Composer,
    only_to: str,
    *,
    max_age_seconds: float | None = None,
) -> Mail | Malformed | Bury | Delay:
    """Return the mail of a job; its faults, or a verdict, where none is to go.

    A job may be early or late (`admit`), and ``only_to`` (smtp.only_to) may not name each of its recipients. ``now`` is
    in epoch seconds.
    """
    early_or_late = admit(record, job.not_before, job.expires_at, max_age_seconds, now)
    if early_or_late is not None:
        return early_or_late
    mail = composer.compose(job, mail_id, now)
    if isinstance(mail, Malformed):
        return mail
    if only_to and not may_be_mailed(only_to, _due_recipients(mail, record)):
        return bury(record, Cause("not_allowed", text="smtp.only_to does not name a recipient"), now)
    return mail


def _due_recipients(mail: Mail, record: Record) -> tuple[str, ...]:
    """Return the recipients that are still due: all of a mail that went to none yet.

    Records of 0.1.0 may have domains that are not ASCII.
    """
    if record.due is None:
        return mail.recipients
    return tuple(each if each.isascii() else as_sent(each) for each in record.due)


def now_of(claim: Claim) -> float:
    """Return Redis' clock, carried on by ours since the claim."""
    return claim.claimed_at + trio.current_time() - claim.began


def _cause_of_faults(malformed: Malformed) -> Cause:
    return Cause(str(malformed.reason), text="; ".join(map(str, malformed.faults)))


def _places(error: Exception) -> str:
    """Return the places of a traceback without its message, which may repeat what the job holds."""
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
