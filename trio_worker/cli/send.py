"""Trio. ``send``: sends the mail of one job now, over a new connection; without queue, Redis or retry."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Never, assert_never

import trio
from cyclopts import Parameter

from trio_worker.bridge import open_bridge
from trio_worker.cli.audit_log import log_action
from trio_worker.cli.connect import exit_on_signals
from trio_worker.cli.enqueue import read_lines
from trio_worker.cli.exit_codes import (
    LOGIN_REFUSED,
    MISCONFIGURED,
    NOTHING_MATCHED,
    OK,
    PARTLY,
    REFUSED,
    TIMED_OUT,
    UNREACHABLE,
    USAGE,
)
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.missing_password import missing_password
from trio_worker.cli.output import print_json, refuse
from trio_worker.cli.setup import MailSetup, read_mail_setup, relay_of
from trio_worker.jobs.budget import decode_within
from trio_worker.jobs.fault import Malformed
from trio_worker.mail.composer import Mail
from trio_worker.printing import complain, say
from trio_worker.privacy import mask_address, mask_text
from trio_worker.queue.job_id import new_id_prefix
from trio_worker.queue.record import Record
from trio_worker.queue.settlement import Bury, Delay
from trio_worker.records import frozen
from trio_worker.settings.reader import Settings
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, NotSent, Outcome, Refused, Trouble, Uncertain, Unopened, Unsendable
from trio_worker.smtp.session import open_session
from trio_worker.telemetry.number_words import duration
from trio_worker.telemetry.words import trouble_words
from trio_worker.worker.delivery import envelope_of
from trio_worker.worker.left_out import WHY_UNFIT
from trio_worker.worker.preparation import make_mail


@frozen
class _Result:
    """The result: the exit code, one word, and the reply of the relay or the reason why there is none."""

    code: int
    word: str
    why: str


_JobFile = Annotated[str, Parameter(help="File with the job; - for standard input.", allow_leading_hyphen=True)]


async def send(file: _JobFile = "-", *, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Send the mail of one job now, without the queue and without a retry: to try a template, a login or an address."""
    settings = load_settings(config)
    missing = missing_password(settings)
    if missing is not None:
        refuse(MISCONFIGURED, str(missing))
    lines = await read_lines(file)
    if isinstance(lines, OSError):
        refuse(NOTHING_MATCHED, f"{file}: {lines.strerror}")
    if len(lines) != 1:
        refuse(USAGE, f"{file}: has {len(lines)} jobs, but send takes one; trio-worker enqueue takes many")
    job_id = f"{new_id_prefix()}000"
    mail = _composed(lines[0], job_id, settings, read_mail_setup(settings))
    log_action(settings, "Sends by hand", {"command": "send", "job": job_id})
    async with exit_on_signals(), open_bridge(complain):
        outcome, unfit = await _deliver(mail, settings)
    result = _result_of(outcome, unfit)
    refused = list(_refusals(outcome, unfit))
    if as_json:
        document = {"job_id": job_id, "outcome": result.word, "why": result.why, "refused": refused}
        print_json(Document.SENT, {**document, "message_id": mail.message_id})
    else:
        say(f"{result.word}: {result.why}")
        if result.code in {OK, PARTLY, TIMED_OUT}:
            say(f"Message-ID {mail.message_id}")
        for each in refused:
            say(f"refused {each['recipient']}: {each['reply']}")
    return result.code


def _composed(line: bytes, job_id: str, settings: Settings, mail_setup: MailSetup) -> Mail:
    """Compose the mail as a worker does, or exit with 4."""
    now = time.time()
    job = decode_within(line, mail_setup.catalogue.types, settings.mail.budgets)
    if isinstance(job, Malformed):
        refuse(REFUSED, *map(str, job.faults))
    mail = make_mail(job, Record(now), job_id, now, mail_setup.composer, settings.smtp.only_to)
    match mail:
        case Malformed(faults=faults):
            refuse(REFUSED, *map(str, faults))
        case Delay(seconds):
            wait = duration(seconds)
            refuse(REFUSED, f"not_before: the mail is due in {wait}; trio-worker enqueue sends it then")
        case Bury(cause=cause):
            refuse(REFUSED, str(cause))
        case Mail():
            pass
        case _:
            assert_never(mail)
    return mail


async def _deliver(mail: Mail, settings: Settings) -> tuple[Outcome, tuple[str, ...]]:
    """Open a connection, deliver the mail, and send QUIT; return also the recipients that had no part in it.

    A cancel aborts the connection; if the mail may have been sent, a line says so.
    """
    opened = await open_session(relay_of(settings))
    if isinstance(opened, Trouble):
        return Unopened(opened), ()
    connection = Connection(1, opened, settings.smtp_timeouts)
    try:
        async with trio.open_nursery() as beside:
            beside.start_soon(connection.watch)
            beside.start_soon(_abort_when_cancelled, connection)
            envelope = envelope_of(mail, mail.recipients, opened.capabilities, awaits_recipients=False)
            outcome = await connection.deliver(envelope)
            if isinstance(outcome, Uncertain) and outcome.loss.how is FailureKind.CANCELLED:
                complain(f"uncertain: {_result_of(outcome, ()).why}; Message-ID {mail.message_id}")
            await connection.close()
            beside.cancel_scope.cancel()
    finally:
        connection.abort()
    return outcome, tuple(each for each in mail.recipients if each not in envelope.recipients)


async def _abort_when_cancelled(connection: Connection) -> Never:
    """Abort the connection at a cancel: else the cancel would wait for the reply, which may take minutes."""
    try:
        await trio.sleep_forever()
    finally:
        connection.abort()


def _result_of(outcome: Outcome, unfit: tuple[str, ...]) -> _Result:
    match outcome:
        case Accepted(reply, refusals):
            return _Result(PARTLY if refusals or unfit else OK, "sent", mask_text(str(reply)))
        case Refused(reply):
            return _Result(REFUSED, "refused", mask_text(f"{reply} at {reply.stage.upper()}"))
        case Unsendable(why):
            return _Result(REFUSED, "not sent", why)
        case NotSent(loss):
            return _Result(UNREACHABLE, "not sent", mask_text(str(loss)))
        case Uncertain(loss):
            return _Result(TIMED_OUT, "uncertain", mask_text(f"it may have been delivered: {loss}"))
        case Unopened(trouble):
            code = LOGIN_REFUSED if trouble.how is FailureKind.LOGIN else UNREACHABLE
            return _Result(code, "not sent", mask_text(trouble_words(trouble)))
        case _:
            assert_never(outcome)


def _refusals(outcome: Outcome, unfit: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for recipient in unfit:
        yield {"recipient": mask_address(recipient), "reply": WHY_UNFIT}
    if isinstance(outcome, Accepted | Refused):
        for refusal in outcome.refusals:
            yield {"recipient": mask_address(refusal.recipient), "reply": mask_text(str(refusal.reply))}
