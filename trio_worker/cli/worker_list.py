"""Edge. ``worker list``: the workers of a queue, with their state and load."""

from __future__ import annotations

from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json
from trio_worker.fleet.overview import read_overview
from trio_worker.printing import complain, say
from trio_worker.telemetry.heartbeat import WorkerSeen
from trio_worker.telemetry.number_words import ago, busy_of, count, counted, duration, memory, per_second, share
from trio_worker.telemetry.snapshot_json import worker_document
from trio_worker.telemetry.words import depth_limit_words, suspended_words, worker_state


@blocking
async def list_workers(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """List the workers with their state, load and rates. A worker without a heartbeat for 15 s is LOST."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    with open_calls(settings) as client:
        seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
    workers = sorted(seen.workers, key=lambda each: each.beat.worker)
    if as_json:
        print_json(
            Document.WORKERS, {"queue": settings.queue.name, "workers": [worker_document(each) for each in workers]}
        )
        return OK
    if seen.unreadable:
        complain(f"{counted(seen.unreadable, 'worker sends', 'workers send')} heartbeats that this version cannot read")
    if not workers:
        complain("no worker runs")
        return NOTHING_MATCHED
    size = max(len("worker"), *(len(each.beat.worker) for each in workers))
    heads = f"{'state':<8}  {'consumers':>9}  {'in flight':>9}  {'sent/s':>7}  {'p95':>6}  {'idle':>5}  {'memory':>6}"
    say(f"{'worker':<{size}}  {heads}  {'seen':>5}  version")
    for each in workers:
        say(f"{each.beat.worker:<{size}}  {_row(each)}")
        if each.beat.suspended is not None and not each.is_lost:
            now = seen.counts.at
            say(f"  suspended: {suspended_words(each.beat.suspended, each.beat.max_connections, now)}")
        if each.beat.depth_limit is not None and not each.is_lost:
            say(f"  depth: {depth_limit_words(each.beat.depth_limit, seen.counts.at)}")
    return OK


def _row(seen: WorkerSeen) -> str:
    beat = seen.beat
    words = (
        f"{worker_state(seen):<8}",
        f"{busy_of(beat.busy_consumers, beat.number_workers, 4):>9}",
        f"{count(beat.mails_in_flight, 9):>9}",
        f"{per_second(beat.rates.sent):>7}",
        f"{duration(beat.latency.quantiles().p95):>6}",
        f"{share(beat.idle_share):>5}",
        f"{memory(beat.vitals.rss_bytes):>6}",
        f"{ago(seen.seen_seconds):>5}",
        beat.version,
    )
    return "  ".join(words)
