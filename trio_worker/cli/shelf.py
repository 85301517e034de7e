"""Trio. What ``dead`` and ``held`` have in common: list, show, retry, drop."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeAlias

from attrs import frozen
from cyclopts import App, Parameter
from cyclopts.validators import Number

from trio_worker.cli.job_text import describe, job_line, job_lines
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
)
from trio_worker.inspection import PAGE, Shelf, ShelvedJob, count_jobs, drop, find_shelved, read_shelf, revive
from trio_worker.redis_client import RedisClient, Unavailable
from trio_worker.settings import Settings

Reveal = Annotated[bool, Parameter(negative=(), help="Show addresses and the job itself. Mind who reads along.")]
DryRun = Annotated[bool, Parameter(name=["--dry-run", "-n"], negative=(), help="Only say what would be done.")]
Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")]
JobIds = Annotated[Sequence[str], Parameter(help="Ids of jobs; none with --all.")]
Every = Annotated[bool, Parameter(name=["--all"], negative=(), help="All of them.")]

# Does what the command is for; returns the ids of the jobs that it found where they were to be.
Move: TypeAlias = Callable[[RedisClient, Settings, Sequence[ShelvedJob]], Awaitable[frozenset[str] | Unavailable]]


@frozen
class Wording:
    """How the commands speak of one shelf."""

    shelf: Shelf
    one: str
    many: str


@frozen
class Change:
    """One way off a shelf: the question, what a dry run says, and what was done."""

    question: str
    would: str
    did: str
    json_key: str
    move: Move
    hint: str = ""
    always_asks: bool = False  # what cannot be undone asks even for one


def shelf_app(wording: Wording, says: str) -> App:
    """Return the commands of one shelf."""
    shelf, one, many = wording.shelf, wording.one, wording.many
    app = App(name=shelf, help=says, help_format="plaintext")

    @app.command(name="list", help=f"List {many}, newest first.")
    async def list_shelf(
        *,
        limit: Annotated[int, Parameter(help="How many, newest first.", validator=Number(gte=1))] = 20,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        settings = load_settings(config)
        async with open_queue(settings) as client:
            jobs = await read_shelf(client, settings.queue.name, shelf, limit)
            counts = await count_jobs(client, settings.queue.name)
        if isinstance(jobs, Unavailable):
            return report_unavailable(jobs, settings)
        if isinstance(counts, Unavailable):
            return report_unavailable(counts, settings)
        total = counts.dead if shelf == "dead" else counts.held
        if as_json:
            print_json({shelf: total, "jobs": [describe(job, reveal=False) for job in jobs]})
            return OK
        for job in jobs:
            print(job_line(job))
        print(f"{len(jobs)} of {total} {many}. More of one: trio-worker {shelf} show ID")
        return OK

    @app.command(name="show", help=f"Show one of the {many}: why it is there, and its attempts.")
    async def show(job_id: str, *, reveal: Reveal = False, config: ConfigFile = None, as_json: AsJson = False) -> int:
        settings = load_settings(config)
        async with open_queue(settings) as client:
            jobs = await find_shelved(client, settings.queue.name, shelf, [job_id])
        if isinstance(jobs, Unavailable):
            return report_unavailable(jobs, settings)
        if not jobs:
            complain(f"{job_id}: no such {one}")
            return NOTHING_MATCHED
        if as_json:
            print_json(describe(jobs[0], reveal=reveal))
        else:
            print("\n".join(job_lines(jobs[0], shelf, reveal=reveal)))
        return OK

    @app.command(
        name="retry", help=f"Put {many} back: due now, with new attempts and a new age, and the same Message-ID."
    )
    async def retry(
        job_ids: JobIds = (),
        *,
        every: Every = False,
        dry_run: DryRun = False,
        yes: Yes = False,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        async def move(
            client: RedisClient, settings: Settings, jobs: Sequence[ShelvedJob]
        ) -> frozenset[str] | Unavailable:
            counts = await count_jobs(client, settings.queue.name)
            if isinstance(counts, Unavailable):
                return counts
            return await revive(client, settings.queue.name, shelf, jobs, counts.at)

        change = Change(
            question=f"Put {{count}} {many} back on {{queue}}?",
            would=f"{{count}} {many} would be put back on {{queue}}",
            did=f"{{count}} {many} are due again on {{queue}}, each with its old Message-ID",
            hint="a worker that has nothing else to do takes them within 5 s",
            json_key="retried",
            move=move,
        )
        return await _change(
            wording,
            change,
            job_ids,
            every=every,
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
            settings=load_settings(config),
        )

    @app.command(name="drop", help=f"Delete {many} for good, with their original bytes.")
    async def drop_jobs(
        job_ids: JobIds = (),
        *,
        every: Every = False,
        dry_run: DryRun = False,
        yes: Yes = False,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        async def move(
            client: RedisClient, settings: Settings, jobs: Sequence[ShelvedJob]
        ) -> frozenset[str] | Unavailable:
            return await drop(client, settings.queue.name, shelf, [job.job_id for job in jobs])

        change = Change(
            question=f"Delete {{count}} {many} of {{queue}} for good?",
            would=f"{{count}} {many} of {{queue}} would be deleted for good",
            did=f"{{count}} {many} of {{queue}} were deleted",
            json_key="dropped",
            move=move,
            always_asks=True,
        )
        return await _change(
            wording,
            change,
            job_ids,
            every=every,
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
            settings=load_settings(config),
        )

    return app


async def _change(
    wording: Wording,
    change: Change,
    job_ids: Sequence[str],
    *,
    every: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    settings: Settings,
) -> int:
    """Choose jobs, ask, move them, say what was done."""
    if bool(job_ids) == every:
        complain(f"name the {wording.many}, or --all")
        return REFUSED
    queue = settings.queue.name
    async with open_queue(settings) as client:
        jobs = await _chosen(client, wording.shelf, queue, job_ids, every=every)
        if isinstance(jobs, Unavailable):
            return report_unavailable(jobs, settings)
        wanted = len(set(job_ids))
        missing = wanted - len(jobs) if job_ids else 0
        if missing:
            complain(f"{missing} of {wanted} are no {wording.many}")
        if not jobs:
            complain("nothing to do")
            return NOTHING_MATCHED
        if dry_run:
            print(change.would.format(count=len(jobs), queue=queue))
            return OK
        asks = change.always_asks or len(jobs) > 1
        if asks and not yes and not _agreed(change.question.format(count=len(jobs), queue=queue)):
            complain("refused: say --yes to do it without a question")
            return REFUSED
        moved = await change.move(client, settings, jobs)
    if isinstance(moved, Unavailable):
        return report_unavailable(moved, settings)
    if as_json:
        print_json({change.json_key: sorted(moved), "missing": missing})
    else:
        print(change.did.format(count=len(moved), queue=queue))
        if change.hint:
            print(change.hint)
    return PARTLY if missing or len(moved) < len(jobs) else OK


async def _chosen(
    client: RedisClient, shelf: Shelf, queue: str, job_ids: Sequence[str], *, every: bool
) -> list[ShelvedJob] | Unavailable:
    if not every:
        return await find_shelved(client, queue, shelf, list(dict.fromkeys(job_ids)))
    counts = await count_jobs(client, queue)
    if isinstance(counts, Unavailable):
        return counts
    return await read_shelf(client, queue, shelf, max(counts.dead if shelf == "dead" else counts.held, PAGE))


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
