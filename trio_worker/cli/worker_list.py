"""Edge. ``worker list``: the workers of a queue, with their state and load."""

from __future__ import annotations

from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json
from trio_worker.cli.silence import silence_words
from trio_worker.cli.table import TableColumn, table_lines, terminal_width
from trio_worker.fleet.overview import read_overview
from trio_worker.printing import complain, say
from trio_worker.telemetry.heartbeat import WorkerSeen
from trio_worker.telemetry.number_words import (
    UNKNOWN,
    ago,
    busy_of,
    count,
    counted,
    duration,
    memory,
    per_second,
    share,
)
from trio_worker.telemetry.snapshot_json import worker_document
from trio_worker.telemetry.words import depth_limit_words, suspended_words, worker_state

_COLUMNS = [
    TableColumn("worker"),
    TableColumn("state"),
    *(TableColumn(head, is_right=True) for head in ("consumers", "in flight", "sent/s", "p95")),
    *(TableColumn(head, is_right=True, is_spare=True) for head in ("idle", "memory")),
    TableColumn("seen", is_right=True),
    TableColumn("version", is_spare=True),
]


@blocking
async def list_workers(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """List the workers with their state, load and rates. A worker without a heartbeat for 15 s is LOST."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
        is_silent = all(each.is_lost for each in seen.workers)
        silence = await silence_words(client, settings.queue.name) if is_silent and not as_json else ""
    workers = sorted(seen.workers, key=lambda each: each.beat.worker)
    if as_json:
        print_json(
            Document.WORKERS, {"queue": settings.queue.name, "workers": [worker_document(each) for each in workers]}
        )
        return OK
    if seen.unreadable:
        complain(f"{counted(seen.unreadable, 'worker sends', 'workers send')} heartbeats that this version cannot read")
    if is_silent:
        complain(silence)
    if not workers:
        return NOTHING_MATCHED
    heads, *lines = table_lines(_COLUMNS, [_row(each) for each in workers], terminal_width())
    say(heads)
    for each, line in zip(workers, lines, strict=True):
        say(line)
        if each.beat.suspended is not None and not each.is_lost:
            now = seen.counts.at
            say(f"  suspended: {suspended_words(each.beat.suspended, each.beat.max_connections, now)}")
        if each.beat.depth_limit is not None and not each.is_lost:
            say(f"  depth: {depth_limit_words(each.beat.depth_limit, seen.counts.at)}")
    return OK


def _row(seen: WorkerSeen) -> tuple[str, ...]:
    beat = seen.beat
    if seen.is_lost:
        # Its last figures are of no moment that anybody asks for: it does no work.
        return beat.worker, worker_state(seen), *[UNKNOWN] * 6, ago(seen.seen_seconds), beat.version
    return (
        beat.worker,
        worker_state(seen),
        busy_of(beat.busy_consumers, beat.number_workers, 4),
        count(beat.mails_in_flight, 9),
        per_second(beat.rates.sent),
        duration(beat.latency.quantiles().p95),
        share(beat.idle_share),
        memory(beat.vitals.rss_bytes),
        ago(seen.seen_seconds),
        beat.version,
    )
