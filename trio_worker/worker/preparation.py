"""Trio. A claimed job becomes a delivery whose mail is made, or whose verdict is known without one."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from functools import lru_cache

import trio
from attrs import define, evolve

from trio_worker.jobs.address import as_sent, may_be_mailed
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
from trio_worker.worker.delivery import Delivery
from trio_worker.worker.events import JobBroke, Publish
from trio_worker.worker.verdict import admit, bury

_NO_OPTIONS = TypeOptions()


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

    def prepare(self, claim: Claim, now: float) -> Delivery:
        """Return the delivery of a job; it has a verdict where there is nothing to send. Never raises for a job.

        ``now`` is Redis' clock in epoch seconds.
        """
        delivery = Delivery(claim, claim.record)
        try:
            delivery.verdict = self._verdict(delivery, now)
        except Exception as error:  # noqa: BLE001  the edge of one job: it is buried, and the traceback logged
            delivery.verdict = self.bury_broken(delivery, error)
        return delivery

    def bury_broken(self, delivery: Delivery, error: Exception) -> Bury:
        """Return the verdict for a job whose handling raised, and publish the traceback."""
        self.publish(JobBroke(delivery.claim.job_id, _places(error)))
        return bury(delivery.record, Cause("broke", text=type(error).__name__), now_of(delivery.claim))

    def _verdict(self, delivery: Delivery, now: float) -> Verdict | None:
        """Decode the job and compose its mail into the delivery, or say what becomes of it without."""
        claim = delivery.claim
        job = decode(claim.body, self.types)
        self._date(delivery, job)
        if isinstance(job, Malformed):
            return bury(delivery.record, _cause_of_faults(job), now)
        if job.producer_id and not delivery.record.mail_id and not claim.record.may_have_gone:
            # Else it is the record of a version that sent the mail under the job's id.
            delivery.record = evolve(delivery.record, mail_id=derived_mail_id(claim.body))
        own = self.options.types.get(job.email_type, _NO_OPTIONS)
        began = time.perf_counter()
        mail = make_mail(
            job,
            delivery.record,
            delivery.record.mail_id or claim.job_id,
            now,
            self.composer,
            self.only_to,
            max_age_seconds=own.max_age_seconds,
        )
        delivery.ready_at = time.perf_counter()
        delivery.compose_seconds = delivery.ready_at - began
        if isinstance(mail, Malformed):
            return bury(delivery.record, _cause_of_faults(mail), now)
        if not isinstance(mail, Mail):
            return mail
        delivery.mail, delivery.recipients = mail, _due_recipients(mail, delivery.record)
        delivery.masked = tuple(map(mask_address, delivery.recipients))
        delivery.on_uncertain = own.on_uncertain or self.options.on_uncertain
        delivery.is_held_when_uncertain = delivery.on_uncertain == "hold"
        return None

    def _date(self, delivery: Delivery, job: Job | Malformed) -> None:
        """Set the job's type and age; a fresh job's age begins with its push, where that is known or estimated."""
        claim = delivery.claim
        # An unknown type's name may hold anything. A known one names no person, and says which producer to fix.
        named = job.email_type if isinstance(job, Job) else summarize(claim.body).email_type
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
