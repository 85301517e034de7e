"""Trio. ``dead``: the jobs that cannot be sent, why, and how to send them after all."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from attrs import asdict
from cyclopts import App, Parameter

from trio_worker.cli.surroundings import (
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
    report_unavailable,
    time_of_day,
)
from trio_worker.inspection import PAGE, ShelvedJob, count_jobs, find_shelved, read_shelf, revive
from trio_worker.privacy import mask_text
from trio_worker.redis_client import RedisClient, Unavailable
from trio_worker.settings import Settings

dead = App(name="dead", help="Dead letters: what they are, why they died, and back with them.", help_format="plaintext")

Reveal = Annotated[bool, Parameter(negative=(), help="Show addresses and the job itself. Mind who reads along.")]
DryRun = Annotated[bool, Parameter(name=["--dry-run", "-n"], negative=(), help="Only say what would be done.")]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")]


@dead.command(name="list")
async def list_dead(
    *,
    limit: Annotated[int, Parameter(help="How many, newest first.")] = 20,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """List dead letters, newest first."""
    settings = load_settings(config)
    async with open_queue(settings) as client:
        jobs = await read_shelf(client, settings.queue.name, "dead", limit)
        counts = await count_jobs(client, settings.queue.name)
    if isinstance(jobs, Unavailable):
        return report_unavailable(jobs, settings)
    if isinstance(counts, Unavailable):
        return report_unavailable(counts, settings)
    if as_json:
        print_json({"dead": counts.dead, "jobs": [describe(job, reveal=False) for job in jobs]})
        return OK
    for job in jobs:
        cause = mask_text(str(job.cause))
        print(f"{time_of_day(job.at)}  {job.job_id}  {job.record.email_type or '-':<14} {cause}"[:200])
    print(f"{len(jobs)} of {counts.dead} dead letters. More of one: trio-worker dead show ID")
    return OK


@dead.command(name="show")
async def show_dead(job_id: str, *, reveal: Reveal = False, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show one dead letter: why it died, and its attempts."""
    settings = load_settings(config)
    async with open_queue(settings) as client:
        jobs = await find_shelved(client, settings.queue.name, "dead", [job_id])
    if isinstance(jobs, Unavailable):
        return report_unavailable(jobs, settings)
    if not jobs:
        complain(f"{job_id}: no such dead letter")
        return NOTHING_MATCHED
    described = describe(jobs[0], reveal=reveal)
    if as_json:
        print_json(described)
    else:
        _print_job(jobs[0], described, reveal=reveal)
    return OK


@dead.command(name="retry")
async def retry_dead(
    job_ids: Annotated[Sequence[str], Parameter(help="Ids of dead letters; none with --all.")] = (),
    *,
    every: Annotated[bool, Parameter(name=["--all"], negative=(), help="All dead letters.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Put dead letters back: due now, with new attempts and a new age, and the same Message-ID."""
    if bool(job_ids) == every:
        complain("name the dead letters to retry, or --all")
        return REFUSED
    settings = load_settings(config)
    async with open_queue(settings) as client:
        jobs = await _chosen(client, settings, job_ids, every=every)
        if isinstance(jobs, Unavailable):
            return report_unavailable(jobs, settings)
        missing = len(job_ids) - len(jobs) if job_ids else 0
        if missing:
            complain(f"{missing} of {len(job_ids)} are no dead letters")
        if not jobs:
            complain("nothing to retry")
            return NOTHING_MATCHED
        if dry_run:
            print(f"{len(jobs)} dead letters would be put back on {settings.queue.name}")
            return OK
        if len(jobs) > 1 and not yes and not _agreed(f"Put {len(jobs)} dead letters back on {settings.queue.name}?"):
            complain("refused: say --yes to do it without a question")
            return REFUSED
        counts = await count_jobs(client, settings.queue.name)
        if isinstance(counts, Unavailable):
            return report_unavailable(counts, settings)
        back = await revive(client, settings.queue.name, "dead", jobs, counts.at)
    if isinstance(back, Unavailable):
        return report_unavailable(back, settings)
    if as_json:
        print_json({"retried": sorted(back), "missing": missing})
    else:
        print(f"{len(back)} dead letters are due again on {settings.queue.name}, each with its old Message-ID")
        print("a worker that has nothing else to do takes them within 5 s")
    return PARTLY if missing or len(back) < len(jobs) else OK


def describe(job: ShelvedJob, *, reveal: bool) -> dict[str, Any]:
    """Return a job as --json shows it: addresses masked and without its body, unless revealed."""
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
        "body_bytes": len(job.body),
    }
    if reveal:
        described["due"] = record["due"]
        described["failed"] = record["failed"]
        # The original bytes need not be text: base64 carries them unchanged.
        described["body_base64"] = base64.b64encode(job.body).decode("ascii")
    return described


async def _chosen(
    client: RedisClient, settings: Settings, job_ids: Sequence[str], *, every: bool
) -> list[ShelvedJob] | Unavailable:
    if not every:
        return await find_shelved(client, settings.queue.name, "dead", list(dict.fromkeys(job_ids)))
    counts = await count_jobs(client, settings.queue.name)
    if isinstance(counts, Unavailable):
        return counts
    return await read_shelf(client, settings.queue.name, "dead", max(counts.dead, PAGE))


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def _print_job(job: ShelvedJob, described: dict[str, Any], *, reveal: bool) -> None:
    print(f"{job.job_id}   {job.record.email_type or '-'}   DEAD since {described['at']}")
    print(f"why       {described['cause']['word']}", end="")
    codes = " ".join(word for word in (job.cause.codes, job.cause.stage.upper()) if word)
    print(f"   {codes}" if codes else "")
    for part in described["cause"]["text"].split("; "):
        if part:
            print(f"          {part}")
    print(f"attempts  {job.record.attempts}, of these uncertain {job.record.uncertain}")
    for attempt in described["timeline"]:
        print(f"          {attempt['at']}  {attempt['what']}  {attempt['codes']} {attempt['stage'].upper()}".rstrip())
    if reveal:
        for failed in described["failed"]:
            print(f"failed    {failed['recipient']}  {failed['codes']} {failed['text']}")
        print(f"body      {job.body.decode('utf-8', 'backslashreplace')}")
    else:
        print(f"body      {len(job.body):,} bytes; --reveal shows it and the addresses")
