"""Pure. One job as a command prints it: addresses masked and without its body, unless revealed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from attrs import asdict

from trio_worker.privacy import mask_text
from trio_worker.shelves import ShelvedJob


def time_of_day(at: float) -> str:
    """Return epoch seconds as an RFC 3339 time in UTC."""
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe(job: ShelvedJob, *, reveal: bool) -> dict[str, Any]:
    """Return a job as ``--json`` shows it."""
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
        "timeline": [{**attempt, "at": time_of_day(attempt["at"])} for attempt in record["timeline"]],
        "body_bytes": job.body_bytes,
    }
    if reveal:
        described["due"] = record["due"]
        described["failed"] = record["failed"]
        # The original bytes need not be text: base64 carries them unchanged.
        described["body_base64"] = base64.b64encode(job.body).decode("ascii")
    return described


def job_line(job: ShelvedJob) -> str:
    """Return the one line of a job in a list."""
    cause = mask_text(str(job.cause))
    return f"{time_of_day(job.at)}  {job.job_id}  {job.record.email_type or '-':<14} {cause}"[:200]


def job_lines(job: ShelvedJob, state: str, *, reveal: bool) -> Iterator[str]:
    """Give everything known of one job, its attempts oldest first."""
    described = describe(job, reveal=reveal)
    since = "until" if state in {"leased", "delayed"} else "since"
    yield f"{job.job_id}   {job.record.email_type or '-'}   {state.upper()} {since} {described['at']}"
    cause = described["cause"]
    codes = " ".join(word for word in (job.cause.codes, job.cause.stage.upper()) if word)
    yield f"why       {cause['word']}   {codes}".rstrip()
    yield from (f"          {part}" for part in cause["text"].split("; ") if part)
    yield f"attempts  {job.record.attempts}, of these uncertain {job.record.uncertain}"
    for attempt in described["timeline"]:
        yield f"          {attempt['at']}  {attempt['what']}  {attempt['codes']} {attempt['stage'].upper()}".rstrip()
    if reveal:
        yield from (f"failed    {each['recipient']}  {each['codes']} {each['text']}" for each in described["failed"])
        yield f"body      {job.body.decode('utf-8', 'backslashreplace')}"
    else:
        yield f"body      {job.body_bytes:,} bytes; --reveal shows it and the addresses"
