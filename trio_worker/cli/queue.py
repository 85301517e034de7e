"""Trio. ``queue``: the list that producers push to: its state, its next jobs, their ages; pause and resume."""

from __future__ import annotations

import math
import time
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
from trio_worker.cli.table import TableColumn, print_table
from trio_worker.fleet.overview import read_overview
from trio_worker.jobs.summary import summarize
from trio_worker.printing import complain, say
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.pause import PAUSE_SECONDS, pause_queue, resume_queue
from trio_worker.queue.waiting import peek
from trio_worker.telemetry.number_words import counted, duration, paused_words

DRAIN_LOOK_SECONDS = 0.5

queue = App(
    name="queue",
    help="Queue: list, peek, age, pause, resume, drain-wait, export, purge, release.",
    help_format="plaintext",
)
queue.command(export_waiting, name="export")
queue.command(purge_queue, name="purge")
queue.command(release_queue, name="release")
queue.command(
    "trio_worker.cli.queue_age:show_ages",
    name="age",
    help="Count the waiting and the delayed jobs by age, and by email type or domain.",
)


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
    age = duration(seen.oldest_seconds, is_estimate=seen.is_estimate)
    columns = [
        TableColumn("queue", cut_to=8),
        TableColumn("waiting", is_right=True),
        TableColumn("oldest", is_right=True),
        *(TableColumn(state, is_right=True) for state in _STATES[1:]),
        TableColumn("workers", is_right=True),
        TableColumn("state", cut_to=6),
    ]
    figures = [f"{getattr(counts, state):,}" for state in _STATES[1:]]
    row = [settings.queue.name, f"{counts.waiting:,}", age, *figures, f"{live:,}", _state(counts)]
    print_table(columns, [row])
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
    if not jobs:
        say("no job waits")
    elif reveal:
        # The job stands below its line.
        for place, raw in enumerate(jobs, 1):
            print_table(_PEEKED, [_peeked_row(place, raw)])
            say(f"  {raw.decode('utf-8', 'backslashreplace')}")
    else:
        print_table(_PEEKED, [_peeked_row(place, raw) for place, raw in enumerate(jobs, 1)])
    return OK if jobs else NOTHING_MATCHED


_PEEKED = [
    TableColumn("place", is_right=True),
    TableColumn("type", cut_to=8),
    TableColumn("age", is_right=True),
    TableColumn("bytes", is_right=True),
    TableColumn("to", cut_to=8),
]


def _peeked_row(place: int, raw: bytes) -> tuple[str, ...]:
    seen = summarize(raw)
    age = duration(None if seen.enqueued_at is None else time.time() - seen.enqueued_at)
    words = seen.email_type or ("-" if seen.is_readable else "not JSON")
    return f"{place:,}", words, age, f"{len(raw):,}", ", ".join(seen.domains) or "-"


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
