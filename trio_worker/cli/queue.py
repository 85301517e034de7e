"""Trio. ``queue``: the list that producers push to: its state, its next jobs, their ages; pause and resume."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from trio_worker.cli.audit_log import log_reveal, user_name
from trio_worker.cli.blocking import blocking, open_calls, sleep_until
from trio_worker.cli.bulk_queue import export_waiting, purge_queue, release_queue
from trio_worker.cli.durations import Duration
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, TIMED_OUT, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName, Reveal
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, refuse
from trio_worker.fleet.overview import DAY_MINUTES, Overview, read_overview
from trio_worker.jobs.summary import summarize
from trio_worker.printing import complain, say
from trio_worker.queue.ages import COLUMNS_SECONDS, AgeTable, sample_places
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.history import pushed_at
from trio_worker.queue.pause import PAUSE_SECONDS, pause_queue, resume_queue
from trio_worker.queue.waiting import peek
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.telemetry.number_words import count, counted, duration, paused_words

DRAIN_LOOK_SECONDS = 0.5
# (length of the list, samples): LINDEX walks the list from its nearer end, so these take a few milliseconds of Redis'
# time. A longer list is not sampled; --exact reads every job of it.
_SAMPLES = ((20_000, 200), (200_000, 20))

queue = App(
    name="queue",
    help="Queue: list, peek, age, pause, resume, drain-wait, export, purge, release.",
    help_format="plaintext",
)
queue.command(export_waiting, name="export")
queue.command(purge_queue, name="purge")
queue.command(release_queue, name="release")


@queue.command(name="list")
@blocking
async def list_queue(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show the queue in one line: the number of jobs in each state, the age of the oldest, and its pause."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
    counts = seen.counts
    live = sum(not worker.is_lost for worker in seen.workers)
    if as_json:
        document: dict[str, Any] = {name: getattr(counts, name) for name in _STATES}
        oldest = {"oldest_seconds": seen.oldest_seconds, "oldest_is_estimate": seen.is_estimate}
        pause = {"paused": counts.paused or None, "pause_seconds_left": counts.pause_seconds_left}
        print_json(Document.QUEUE, [{"queue": settings.queue.name, **document, **oldest, "workers": live, **pause}])
        return OK
    names = f"{'queue':<20}  {'waiting':>10}  {'oldest':>7}"
    say(f"{names}  {'leased':>8}  {'delayed':>8}  {'held':>6}  {'dead':>8}  {'workers':>7}  state")
    age = duration(seen.oldest_seconds, is_estimate=seen.is_estimate)
    figures = f"{counts.leased:>8,}  {counts.delayed:>8,}  {counts.held:>6,}  {counts.dead:>8,}  {live:>7,}"
    say(f"{settings.queue.name:<20}  {counts.waiting:>10,}  {age:>7}  {figures}  {_state(counts)}")
    return OK


_STATES = ("waiting", "leased", "delayed", "held", "dead")


def _state(counts: Counts) -> str:
    if not counts.paused:
        return "open"
    left = counts.pause_seconds_left
    return f"PAUSED {'' if left is None else duration(left) + ' more'}: {counts.paused}".replace("  ", " ")


@queue.command(name="peek")
@blocking
async def peek_queue(
    *,
    limit: Annotated[int, Parameter(help="Maximum number of jobs.", validator=Number(gte=1, lte=1000))] = 10,
    reveal: Reveal = False,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Show the next jobs without taking them. Recipients and contents are shown only with --reveal."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        jobs = answer_or_exit(await peek(client, settings.queue.name, 0, limit), settings)
    if reveal:
        log_reveal(settings, "queue peek", [counted(len(jobs), "job")])
    if as_json:
        print_json(Document.WAITING_JOB, [_peeked(place, raw, reveal=reveal) for place, raw in enumerate(jobs, 1)])
        return OK
    for place, raw in enumerate(jobs, 1):
        seen = summarize(raw)
        age = duration(None if seen.enqueued_at is None else time.time() - seen.enqueued_at)
        words = seen.email_type or ("-" if seen.is_readable else "not JSON")
        say(f"{place:>6}  {words:<16}  {age:>6}  {len(raw):>9,} bytes  to {', '.join(seen.domains) or '-'}")
        if reveal:
            say(f"        {raw.decode('utf-8', 'backslashreplace')}")
    return OK if jobs else NOTHING_MATCHED


def _peeked(place: int, raw: bytes, *, reveal: bool) -> dict[str, Any]:
    seen = summarize(raw)
    document: dict[str, Any] = {
        "place": place,
        "email_type": seen.email_type or None,
        "enqueued_at": seen.enqueued_at,
        "bytes": len(raw),
        "domains": list(seen.domains),
    }
    return {**document, "job": raw.decode("utf-8", "backslashreplace")} if reveal else document


@queue.command(name="age")
@blocking
async def show_ages(
    *,
    by: Annotated[str, Parameter(help="Rows of the table: type or domain.")] = "type",
    exact: Annotated[bool, Parameter(negative=(), help="Read every job, not only a sample.")] = False,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Count the waiting jobs by age, and by email type or domain.

    The age of a job without enqueued_at is estimated: workers record each second how many jobs were pushed.
    """
    if by not in {"type", "domain"}:
        complain(f"--by: must be type or domain, not {by}")
        return USAGE
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        table = answer_or_exit(await _age_table(client, settings.queue.name, by, exact=exact), settings)
    if table is None:
        refuse(USAGE, "the list is too long: samples would block Redis. --exact reads every job")
    _print_ages(table, by, as_json=as_json)
    return OK


