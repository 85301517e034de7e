"""Trio. ``enqueue``: jobs from a file or standard input, one JSON document a line, onto the producer's list."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from trio_worker.catalogue import CatalogueFaults, read_catalogue
from trio_worker.cli.surroundings import (
    MISCONFIGURED,
    NOTHING_MATCHED,
    OK,
    PARTLY,
    REFUSED,
    AsJson,
    ConfigFile,
    complain,
    load_settings,
    open_queue,
    print_json,
    refuse,
    report_unavailable,
)
from trio_worker.fault import Malformed
from trio_worker.job import decode
from trio_worker.redis_client import Unavailable
from trio_worker.settings import Settings

# So many jobs go in one RPUSH: few round trips, and no command that Redis chews on for long.
BATCH = 500
_WRAPPED = re.compile(rb'\{"base64": "([A-Za-z0-9+/=]*)"\}')


JobsFile = Annotated[str, Parameter(help="File with one job a line; - for standard input.", allow_leading_hyphen=True)]


async def enqueue(
    file: JobsFile = "-",
    *,
    unchecked: Annotated[
        bool, Parameter(negative=(), help="Push lines as they are, also those no worker takes.")
    ] = False,
    dry_run: Annotated[bool, Parameter(name=["--dry-run", "-n"], negative=(), help="Check, and push nothing.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Put jobs on the queue: one JSON document a line (NDJSON). Lines that no worker would take are refused."""
    settings = load_settings(config)
    lines = await read_lines(file)
    if isinstance(lines, OSError):
        refuse(NOTHING_MATCHED, f"{file}: {lines.strerror}")
    good, faults = (lines, []) if unchecked else _check(lines, settings)
    for fault in faults:
        complain(fault)
    if not lines:
        refuse(NOTHING_MATCHED, f"{file}: no jobs")
    pushed = 0
    depth = None
    if not dry_run and good:
        async with open_queue(settings) as client:
            for start in range(0, len(good), BATCH):
                answer = await client.command("RPUSH", settings.queue.name, *good[start : start + BATCH])
                if isinstance(answer, Unavailable):
                    complain(f"{pushed} of {len(good)} jobs were pushed; whether the next {BATCH} were is not known")
                    return report_unavailable(answer, settings)
                pushed, depth = min(start + BATCH, len(good)), answer
    if as_json:
        print_json({"pushed": pushed, "refused": len(faults), "waiting": depth, "dry_run": dry_run})
    elif dry_run:
        print(f"{len(good)} jobs would be pushed to {settings.queue.name}, {len(faults)} refused")
    else:
        waiting = "" if depth is None else f"; {depth} now wait"
        print(f"{pushed} jobs pushed to {settings.queue.name}, {len(faults)} refused{waiting}")
    return OK if not faults else PARTLY if good else REFUSED


async def read_lines(file: str) -> list[bytes] | OSError:
    """Return the jobs of a file, or of standard input for -, without those lines that are blank."""
    try:
        read = await trio.to_thread.run_sync(_read, file)
    except OSError as error:
        return error
    return [_unwrapped(line.rstrip(b"\r\n")) for line in read.split(b"\n") if line.strip()]


def _unwrapped(line: bytes) -> bytes:
    """Return the job of a line; what queue export could not write as one line of JSON stands in it as base64."""
    wrapped = _WRAPPED.fullmatch(line)
    return line if wrapped is None else base64.b64decode(wrapped[1])


def _read(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _check(lines: list[bytes], settings: Settings) -> tuple[list[bytes], list[str]]:
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        refuse(MISCONFIGURED, *map(str, catalogue.faults))
    good: list[bytes] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        job = decode(line, catalogue.types)
        if len(line) > settings.queue.max_job_bytes:
            faults.append(f"line {number}: is larger than queue.max_job_bytes ({settings.queue.max_job_bytes})")
        elif isinstance(job, Malformed):
            faults.append(f"line {number}: {job}")
        else:
            good.append(line)
    return good, faults
