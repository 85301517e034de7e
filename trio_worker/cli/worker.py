"""Trio. ``worker``: those that share the queue: list them, and tell them to be quiet, to go on, to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import trio
from attrs import frozen
from cyclopts import App, Parameter

from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import Duration
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, PARTLY, TIMED_OUT, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, complain, print_json, refuse
from trio_worker.cli.target_workers import (
    ANSWER_POLL_SECONDS,
    AllWorkers,
    Patience,
    WorkerName,
    choose_workers,
    order_workers,
    report_unreached,
)
from trio_worker.dashboard.lists import worker_state
from trio_worker.fleet.orders import MOST_SECONDS, Drain, Order, Quiet, Resume, SetLogLevel, ShowTasks, give_order
from trio_worker.fleet.overview import read_overview
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.heartbeat import WorkerSeen
from trio_worker.telemetry.snapshot_json import worker_document
from trio_worker.telemetry.words import (
    ago,
    busy_of,
    count,
    counted,
    duration,
    memory,
    per_second,
    share,
    suspended_words,
)

worker = App(name="worker", help="The workers that share the queue: list, quiet, resume, drain, tasks, log-level.")


@worker.command(name="list")
async def list_workers(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """List the workers, what they do and how they are; one that is silent for 15 s is LOST."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    async with open_queue(settings) as client:
        seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
    workers = sorted(seen.workers, key=lambda each: each.beat.worker)
    if as_json:
        print_json(
            Document.WORKERS, {"queue": settings.queue.name, "workers": [worker_document(each) for each in workers]}
        )
        return OK
    if seen.unreadable:
        complain(f"{counted(seen.unreadable, 'worker tells', 'workers tell')} what this version cannot read")
    if not workers:
        complain("no worker runs")
        return NOTHING_MATCHED
    size = max(len("worker"), *(len(each.beat.worker) for each in workers))
    heads = f"{'state':<8}  {'consumers':>9}  {'in flight':>9}  {'sent/s':>7}  {'p95':>6}  {'idle':>5}  {'memory':>6}"
    print(f"{'worker':<{size}}  {heads}  {'seen':>5}  version")
    for each in workers:
        print(f"{each.beat.worker:<{size}}  {_row(each)}")
        if each.beat.suspended is not None and not each.is_lost:
            now = seen.counts.at
            print(f"  suspended: {suspended_words(each.beat.suspended, each.beat.max_connections, now)}")
    return OK


@worker.command(name="quiet")
async def quiet_workers(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 10.0, config: ConfigFile = None
) -> int:
    """Have workers claim nothing more, finish what is in hand, and stay up; worker resume undoes it."""
    return await _Telling(Quiet(), "quiet", lambda seen: seen.beat.is_quiet, patience).run(names, config, every=every)


@worker.command(name="resume")
async def resume_workers(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 10.0, config: ConfigFile = None
) -> int:
    """Have quiet workers claim again."""
    telling = _Telling(Resume(), "claiming", lambda seen: not seen.beat.is_quiet, patience)
    return await telling.run(names, config, every=every)


@worker.command(name="drain")
async def drain_workers(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 60.0, config: ConfigFile = None
) -> int:
    """Have workers finish what is in hand and end, as after SIGTERM; wait until they are gone.

    A supervisor that restarts whatever ends starts them again.
    """
    return await _Telling(Drain(), "gone", lambda seen: seen.is_lost, patience).run(names, config, every=every)


@worker.command(name="tasks")
async def show_tasks(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 10.0, config: ConfigFile = None
) -> int:
    """Print what workers are doing: figures, connections, and the tree of tasks with the place where each waits."""
    return await _ask(ShowTasks(), names, config, patience, every=every)


@worker.command(name="log-level")
async def set_log_level(
    level: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="Least level that is written.")],
    *names: WorkerName,
    every: AllWorkers = False,
    for_seconds: Annotated[Duration, Parameter(name="--for", help="How long, at most a day.")] = 600.0,
    patience: Patience = 10.0,
    config: ConfigFile = None,
) -> int:
    """Have workers log more, or less, for a while; after that the level is log.level again."""
    if not 1 <= for_seconds <= MOST_SECONDS:
        refuse(USAGE, "--for: must be between 1s and 1d")
    return await _ask(SetLogLevel(level, for_seconds), names, config, patience, every=every)


async def _ask(order: Order, names: Sequence[str], config: Path | None, patience: float, *, every: bool) -> int:
    """Give an order and print the answers."""
    settings = load_settings(config)
    if bool(names) == every:
        refuse(USAGE, "name workers, or say --all")
    code = OK
    async with open_queue(settings) as client:
        wanted = await choose_workers(client, settings, names, every=every)
        async for came in order_workers(client, settings, order, wanted, patience):
            name, answer = answer_or_exit(came, settings)
            if answer is None:
                complain(f"{name}: no answer within {patience:g} s")
                code = TIMED_OUT
            else:
                print(answer if answer.startswith(f"{name}:") else f"{name}: {answer}")
    return code


@frozen
class _Telling:
    """One order, and when a worker has obeyed; one that is not on the list any more has obeyed a drain."""

    order: Order
    done: str
    has_obeyed: Callable[[WorkerSeen], bool]
    timeout_seconds: float

    async def run(self, names: Sequence[str], config: Path | None, *, every: bool) -> int:
        settings = load_settings(config)
        if bool(names) == every:
            refuse(USAGE, "name workers, or say --all")
        async with open_queue(settings) as client:
            wanted = await choose_workers(client, settings, names, every=every)
            told = answer_or_exit(await give_order(client, settings.queue.name, self.order, wanted), settings)
            untold = report_unreached(told, wanted)
            code = await self._wait(client, settings, set(told.worker_names))
            return PARTLY if untold and code == OK else code

    async def _wait(self, client: RedisClient, settings: Settings, open_: set[str]) -> int:
        """Wait until the workers say that they have obeyed: each hears it with its next heartbeat."""
        with trio.move_on_after(self.timeout_seconds):
            while open_:
                seen = await read_overview(client, settings.queue.name)
                if not isinstance(seen, Unavailable):
                    still = {each.beat.worker: each for each in seen.workers}
                    for name in sorted(open_):
                        if name not in still or self.has_obeyed(still[name]):
                            open_.discard(name)
                            print(f"{name}: {self.done if name in still or isinstance(self.order, Drain) else 'gone'}")
                if open_:
                    await trio.sleep(ANSWER_POLL_SECONDS)
        for name in sorted(open_):
            complain(f"{name}: not yet {self.done}; it was told")
        return TIMED_OUT if open_ else OK


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
