"""Trio. ``enqueue``: pushes jobs from a file or standard input to the queue, one JSON document per line."""

from __future__ import annotations

import base64
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import trio
from cyclopts import Parameter

from trio_worker.cli.connect import open_queue
from trio_worker.cli.exit_codes import MISCONFIGURED, NOTHING_MATCHED, OK, PARTLY, REFUSED
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import did_you_mean, print_json, refuse, report_unavailable
from trio_worker.fleet.overview import read_overview
from trio_worker.jobs.budget import decode_within
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.jobs.email_type import MESSAGE, TypeSpec
from trio_worker.jobs.fault import Malformed, safe_name
from trio_worker.jobs.strict_json import read_json
from trio_worker.jobs.summary import summarize
from trio_worker.printing import complain, say
from trio_worker.redis.calls import Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.heartbeat import WorkerSeen
from trio_worker.telemetry.number_words import counted

# The number of jobs in one RPUSH: few round trips, and no call that blocks Redis for long.
BATCH = 500
_WRAPPED = re.compile(rb'\{"base64": "([A-Za-z0-9+/=]*)"\}')
_EMAIL_TYPE = "$.data.email_type"


JobsFile = Annotated[
    str, Parameter(help="File with one job per line; - for standard input.", allow_leading_hyphen=True)
]


async def enqueue(
    file: JobsFile = "-",
    *,
    unchecked: Annotated[
        bool, Parameter(negative=(), help="Push all lines unchecked, also jobs that workers will refuse.")
    ] = False,
    dry_run: Annotated[
        bool, Parameter(name=["--dry-run", "-n"], negative=(), help="Check the jobs, and push none.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Push jobs to the queue, one JSON document per line (NDJSON). Jobs that workers would refuse are not pushed."""
    settings = load_settings(config)
    lines = await read_lines(file)
    if isinstance(lines, OSError):
        refuse(NOTHING_MATCHED, f"{file}: {lines.strerror}")
    types = _types(settings)
    good, faults, named = _unchecked(lines) if unchecked else _check(lines, types, settings)
    for fault in faults:
        complain(fault)
    if len(lines) > 1 and not good and not isinstance(read_json(b"\n".join(lines)), Malformed):
        complain("the input is one JSON document on several lines, but a job must be one line: use jq -c .")
    for warning in _unknown_here(named, types):
        complain(warning)
    if not lines:
        refuse(NOTHING_MATCHED, f"{file}: no jobs")
    pushed = 0
    depth = None
    if not dry_run and good:
        async with open_queue(settings) as client:
            for start in range(0, len(good), BATCH):
                answer = await client.command("RPUSH", settings.queue.name, *good[start : start + BATCH])
                if isinstance(answer, Unavailable):
                    complain(not_pushed(answer, pushed, len(good)))
                    return report_unavailable(answer, settings)
                pushed, depth = min(start + BATCH, len(good)), answer
            seen = await read_overview(client, settings.queue.name, 1)
            workers = () if isinstance(seen, Unavailable) else seen.workers
            for warning in unknown_to_workers(named, workers):
                complain(warning)
    if as_json:
        print_json(Document.ENQUEUE, {"pushed": pushed, "refused": len(faults), "waiting": depth, "dry_run": dry_run})
    elif dry_run:
        say(f"{counted(len(good), 'job')} would be pushed to {settings.queue.name}, {len(faults):,} refused")
    else:
        waiting = "" if depth is None else f"; {depth:,} now {'waits' if depth == 1 else 'wait'}"
        say(f"{counted(pushed, 'job')} pushed to {settings.queue.name}, {len(faults)} refused{waiting}")
    return OK if not faults else PARTLY if good else REFUSED


def not_pushed(answer: Unavailable, pushed: int, number: int) -> str:
    """Return how many of a number of jobs were pushed when Redis did not take the next batch; pure."""
    told = f"{pushed:,} of {counted(number, 'job')} pushed"
    if answer.is_refusal or answer.is_unsent:
        return told
    batch = min(BATCH, number - pushed)
    return f"{told}; it is unknown whether the next {counted(batch, 'job')} {'was' if batch == 1 else 'were'}"


async def read_lines(file: str) -> list[bytes] | OSError:
    """Return the jobs in a file, or in standard input for -, without blank lines."""
    try:
        read = await trio.to_thread.run_sync(_read, file)
    except OSError as error:
        return error
    return [_unwrapped(line.rstrip(b"\r\n")) for line in read.split(b"\n") if line.strip()]


def _unwrapped(line: bytes) -> bytes:
    """Return the job of a line; `queue export` writes a job in base64 if it is not one line of JSON."""
    wrapped = _WRAPPED.fullmatch(line)
    return line if wrapped is None else base64.b64decode(wrapped[1])


def _read(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _types(settings: Settings) -> Mapping[str, TypeSpec]:
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        refuse(MISCONFIGURED, *map(str, catalogue.faults))
    return catalogue.types


# Lines to push, faults of the others, and how many jobs name each email type.
_Checked: TypeAlias = tuple[list[bytes], list[str], Counter[str]]


def _unchecked(lines: list[bytes]) -> _Checked:
    return lines, [], Counter(filter(None, (summarize(line).email_type for line in lines)))


def _check(lines: list[bytes], types: Mapping[str, TypeSpec], settings: Settings) -> _Checked:
    good: list[bytes] = []
    faults: list[str] = []
    named: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        job = decode_within(line, types, settings.mail.budgets)
        if len(line) > settings.queue.max_job_bytes:
            faults.append(f"line {number}: is larger than queue.max_job_bytes ({settings.queue.max_job_bytes})")
        elif isinstance(job, Malformed):
            faults.append(f"line {number}: {job}{_guess(job, line, types)}")
        else:
            good.append(line)
            named[job.email_type] += 1
    return good, faults, named


def _guess(job: Malformed, line: bytes, types: Mapping[str, TypeSpec]) -> str:
    """Return the known email type with the most similar name, if the fault is the email type."""
    if job.reason != "unknown_type" or job.faults[0].path != _EMAIL_TYPE:
        return ""
    return did_you_mean(summarize(line).email_type, (*types, MESSAGE))


def _unknown_here(named: Counter[str], types: Mapping[str, TypeSpec]) -> list[str]:
    """Return warnings about email types that are unknown here; with checked lines there are none."""
    known = (*types, MESSAGE)
    return [
        f"warning: {counted(jobs, 'job')} of type {safe_name(name)}, which is not known here{did_you_mean(name, known)}"
        for name, jobs in named.items()
        if name not in known
    ]


def unknown_to_workers(named: Counter[str], workers: Iterable[WorkerSeen]) -> list[str]:
    """Return warnings about email types that no live worker knows; a worker without a list may know all; pure."""
    live = [set(worker.beat.types) for worker in workers if not worker.is_lost]
    if not live or not all(live):
        return []
    known = set.union(*live, {MESSAGE})
    return [
        f"warning: no live worker knows {safe_name(name)}: {counted(jobs, 'job')} will become dead letters. "
        "A worker knows the email types that existed when it started."
        for name, jobs in named.items()
        if name not in known
    ]
