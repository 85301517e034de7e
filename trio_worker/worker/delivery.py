"""Edge. One delivery: a claimed job, its mail, and all that is known of both until the settlement."""

from __future__ import annotations

from trio_worker.mail.composer import Mail
from trio_worker.queue.claim import Claim
from trio_worker.queue.record import Record
from trio_worker.queue.settlement import DONE, Delay, Done, Settlement, Verdict
from trio_worker.records import define
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.outcome import Accepted, Outcome, Uncertain
from trio_worker.worker.attempt import AttemptReport
from trio_worker.worker.events import SettledJob
from trio_worker.worker.phase import Disposition
from trio_worker.worker.verdict import cause_of_acceptance


@define(eq=False)
class Delivery:
    """One claimed job on its way to its settlement.

    ``age_seconds`` runs from push (or not_before, if later) to this claim, ``waited_seconds`` from push to the first
    claim: None for a job that was claimed before.
    ``recipients`` are those that the mail is still due to, ``masked`` the same as a log may show them; those that a
    connection cannot serve become ``unfit`` when it has the mail. ``ready_at``, of the counter that measures how long
    it waits for a connection (seconds), is set when the mail is made.
    """

    claim: Claim
    record: Record
    email_type: str = ""
    waited_seconds: float | None = None
    age_seconds: float | None = None
    is_estimate: bool = False
    is_clock_ahead: bool = False
    mail: Mail | None = None
    recipients: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    unfit: tuple[str, ...] = ()
    on_uncertain: str = ""
    is_held_when_uncertain: bool = False  # where it stays unknown whether the relay took the mail
    compose_seconds: float = 0.0
    ready_at: float = 0.0
    borrow_seconds: float = 0.0
    content_bytes: int = 0
    outcome: Outcome | None = None
    smtp_seconds: float | None = None
    connection_id: int | None = None
    tried: AttemptReport | None = None
    producer_id: str = ""
    receipt: str = ""
    verdict: Verdict | None = None

    @property
    def args(self) -> tuple[str, str]:
        """The arguments of the settlement for Redis; nearly every mail is done, and takes a short cut."""
        if self.verdict is DONE:
            return self.claim.job_id, f"{self.claim.token}|done|0|0|{self.receipt}"
        return self.settlement.args

    @property
    def settlement(self) -> Settlement:
        """The settlement of the job."""
        if self.verdict is None:
            raise AssertionError("a delivery is settled before its verdict")
        return Settlement(self.claim, self.verdict, isinstance(self.outcome, Uncertain), self.receipt)

    def envelope(self, capabilities: Capabilities, *, awaits_recipients: bool) -> Envelope:
        """Return the mail as it goes over a connection with these capabilities."""
        if self.mail is None:
            raise AssertionError("a delivery goes before its mail is made")
        envelope = envelope_of(self.mail, self.recipients, capabilities, awaits_recipients=awaits_recipients)
        self.content_bytes = len(envelope.content)
        if envelope.recipients is not self.recipients:
            self.unfit = tuple(each for each in self.recipients if each not in envelope.recipients)
            self.recipients = envelope.recipients
        return envelope

    def settled(self, disposition: Disposition, total_seconds: float) -> SettledJob:
        """Return the event of the job's settlement, ``total_seconds`` after its claim."""
        verdict, outcome = self.verdict, self.outcome
        cause = None if verdict is None or isinstance(verdict, Done) else verdict.cause
        if cause is None and isinstance(outcome, Accepted):
            cause = cause_of_acceptance(outcome.reply)
        return SettledJob(  # mostly by place: there is one for each mail, and names for all would cost it half as much
            self.claim.job_id,
            disposition,
            self.email_type,
            self.record.attempts + 1,
            cause,
            self.masked,
            self.is_estimate,
            self.connection_id,
            isinstance(outcome, Uncertain),
            self.is_clock_ahead,
            self.tried,
            delay_seconds=verdict.seconds if isinstance(verdict, Delay) else 0.0,
            waited_seconds=self.waited_seconds,
            smtp_seconds=self.smtp_seconds,
            total_seconds=total_seconds,
            latency_seconds=None if self.age_seconds is None else self.age_seconds + total_seconds,
        )


def envelope_of(
    mail: Mail, recipients: tuple[str, ...], capabilities: Capabilities, *, awaits_recipients: bool
) -> Envelope:
    """Return a mail as it goes to these recipients over a connection with these capabilities.

    Recipients that are not ASCII are left out where the relay does not offer SMTPUTF8 (RFC 6531) and others can have
    the mail.
    """
    smtputf8 = mail.uses_smtputf8
    if smtputf8 and not mail.needs_smtputf8 and not capabilities.smtputf8:
        fit = tuple(recipient for recipient in recipients if recipient.isascii())
        if fit:
            recipients, smtputf8 = fit, False
    content = mail.content(eight_bit=capabilities.eight_bit, smtputf8=smtputf8)
    return Envelope(mail.sender, recipients, content, smtputf8, not content.isascii(), awaits_recipients)
