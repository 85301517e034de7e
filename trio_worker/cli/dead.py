"""Trio. ``dead``, ``held``, ``delayed``: list, groups, show, retry, drop and export of the jobs in one of these states.

A held job is not sent again, because its mail may have arrived. An operator finds out whether it did, and drops the job
or retries it. A delayed job is sent by itself when it is due.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

from attrs import asdict
from cyclopts import App, Parameter
from cyclopts.validators import Number

from trio_worker.cli.audit_log import log_reveal
from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.bulk_retry import BulkOperation, Wording, retry_jobs, undo_retry
from trio_worker.cli.confirm import ASK, Confirmation
from trio_worker.cli.durations import PointInTime
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK
from trio_worker.cli.flags import AsJson, ConfigFile, Reveal
from trio_worker.cli.job_ids import read_job_ids
from trio_worker.cli.job_text import describe, job_lines, line_of_job, mail_id_of, time_of_day
from trio_worker.cli.json_documents import Document, with_schema
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json
from trio_worker.cli.table import TableColumn, print_table, terminal_width
from trio_worker.mail.message_id import message_id_of
from trio_worker.printing import complain, say
from trio_worker.privacy import mask_text
from trio_worker.queue.counts import count_action, count_jobs
from trio_worker.queue.dead_letters import Shelf, drop, find_shelved, walk_shelf
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.record import ShelvedJob
from trio_worker.queue.selection import Group, Grouping, Selection
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.number_words import counted, duration

ShelvedJobId = Annotated[str, Parameter(help="Id of the job, or last: the newest one.")]
JobIds = Annotated[Sequence[str], Parameter(help="Job ids, or last: the newest one; none with --all or a filter.")]
# A terminal of so many columns has room for times; a narrower one gets "5m12s ago".
WIDE_COLUMNS = 120
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
        PointInTime,
        Parameter(help="Only jobs that became dead or held, or are due, after this time: 2h (ago) or a date and time."),
    ] = None
    until: Annotated[
        PointInTime, Parameter(help="Only jobs that became dead or held, or are due, before this time.")
    ] = None

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
    undo: Annotated[str | None, Parameter(help="Undo the retry with this batch id, or last: the newest one.")] = None


NO_FILTERS = Filters()
AT_ONCE = Pace()


@frozen
class ShelfCommands:
    """The commands of one shelf: of dead letters, of held or of delayed jobs."""

    wording: Wording

    @blocking
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
        with open_calls(settings) as client:
            counts = answer_or_exit(await count_jobs(client, settings.queue.name), settings)
            jobs = await _first(client, settings, shelf, filters.selection, limit)
        total = getattr(counts, shelf)
        if as_json:
            print_json(Document.SHELF, {shelf: total, "jobs": [describe(job, reveal=False) for job in jobs]})
            return OK
        if not total:
            complain(f"no {many}")
            return OK
        if jobs:
            _print_jobs(jobs, shelf, counts.at)
        more = f" Details: trio-worker {shelf} show ID" if jobs else ""
        say(f"{len(jobs):,} of {counted(total, self.wording.one, many)}.{more}")
        return OK

    @blocking
    async def groups(self, *, filters: Filters = NO_FILTERS, config: ConfigFile = None, as_json: AsJson = False) -> int:
        settings = load_settings(config)
        grouping = Grouping()
        with open_calls(settings) as client:
            async with aclosing(walk_shelf(client, settings.queue.name, self.wording.shelf)) as pages:
                async for page in pages:
                    grouping.add(job for job in answer_or_exit(page, settings) if filters.selection.takes(job))
        if as_json:
            print_json(
                Document.GROUPS, {"shelf": self.wording.shelf, "groups": [asdict(group) for group in grouping.groups]}
            )
            return OK
        _print_groups(grouping.groups, self.wording)
        return OK if grouping.groups else NOTHING_MATCHED

    @blocking
    async def show(
        self, job_id: ShelvedJobId, *, reveal: Reveal = False, config: ConfigFile = None, as_json: AsJson = False
    ) -> int:
        shelf = self.wording.shelf
        settings = load_settings(config)
        with open_calls(settings) as client:
            (job_id,) = await read_job_ids(client, settings, [job_id], [shelf])
            jobs = answer_or_exit(
                await find_shelved(client, settings.queue.name, shelf, [job_id], with_bodies=True), settings
            )
        if not jobs:
            complain(f"{job_id}: no such {self.wording.one}")
            return NOTHING_MATCHED
        message_id = message_id_of(mail_id_of(jobs[0]), settings.mail)
        if reveal:
            log_reveal(settings, f"{shelf} show", [job_id])
        if as_json:
            print_json(Document.JOB, describe(jobs[0], reveal=reveal, message_id=message_id))
        else:
            say(*job_lines(jobs[0], shelf, reveal=reveal, message_id=message_id))
        return OK

    @blocking
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
        with open_calls(settings) as client:
            if pace.undo is not None:
                return await undo_retry(client, settings, pace.undo, as_json=as_json)
            operation = BulkOperation(client, settings, self.wording, confirmation, as_json)
            chosen = await operation.choose(job_ids, filters.selection, every=every)
            order = f", {pace.rate:g} per second" if pace.rate else ""
            first = f", {min(pace.trial, len(chosen))} first as a trial" if pace.trial else ""
            what = "Make {jobs} of {queue} due now" if self.wording.shelf == "delayed" else "Put {jobs} back on {queue}"
            operation.confirm_or_exit(f"{what}{order}{first}?", always=False)
            return await retry_jobs(operation, chosen, pace.rate, pace.trial)

    @blocking
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
        with open_calls(settings) as client:
            operation = BulkOperation(client, settings, self.wording, confirmation, as_json)
            chosen = await operation.choose(job_ids, filters.selection, every=every)
            operation.confirm_or_exit("Delete {jobs} of {queue} permanently?", always=True)
            dropped = answer_or_exit(await drop(client, settings.queue.name, self.wording.shelf, chosen), settings)
            await count_action(client, settings.queue.name, OperatorAction(f"{self.wording.shelf}_drop"))
            did = counted(len(dropped), f"{one} of {settings.queue.name} was", f"{many} of {settings.queue.name} were")
            return operation.report(len(dropped), [f"{did} deleted"], Document.DROP, {"dropped": sorted(dropped)})

    @blocking
    async def export(
        self,
        *,
        filters: Filters = NO_FILTERS,
        raw: Annotated[
            bool, Parameter(negative=(), help="Write only the jobs, as they were pushed: enqueue takes them.")
        ] = False,
        config: ConfigFile = None,
    ) -> int:
        settings = load_settings(config)
        log_reveal(settings, f"{self.wording.shelf} export", [str(filters.selection)])
        written = 0
        with open_calls(settings) as client:
            async with aclosing(walk_shelf(client, settings.queue.name, self.wording.shelf, with_bodies=True)) as pages:
                async for page in pages:
                    for job in filter(filters.selection.takes, answer_or_exit(page, settings)):
                        document = with_schema(Document.JOB, {} if raw else describe(job, reveal=True))
                        say(line_of_job(job.body) if raw else json.dumps(document, ensure_ascii=False))
                        written += 1
        complain(f"{counted(written, self.wording.one, self.wording.many)} written")
        return OK if written else NOTHING_MATCHED


def shelf_app(wording: Wording, help_text: str) -> App:
    """Return the commands of one shelf."""
    app = App(name=wording.shelf, help=help_text, help_format="plaintext")
    commands, many = ShelfCommands(wording), wording.many
    order = "those that are due first at the top" if wording.shelf == "delayed" else "newest first"
    app.command(commands.list_, name="list", help=f"List {many}, {order}.")
    app.command(commands.groups, name="groups", help=f"Count {many} by cause.")
    app.command(commands.show, name="show", help=f"Show one of the {many}: its cause and its attempts.")
    attempts = "their attempts and their age" if wording.shelf == "delayed" else "new attempts, a new age"
    retry_help = f"Retry {many}: they are due now, with {attempts} and the same Message-ID."
    app.command(commands.retry, name="retry", help=retry_help)
    if wording.shelf == "held":
        app.command(commands.retry, name="release", help="The same as retry.")
    if wording.shelf == "dead":
        app.command(
            "trio_worker.cli.dead_edit:edit",
            name="edit",
            help="Correct a dead letter in your editor ($VISUAL, $EDITOR), and retry it with the same Message-ID.",
        )
    app.command(commands.drop, name="drop", help=f"Delete {many} permanently, with their original bytes.")
    app.command(commands.export, name="export", help=f"Write {many} as lines of JSON, with their original bytes.")
    return app


async def _first(
    client: RedisCalls, settings: Settings, shelf: Shelf, selection: Selection, limit: int
) -> list[ShelvedJob]:
    """Return the first jobs that the selection takes."""
    found: list[ShelvedJob] = []
    async with aclosing(walk_shelf(client, settings.queue.name, shelf)) as pages:
        async for page in pages:
            found += filter(selection.takes, answer_or_exit(page, settings))
            if len(found) >= limit:
                break
    return found[:limit]


def _print_jobs(jobs: Sequence[ShelvedJob], shelf: Shelf, now: float) -> None:
    columns = [
        TableColumn("due" if shelf == "delayed" else "since"),
        TableColumn("id"),
        TableColumn("type", cut_to=8),
        TableColumn("attempts", is_right=True, is_spare=True),
        TableColumn("why", cut_to=12),
    ]
    rows = [
        (
            _when(job.at, now),
            job.job_id,
            job.record.email_type or "-",
            f"{job.record.attempts:,}",
            mask_text(str(job.cause)),
        )
        for job in jobs
    ]
    print_table(columns, rows)


def _print_groups(groups: Sequence[Group], wording: Wording) -> None:
    if not groups:
        complain(f"no {wording.many}")
        return
    first, last = ("first due", "last due") if wording.shelf == "delayed" else ("first", "last")
    columns = [
        TableColumn("count", is_right=True),
        TableColumn("code", cut_to=7),
        TableColumn("cause", cut_to=8),
        TableColumn("type", cut_to=8),
        TableColumn(first),
        TableColumn(last),
        TableColumn("example"),
    ]
    now = time.time()
    rows = [
        (
            f"{group.count:,}",
            group.codes or "-",
            group.word,
            group.email_type or "-",
            _when(group.first_at, now),
            _when(group.last_at, now),
            group.example,
        )
        for group in groups
    ]
    print_table(columns, rows)


def _when(at: float, now: float) -> str:
    """Return a time, or how far it is from now if the terminal is narrow: a cut time would tell nothing."""
    width = terminal_width()
    if width is None or width >= WIDE_COLUMNS:
        return time_of_day(at)
    return f"in {duration(at - now)}" if at > now else f"{duration(now - at)} ago"


dead = shelf_app(
    Wording("dead", "dead letter", "dead letters"), "Dead letters: list, show, retry, edit, drop and export them."
)
held = shelf_app(
    Wording("held", "held job", "held jobs"),
    "Held jobs, whose mail may have arrived: list, show, retry, drop and export them.",
)
delayed = shelf_app(
    Wording("delayed", "delayed job", "delayed jobs"),
    "Delayed jobs, which are tried again when they are due: list, show, retry, drop and export them.",
)