async def _age_table(client: RedisCalls, name: str, by: str, *, exact: bool) -> AgeTable | Unavailable | None:
    overview = await read_overview(client, name, DAY_MINUTES)
    if isinstance(overview, Unavailable):
        return overview
    waiting = overview.counts.waiting
    table = AgeTable(waiting)
    wanted = next((samples for most, samples in _SAMPLES if waiting <= most), 0)
    if exact or waiting <= wanted:
        for first in range(0, waiting, _SAMPLES[0][1]):
            page = await peek(client, name, first, _SAMPLES[0][1])
            if isinstance(page, Unavailable):
                return page
            _add(table, enumerate(page, first), by, overview)
        table.waiting = max(table.looked_at, 0) if exact else table.waiting
        return table
    if not wanted:
        return None
    places = sample_places(waiting, wanted)
    found = await client.pipeline([("LINDEX", name, place) for place in places])
    if isinstance(found, Unavailable):
        return found
    _add(table, ((place, raw) for place, raw in zip(places, found, strict=True) if raw is not None), by, overview)
    return table


def _add(table: AgeTable, jobs: Iterable[tuple[int, bytes]], by: str, overview: Overview) -> None:
    """Add jobs with their positions in the list; the head has position 0."""
    now = overview.counts.at
    for place, raw in jobs:
        seen = summarize(raw)
        names = seen.domains if by == "domain" else ((seen.email_type,) if seen.email_type else ())
        is_estimate = seen.enqueued_at is None
        at = pushed_at(overview.marks, overview.counts.popped + place + 1) if is_estimate else seen.enqueued_at
        table.add(names, None if at is None else max(0.0, now - at), is_estimate=is_estimate and at is not None)


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
                "estimated": table.estimated,
                "columns": heads,
                "rows": [{"name": row.name, "total": row.total, "jobs": list(row.by_age)} for row in rows],
            },
        )
        return
    say(f"{by:<24}  {'T':>9}  " + "  ".join(f"{head:>7}" for head in heads))
    for row in rows:
        say(f"{row.name[:24]:<24}  {count(row.total):>9}  " + "  ".join(f"{count(n):>7}" for n in row.by_age))
    if table.estimated:
        say(f"~ {table.estimated:,} of {table.looked_at:,} ages are estimates, from how many jobs were pushed by when.")
    if table.is_sampled:
        read = counted(table.looked_at, "job")
        say(f"{read} read of {table.waiting:,}; the figures are scaled up. --exact reads all jobs.")


@queue.command(name="pause")
@blocking
async def pause(
    *,
    reason: Annotated[str, Parameter(help="Reason, which status and the dashboards show.")],
    for_: Annotated[Duration, Parameter(name="--for", help="Duration: 30s, 15m, 2h, forever.")] = PAUSE_SECONDS,
    by: Annotated[str | None, Parameter(help="Name of the person who pauses; default: the current user.")] = None,
    queue: QueueName = None,
    config: ConfigFile = None,
) -> int:
    """Stop all workers from claiming jobs; they finish the jobs that they have. By default it ends after 15 minutes."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    if not reason.strip():
        refuse(USAGE, "--reason: must not be empty")
    if for_ <= 0:
        refuse(USAGE, "--for: must be longer than 0s")
    name, seconds = settings.queue.name, None if math.isinf(for_) else for_
    with open_calls(settings) as client:
        answer_or_exit(await pause_queue(client, name, reason, user_name() if by is None else by, seconds), settings)
        counts = answer_or_exit(await count_jobs(client, name), settings)
    ends = "until it is resumed" if seconds is None else f"for {duration(seconds)}, until {_time_in(seconds)}"
    say(f"paused {name} {ends}; {counted(counts.leased, 'leased job')} will be finished")
    say("to resume: trio-worker queue resume")
    return OK


def _time_in(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@queue.command(name="resume")
@blocking
async def resume(*, queue: QueueName = None, config: ConfigFile = None) -> int:
    """End a pause. Workers claim jobs again within a second."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        was_paused = answer_or_exit(await resume_queue(client, settings.queue.name), settings)
    say(f"resumed {settings.queue.name}" if was_paused else f"{settings.queue.name} was not paused")
    return OK if was_paused else NOTHING_MATCHED


@queue.command(name="drain-wait")
@blocking
async def drain_wait(
    *,
    timeout: Annotated[Duration, Parameter(help="Maximum time to wait: 30s, 5m, forever.")] = math.inf,  # noqa: ASYNC109  its name
    queue: QueueName = None,
    config: ConfigFile = None,
) -> int:
    """Wait until no job is waiting, due or leased. Exits with 75 after the timeout."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    ends_at = time.monotonic() + timeout
    with open_calls(settings) as client:
        while True:
            counts = answer_or_exit(await count_jobs(client, settings.queue.name), settings)
            if not (counts.waiting or counts.leased or counts.due):
                say(f"{settings.queue.name} is drained: {counts.delayed:,} delayed, {counts.dead:,} dead")
                return OK
            if not await sleep_until(ends_at, DRAIN_LOOK_SECONDS):
                break
    left = f"{counts.waiting:,} waiting, {counts.leased:,} leased, {counts.due:,} due"
    if counts.paused:
        left += f"; paused: {paused_words(counts.paused, counts.at, counts.pause_seconds_left)}"
    complain(f"{settings.queue.name} is not drained: {left}")
    return TIMED_OUT
