"""Pure. One job as a command prints it: addresses masked and without its body, unless revealed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import asdict

from trio_worker.jobs.address import AddressFault, parse_mailbox
from trio_worker.jobs.summary import summarize
from trio_worker.mail.message_id import derived_mail_id
from trio_worker.printing import visible
from trio_worker.privacy import mask_address, mask_text
from trio_worker.queue.record import UNKNOWN_CAUSE, Record, Said, ShelvedJob
from trio_worker.telemetry.number_words import duration

# A Message may have hundreds of recipients; JSON has all of them.
RECIPIENTS_SHOWN = 5


def time_of_day(at: float) -> str:
    """Return epoch seconds as an RFC 3339 time in UTC."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def mail_id_of(job: ShelvedJob) -> str:
    """Return the left side of the Message-ID that the mail of a job has, or will have."""
    if job.record.mail_id:
        return job.record.mail_id
    has_id = not job.record.may_have_gone and summarize(job.body).producer_id
    return derived_mail_id(job.body) if has_id else job.job_id


def describe(job: ShelvedJob, *, reveal: bool, message_id: str = "") -> dict[str, Any]:
    """Return a job as ``--json`` prints it; recipients are included only if the body was read."""
    cause = asdict(job.cause)
    record = asdict(job.record)
    described: dict[str, Any] = {
        "job_id": job.job_id,
        "at": time_of_day(job.at),
        "email_type": job.record.email_type,
        "attempts": job.record.attempts,
        "uncertain": job.record.uncertain,
        "cause": cause if reveal else {**cause, "text": mask_text(job.cause.text)},
        "born": time_of_day(job.record.born),
        "pushed_at": None if job.record.pushed_at is None else time_of_day(job.record.pushed_at),
        "timeline": _timeline(job.record, reveal=reveal),
        "body_bytes": job.body_bytes,
    }
    if message_id:
        described["message_id"] = message_id
    if job.body:
        described["to"] = _shown_recipients(summarize(job.body).recipients, reveal=reveal)
        described["delivered"] = job.record.delivered
        if job.record.due is not None:
            described["due_to"] = _shown_recipients(job.record.due, reveal=reveal)
    if reveal:
        described["due"] = record["due"]
        described["failed"] = record["failed"]
        # The original bytes need not be text: base64 carries them unchanged.
        described["body_base64"] = base64.b64encode(job.body).decode("ascii")
    return described


def _timeline(record: Record, *, reveal: bool) -> list[dict[str, Any]]:
    """Return the attempts, oldest first; the last ones with the reply, the connection and the seconds."""
    more = {said.at: said for said in record.said}
    lines = []
    for attempt in record.timeline:
        said = more.get(attempt.at, Said(attempt.at))
        text = said.text if reveal else mask_text(said.text)
        where = {"text": text, "connection": said.connection, "seconds": said.seconds}
        lines.append({**asdict(attempt), "at": time_of_day(attempt.at), **where})
    return lines


def _shown_recipients(recipients: Iterable[str], *, reveal: bool) -> list[str]:
    """Return addresses, masked unless revealed; text that is no address is always hidden."""
    mailboxes = (parse_mailbox(recipient) for recipient in recipients)
    return [
        "…" if isinstance(mailbox, AddressFault) else mailbox.address if reveal else mask_address(mailbox.address)
        for mailbox in mailboxes
    ]


def why_line(job: ShelvedJob) -> str:
    """Return the email type of a job and why it is in its state, on one line."""
    return f"{job.record.email_type or '-'} {mask_text(str(job.cause))}"[:200]


def job_lines(job: ShelvedJob, state: str, *, reveal: bool, message_id: str) -> Iterator[str]:
    """Yield the lines that show one job in full, its attempts oldest first."""
    described = describe(job, reveal=reveal, message_id=message_id)
    since = "until" if state in {"leased", "delayed"} else "since"
    yield f"{job.job_id}   {job.record.email_type or '-'}   {state.upper()} {since} {described['at']}"
    yield f"to        {_several(described.get('to', []))}"
    if len(described.get("to", ())) > 1 and "due_to" in described:
        parted = f"{job.record.delivered:,} delivered, {len(job.record.failed):,} refused permanently"
        yield f"          {parted}; still due: {_several(described['due_to'])}"
    yield f"mail      Message-ID {message_id or '-'}"
    cause = described["cause"]
    codes = " ".join(word for word in (job.cause.codes, job.cause.stage.upper()) if word)
    if since == "since" or job.cause != UNKNOWN_CAUSE:  # a job that was retried has no cause
        yield f"why       {cause['word']}   {codes}".rstrip()
        yield from (f"          {part}" for part in cause["text"].split("; ") if part)
    pushed_at = described["pushed_at"]
    first = f"first seen {described['born']}" if pushed_at is None else f"pushed {pushed_at}"
    yield f"attempts  {job.record.attempts}, of these uncertain {job.record.uncertain}; {first}"
    yield from (f"          {_attempt_line(attempt)}" for attempt in described["timeline"])
    if reveal:
        yield from (f"failed    {each['recipient']}  {each['codes']} {each['text']}" for each in described["failed"])
        yield f"body      {job.body.decode('utf-8', 'backslashreplace')}"
    else:
        yield f"body      {job.body_bytes:,} bytes; --reveal shows it and the addresses"


def _several(recipients: Sequence[str]) -> str:
    more = f" and {len(recipients) - RECIPIENTS_SHOWN:,} more" if len(recipients) > RECIPIENTS_SHOWN else ""
    return (", ".join(recipients[:RECIPIENTS_SHOWN]) or "-") + more


def _attempt_line(attempt: Mapping[str, Any]) -> str:
    place = " ".join(filter(None, (attempt["codes"], attempt["stage"].upper())))
    where = f"connection {attempt['connection']}" if attempt["connection"] is not None else ""
    took = duration(attempt["seconds"]) if attempt["seconds"] is not None else ""
    aside = ", ".join(filter(None, (where, took)))
    return "  ".join(filter(None, (attempt["at"], attempt["what"], place, aside and f"({aside})", attempt["text"])))


def line_of_job(raw: bytes) -> str:
    """Return a job on one line, as it was pushed; in base64 if it is not one line of JSON: `enqueue` takes both."""
    try:
        json.loads(raw)
        text = raw.decode("utf-8")
    except ValueError:
        text = ""
    if text and text == visible(text):
        return text
    return json.dumps({"base64": base64.b64encode(raw).decode("ascii")})
