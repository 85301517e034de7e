"""Trio. ``dead`` and ``held``: list, groups, show, retry, drop and export of dead letters and of held jobs.

A held job is not sent again, because its mail may have arrived. An operator finds out whether it did, and drops the job
or retries it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from attrs import asdict, frozen
from cyclopts import App, Parameter
from cyclopts.validators import Number

from trio_worker.cli.audit_log import log_reveal
from trio_worker.cli.bulk_retry import BulkOperation, Wording, retry_jobs, undo_retry
from trio_worker.cli.confirm import ASK, Confirmation
from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import PointInTime
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK
from trio_worker.cli.flags import AsJson, ConfigFile, Reveal
from trio_worker.cli.job_text import describe, job_line, job_lines, time_of_day
from trio_worker.cli.json_documents import Document, with_schema
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json
from trio_worker.mail.composer import message_id_of
from trio_worker.printing import complain, say
from trio_worker.queue.counts import count_action, count_jobs
from trio_worker.queue.dead_letters import Shelf, drop, find_shelved, walk_shelf
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.record import ShelvedJob
from trio_worker.queue.selection import Group, Grouping, Selection
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.number_words import counted

JobIds = Annotated[Sequence[str], Parameter(help="Job ids; none with --all or a filter.")]
AllJobs = Annotated[bool, Parameter(name=["--all"], negative=(), help="All jobs.")]


@Parameter(name="*")
@frozen
class Filters:
    """The flags that choose jobs."""

    code: Annotated[
        str, Parameter(help="Only jobs with this reply code: 550, or 5 for all of 5xx, or '550 5.1.1'.")
    ] = ""
    cause: Annotated[
        str, Parameter(help="Only jobs with this cause, as `groups` prints it: refused, not_json, expired.")
    ] = ""
    type_: Annotated[str, Parameter(name="--type", help="Only jobs of this email type.")] = ""
    match: Annotated[str, Parameter(help="Only jobs with this text in the reason.")] = ""
    since: Annotated[
        PointInTime, Parameter(help="Only jobs that became dead or held after this time: 2h (ago), or a date and time.")
    ] = None
    until: Annotated[PointInTime, Parameter(help="Only jobs that became dead or held before this time.")] = None

    @property
    def selection(self) -> Selection:
        return Selection(self.code, self.cause, self.type_, self.match, self.since, self.until)


@Parameter(name="*")
@frozen
class Pace:
    """The flags of a retry."""

    rate: Annotated[
        float | None,
        Parameter(
            metavar="NUMBER", help="Maximum number of jobs per second; default: all at once.", validator=Number(gt=0)
        ),
    ] = None
    trial: Annotated[
        int,
        Parameter(
            help="Retry this number of jobs first, and the others only if all of them are sent.",
            validator=Number(gte=0, lte=100),
        ),
    ] = 0
    undo: Annotated[str | None, Parameter(help="Undo the retry with this batch id.")] = None


NO_FILTERS = Filters()
AT_ONCE = Pace()


@frozen
class ShelfCommands:
    """The commands of one shelf: of dead letters or of held jobs."""

    wording: Wording

    async def list_(
        self,
        *,
        limit: Annotated[int, Parameter(help="Maximum number of jobs.", validator=Number(gte=1))] = 20,
        filters: Filters = NO_FILTERS,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        shelf, many = self.wording.shelf, self.wording.many
        settings = load_settings(config)
        async with open_queue(settings) as client:
            counts = answer_or_exit(await count_jobs(client, settings.queue.name), settings)
            jobs = await _first(client, settings, shelf, filters.selection, limit)
        total = counts.dead if shelf == "dead" else counts.held
        if as_json:
            print_json(Document.SHELF, {shelf: total, "jobs": [describe(job, reveal=False) for job in jobs]})
            return OK
        if not total:
            complain(f"no {many}")
            return OK
        for job in jobs:
            say(job_line(job))
        more = f" Details: trio-worker {shelf} show ID" if jobs else ""
        say(f"{len(jobs):,} of {counted(total, self.wording.one, many)}.{more}")
        return OK

    async def groups(self, *, filters: Filters = NO_FILTERS, config: ConfigFile = None, as_json: AsJson = False) -> int:
        settings = load_settings(config)
        grouping = Grouping()
        async with open_queue(settings) as client:
            async for page in walk_shelf(client, settings.queue.name, self.wording.shelf):
                grouping.add(job for job in answer_or_exit(page, settings) if filters.selection.takes(job))
        if as_json:
            print_json(
                Document.GROUPS, {"shelf": self.wording.shelf, "groups": [asdict(group) for group in grouping.groups]}
            )
            return OK
        _print_groups(grouping.groups, self.wording.many)
        return OK if grouping.groups else NOTHING_MATCHED

    async def show(
        self, job_id: str, *, reveal: Reveal = False, config: ConfigFile = None, as_json: AsJson = False
    ) -> int:
        shelf = self.wording.shelf
        settings = load_settings(config)
        async with open_queue(settings) as client:
            jobs = answer_or_exit(
                await find_shelved(client, settings.queue.name, shelf, [job_id], with_bodies=True), settings
            )
        if not jobs:
            complain(f"{job_id}: no such {self.wording.one}")
            return NOTHING_MATCHED
        message_id = message_id_of(job_id, settings.mail)
        if reveal:
            log_reveal(settings, f"{shelf} show", [job_id])
        if as_json:
            print_json(Document.JOB, describe(jobs[0], reveal=reveal, message_id=message_id))
        else:
            say(*job_lines(jobs[0], shelf, reveal=reveal, message_id=message_id))
        return OK

    async def retry(
        self,
        job_ids: JobIds = (),
        *,
        every: AllJobs = False,
        filters: Filters = NO_FILTERS,
        pace: Pace = AT_ONCE,
        confirmation: Confirmation = ASK,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        settings = load_settings(config)
        async with open_queue(settings) as client:
            if pace.undo is not None:
                return await undo_retry(client, settings, pace.undo, as_json=as_json)
            operation = BulkOperation(client, settings, self.wording, confirmation, as_json)
            chosen = await operation.choose(job_ids, filters.selection, every=every)
            order = f", {pace.rate:g} per second" if pace.rate else ""
            first = f", {min(pace.trial, len(chosen))} first as a trial" if pace.trial else ""
            operation.confirm_or_exit(f"Put {{jobs}} back on {{queue}}{order}{first}?", always=False)
            return await retry_jobs(operation, chosen, pace.rate, pace.trial)

    async def drop(
        self,
        job_ids: JobIds = (),
        *,
        every: AllJobs = False,
        filters: Filters = NO_FILTERS,
        confirmation: Confirmation = ASK,
        config: ConfigFile = None,
        as_json: AsJson = False,
    ) -> int:
        one, many = self.wording.one, self.wording.many
        settings = load_settings(config)
        async with open_queue(settings) as client:
            operation = BulkOperation(client, settings, self.wording, confirmation, as_json)
            chosen = await operation.choose(job_ids, filters.selection, every=every)
            operation.confirm_or_exit("Delete {jobs} of {queue} permanently?", always=True)
            dropped = answer_or_exit(await drop(client, settings.queue.name, self.wording.shelf, chosen), settings)
            await count_action(client, settings.queue.name, OperatorAction(f"{self.wording.shelf}_drop"))
            did = counted(len(dropped), f"{one} of {settings.queue.name} was", f"{many} of {settings.queue.name} were")
            return operation.report(len(dropped), [f"{did} deleted"], Document.DROP, {"dropped": sorted(dropped)})

    async def export(self, *, filters: Filters = NO_FILTERS, config: ConfigFile = None) -> int:
        settings = load_settings(config)
        log_reveal(settings, f"{self.wording.shelf} export", [str(filters.selection)])
        written = 0
        async with open_queue(settings) as client:
            async for page in walk_shelf(client, settings.queue.name, self.wording.shelf, with_bodies=True):
                for job in filter(filters.selection.takes, answer_or_exit(page, settings)):
                    say(json.dumps(with_schema(Document.JOB, describe(job, reveal=True)), ensure_ascii=False))
                    written += 1
        complain(f"{counted(written, self.wording.one, self.wording.many)} written")
        return OK if written else NOTHING_MATCHED


def shelf_app(wording: Wording, help_text: str) -> App:
    """Return the commands of one shelf."""
    app = App(name=wording.shelf, help=help_text, help_format="plaintext")
    commands, many = ShelfCommands(wording), wording.many
    app.command(commands.list_, name="list", help=f"List {many}, newest first.")
    app.command(commands.groups, name="groups", help=f"Count {many} by cause.")
    app.command(commands.show, name="show", help=f"Show one of the {many}: its cause and its attempts.")
    retry_help = f"Retry {many}: they are due now, with new attempts, a new age and the same Message-ID."
    app.command(commands.retry, name="retry", help=retry_help)
    app.command(commands.drop, name="drop", help=f"Delete {many} permanently, with their original bytes.")
    app.command(commands.export, name="export", help=f"Write {many} as lines of JSON, with their original bytes.")
    return app


async def _first(
    client: RedisClient, settings: Settings, shelf: Shelf, selection: Selection, limit: int
) -> list[ShelvedJob]:
    """Return the newest jobs that the selection takes."""
    found: list[ShelvedJob] = []
    async for page in walk_shelf(client, settings.queue.name, shelf):
        found += filter(selection.takes, answer_or_exit(page, settings))
        if len(found) >= limit:
            break
    return found[:limit]


def _print_groups(groups: Sequence[Group], many: str) -> None:
    if not groups:
        complain(f"no {many}")
        return
    say(f"{'count':>8}  {'code':<10}  {'cause':<14}  {'type':<14}  {'first':<20}  {'last':<20}  example")
    for group in groups:
        first, last = time_of_day(group.first_at), time_of_day(group.last_at)
        words = f"{group.codes or '-':<10}  {group.word:<14}  {group.email_type or '-':<14}"
        say(f"{group.count:>8,}  {words}  {first:<20}  {last:<20}  {group.example}")


dead = shelf_app(
    Wording("dead", "dead letter", "dead letters"), "Dead letters: list, show, retry, drop and export them."
)
held = shelf_app(
    Wording("held", "held job", "held jobs"),
    "Held jobs, whose mail may have arrived: list, show, retry, drop and export them.",
)
