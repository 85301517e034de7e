"""Edge. ``queue age``: the waiting and the delayed jobs by age, and by email type or domain."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.exit_codes import OK, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, refuse
from trio_worker.cli.table import TableColumn, print_table, terminal_width
from trio_worker.fleet.overview import DAY_MINUTES, Overview, read_overview
from trio_worker.jobs.summary import summarize
from trio_worker.printing import complain, say
from trio_worker.queue.ages import COLUMNS_SECONDS, AgeRow, AgeTable, sample_places
from trio_worker.queue.dead_letters import read_places, walk_shelf
from trio_worker.queue.history import pushed_at
from trio_worker.queue.record import ShelvedJob
from trio_worker.queue.waiting import peek
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.telemetry.number_words import count, counted, duration

# (length of the list, samples): LINDEX walks the list from its nearer end, so these take a few milliseconds of Redis'
# time. A longer list is not sampled; --exact reads every job of it.
_SAMPLES = ((20_000, 200), (200_000, 20))
# A place in a sorted set is found in a step or two, however many there are.
_DELAYED_SAMPLES = 200
# All columns and a name of 24 letters take this much room; less gets every second column.
_WIDE_COLUMNS = 130


@blocking
async def show_ages(
    *,
    by: Annotated[str, Parameter(help="Rows of the table: type or domain.")] = "type",
    exact: Annotated[bool, Parameter(negative=(), help="Read every job, not only a sample.")] = False,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Count the waiting and the delayed jobs by age, and by email type or domain.

    The age of a waiting job without enqueued_at is estimated: workers record each second how many jobs were pushed.
    """
    if by not in {"type", "domain"}:
        complain(f"--by: must be type or domain, not {by}")
        return USAGE
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    name = settings.queue.name
    with open_calls(settings) as client:
        overview = answer_or_exit(await read_overview(client, name, DAY_MINUTES), settings)
        table = AgeTable(overview.counts.waiting, overview.counts.delayed)
        counting = _Counting(client, name, table, by, overview)
        if not answer_or_exit(await counting.add_waiting(exact=exact), settings):
            refuse(USAGE, "the list is too long: samples would block Redis. --exact reads every job")
        answer_or_exit(await counting.add_delayed(exact=exact), settings)
    _print_ages(table, by, as_json=as_json)
    return OK


@frozen
class _Counting:
    """Counts jobs into a table: by type or by domain, with ages from the poll in ``overview``."""

    client: RedisCalls
    queue_name: str
    table: AgeTable
    by: str
    overview: Overview

    async def add_waiting(self, *, exact: bool) -> bool | Unavailable:
        """Read the list, or samples of it; return whether it could be done."""
        table, page_size = self.table, _SAMPLES[0][1]
        wanted = next((samples for most, samples in _SAMPLES if table.waiting <= most), 0)
        if exact or table.waiting <= wanted:
            for first in range(0, table.waiting, page_size):
                page = await peek(self.client, self.queue_name, first, page_size)
                if isinstance(page, Unavailable):
                    return page
                self._add_page(enumerate(page, first))
            table.waiting = table.looked_at if exact else table.waiting
            return True
        if not wanted:
            return False
        places = sample_places(table.waiting, wanted)
        found = await self.client.pipeline([("LINDEX", self.queue_name, place) for place in places])
        if isinstance(found, Unavailable):
            return found
        self._add_page((place, raw) for place, raw in zip(places, found, strict=True) if raw is not None)
        return True

    async def add_delayed(self, *, exact: bool) -> bool | Unavailable:
        """Read the delayed jobs, or samples of them; their ages count from the push, as far as it is known."""
        table = self.table
        if not exact:
            places = sample_places(table.delayed, _DELAYED_SAMPLES)
            found = await read_places(self.client, self.queue_name, "delayed", places, with_bodies=True)
            if isinstance(found, Unavailable):
                return found
            self._add_delayed_page(found)
            return True
        async with aclosing(walk_shelf(self.client, self.queue_name, "delayed", with_bodies=True)) as pages:
            async for page in pages:
                if isinstance(page, Unavailable):
                    return page
                self._add_delayed_page(page)
        table.delayed = table.delayed_looked_at
        return True

    def _add_page(self, jobs: Iterable[tuple[int, bytes]]) -> None:
        """Add jobs with their positions in the list; the head has position 0."""
        counts = self.overview.counts
        for place, raw in jobs:
            said = summarize(raw).enqueued_at
            at = pushed_at(self.overview.marks, counts.popped + place + 1) if said is None else said
            age_seconds = None if at is None else max(0.0, counts.at - at)
            self.table.add(self._names(raw), age_seconds, is_estimate=said is None and at is not None)

    def _add_delayed_page(self, jobs: Iterable[ShelvedJob]) -> None:
        for job in jobs:
            at = job.record.born if job.record.pushed_at is None else job.record.pushed_at
            self.table.add(self._names(job.body), max(0.0, self.overview.counts.at - at), is_delayed=True)

    def _names(self, raw: bytes) -> tuple[str, ...]:
        seen = summarize(raw)
        if self.by == "domain":
            return seen.domains
        return (seen.email_type,) if seen.email_type else ()


def _print_ages(table: AgeTable, by: str, *, as_json: bool) -> None:
    heads = [*(f"<{duration(bound)}" for bound in COLUMNS_SECONDS), f"{duration(COLUMNS_SECONDS[-1])}+", "undated"]
    rows = table.rows()
    if as_json:
        print_json(
            Document.AGES,
            {
                "by": by,
                "looked_at": table.looked_at,
                "waiting": table.waiting,
                "delayed": table.delayed,
                "estimated": table.estimated,
                "columns": heads,
                "rows": [
                    {"name": row.name, "total": row.total, "jobs": list(row.by_age), "delayed": row.delayed}
                    for row in rows
                ],
            },
        )
        return
    width = terminal_width()
    is_narrow = width is not None and width < _WIDE_COLUMNS
    shown = [*heads[1:8:2], *heads[8:]] if is_narrow else heads
    columns = [TableColumn(by, cut_to=8), TableColumn("jobs", is_right=True), TableColumn("delayed", is_right=True)]
    columns += [TableColumn(head, is_right=True) for head in shown]
    print_table(columns, [_row(row, is_narrow=is_narrow) for row in rows])
    if table.estimated:
        looked_at = table.looked_at + table.delayed_looked_at
        say(f"~ {table.estimated:,} of {looked_at:,} ages are estimates, from how many jobs were pushed by when.")
    if table.is_sampled:
        read = counted(table.looked_at + table.delayed_looked_at, "job")
        total = table.waiting + table.delayed
        say(f"{read} read of {total:,}; the figures are scaled up. --exact reads all jobs.")


def _row(row: AgeRow, *, is_narrow: bool) -> list[str]:
    ages = row.by_age
    if is_narrow:
        ages = (*(ages[place] + ages[place + 1] for place in range(0, 8, 2)), *ages[8:])
    return [row.name, count(row.total), count(row.delayed), *map(count, ages)]
