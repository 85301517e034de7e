"""Trio. ``stats``: rates of the queue line by line, live or of the past day."""

from __future__ import annotations

import time
from typing import Annotated, Any

import trio
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import Seconds
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, redis_name, refuse
from trio_worker.cli.table import TableColumn, print_table, terminal_width
from trio_worker.fleet.overview import DAY_MINUTES, Overview, read_overview
from trio_worker.fleet.polls import Polls
from trio_worker.printing import say
from trio_worker.queue.history import MINUTE_SECONDS, MinuteFigures, figures_of
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.number_words import busy_of, clock, count, duration, per_second, share
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.telemetry.snapshot_json import document_of

_LIVE_HEADS = (
    *("time", "waiting", "oldest", "in/s", "sent/s", "delayed/s", "dead/s"),
    *("p95", "consumers", "in flight", "idle"),
)
_LIVE_SIZES = (8, 10, 7, 8, 8, 9, 7, 7, 9, 9, 5)
_PAST_COLUMNS = [
    TableColumn("time"),
    *(TableColumn(head, is_right=True) for head in ("in", "sent", "delayed", "died", "uncertain", "waiting", "dead")),
    TableColumn("", cut_to=1),
]
_HEADS_EVERY = 20


async def stats(
    *,
    interval: Annotated[Seconds, Parameter(help="Time between two lines.", validator=Number(gte=1, lte=3600))] = 5.0,
    count_: Annotated[int, Parameter(name="--count", help="Number of lines; 0: no end.", validator=Number(gte=0))] = 0,
    last: Annotated[
        int | None,
        Parameter(
            help=f"Print this number of past minutes instead, at most {DAY_MINUTES - 1}.", validator=Number(gte=1)
        ),
    ] = None,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Print the rates of all workers, one line per interval as vmstat does, or the past, one line per minute."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    if last is not None and last >= DAY_MINUTES:
        refuse(2, f"--last: must be at most {DAY_MINUTES - 1} minutes")
    if as_json and last is None and not count_:
        refuse(2, "--json needs --count or --last, because a JSON document must end")
    async with open_queue(settings) as client:
        if last is not None:
            return await _print_past(client, settings, last, as_json=as_json)
        return await _print_live(client, settings, interval, count_, as_json=as_json)


async def _print_live(client: RedisClient, settings: Settings, interval: float, lines: int, *, as_json: bool) -> int:
    polls = Polls(client, settings.queue.name, redis_name(settings.redis.url), clock=trio.current_time)
    answer_or_exit(await polls.poll(), settings)
    documents: list[dict[str, Any]] = []
    printed = 0
    while not lines or printed < lines:
        before = polls.last
        await trio.sleep(interval)
        answer_or_exit(await polls.poll(), settings)
        snapshot = polls.snapshot()
        if as_json:
            documents.append(document_of(snapshot))
        else:
            if printed % _HEADS_EVERY == 0:
                say(_live_line(_LIVE_HEADS))
            arrived = _arrived_per_second(before, polls.last)
            say(_live_row(snapshot, arrived), flush=True)
        printed += 1
    if as_json:
        print_json(Document.SNAPSHOT, documents)
    return OK


def _arrived_per_second(before: Overview | None, after: Overview | None) -> float:
    """Return the number of jobs pushed per second between two polls."""
    if before is None or after is None or after.counts.at <= before.counts.at:
        return 0.0
    pushed = [seen.counts.popped + seen.counts.waiting for seen in (before, after)]
    return (pushed[1] - pushed[0]) / (after.counts.at - before.counts.at)


def _live_row(snapshot: Snapshot, arrived: float) -> str:
    queue, rates = snapshot.queue, snapshot.rates
    words = (
        clock(snapshot.at),
        count(queue.waiting if queue else None),
        duration(queue.oldest_seconds, is_estimate=queue.is_estimate) if queue else "-",
        per_second(arrived),
        per_second(rates.sent),
        per_second(rates.delayed),
        per_second(rates.dead),
        duration(snapshot.latency.p95),
        busy_of(snapshot.busy_consumers, snapshot.number_workers, 4),
        count(snapshot.mails_in_flight, 9),
        share(snapshot.idle_share),
    )
    return _live_line(words)


async def _print_past(client: RedisClient, settings: Settings, minutes: int, *, as_json: bool) -> int:
    seen = answer_or_exit(await read_overview(client, settings.queue.name, minutes + 1), settings)
    past = figures_of(seen.minutes)
    if as_json:
        print_json(Document.MINUTES, {"queue": settings.queue.name, "minutes": [_past_document(each) for each in past]})
        return OK
    rows = []
    for each in past:
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.minute * MINUTE_SECONDS))
        figures = (each.pushed, each.sent, each.delays, each.deaths, each.uncertain, each.waiting, each.dead)
        gap = f"no worker ran for {each.minutes} minutes" if each.minutes > 1 else ""
        rows.append((began, *map(count, figures), gap))
    print_table(_PAST_COLUMNS, rows)
    return OK


def _past_document(each: MinuteFigures) -> dict[str, Any]:
    return {
        "began_at": (each.minute - each.minutes + 1) * MINUTE_SECONDS,
        "minutes": each.minutes,
        "pushed": each.pushed,
        "sent": each.sent,
        "delayed": each.delays,
        "died": each.deaths,
        "uncertain": each.uncertain,
        "waiting": each.waiting,
        "dead": each.dead,
    }


def _live_line(words: tuple[str, ...]) -> str:
    """Return one line; if the terminal is narrow, without the last columns."""
    width, line = terminal_width(), ""
    for word, size in zip(words, _LIVE_SIZES, strict=True):
        longer = f"{line}  {word:>{size}}" if line else f"{word:>{size}}"
        if width is not None and len(longer) > width:
            break
        line = longer
    return line
