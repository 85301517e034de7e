"""Trio. ``worker``: those that share the queue: list them, and tell them to be quiet, to go on, to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import trio
from attrs import frozen
from cyclopts import App, Parameter
from cyclopts.validators import Number

from trio_worker.cli.surroundings import (
    NOTHING_MATCHED,
    OK,
    TIMED_OUT,
    AsJson,
    ConfigFile,
    QueueName,
    complain,
    did_you_mean,
    load_settings,
    open_queue,
    print_json,
    refuse,
    report_unavailable,
)
from trio_worker.heartbeat import WorkerSeen
from trio_worker.listings import worker_state
from trio_worker.overview import read_overview
from trio_worker.presence import Order, give_order
from trio_worker.redis_client import RedisClient, Unavailable
from trio_worker.settings import Settings
from trio_worker.snapshot_json import worker_document
from trio_worker.wording import ago, duration, memory, per_second, share

LOOK_SECONDS = 0.5

Name = Annotated[str, Parameter(help="Names of workers, as worker list shows them; or --all.")]
Every = Annotated[bool, Parameter(name=["--all"], negative=(), help="All workers.")]
Patience = Annotated[float, Parameter(name=["--timeout"], help="Seconds to wait for it.", validator=Number(gte=0))]

worker = App(name="worker", help="The workers that share the queue: list, quiet, resume, drain.")


@worker.command(name="list")
async def list_(*, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """List the workers, what they do and how they are; one that is silent for 15 s is LOST."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    async with open_queue(settings) as client:
        seen = await read_overview(client, settings.queue.name)
    if isinstance(seen, Unavailable):
        return report_unavailable(seen, settings)
    workers = sorted(seen.workers, key=lambda each: each.beat.worker)
    if as_json:
        print_json({"queue": settings.queue.name, "workers": [worker_document(each) for each in workers]})
        return OK
    if seen.unreadable:
        complain(f"{seen.unreadable} workers tell what this version cannot read")
    if not workers:
        complain("no worker runs")
        return NOTHING_MATCHED
    size = max(len("worker"), *(len(each.beat.worker) for each in workers))
    heads = f"{'state':<8}  {'in hand':>9}  {'sent/s':>7}  {'p95':>6}  {'idle':>5}  {'memory':>6}  {'seen':>5}  version"
    print(f"{'worker':<{size}}  {heads}")
    for each in workers:
        print(f"{each.beat.worker:<{size}}  {_row(each)}")
    return OK


@worker.command
async def quiet(*names: Name, every: Every = False, patience: Patience = 10.0, config: ConfigFile = None) -> int:
    """Have workers claim nothing more, finish what is in hand, and stay up; worker resume undoes it."""
    return await _Telling(Order.QUIET, "quiet", lambda seen: seen.beat.is_quiet, patience).run(
        names, config, every=every
    )


@worker.command
async def resume(*names: Name, every: Every = False, patience: Patience = 10.0, config: ConfigFile = None) -> int:
    """Have quiet workers claim again."""
    telling = _Telling(Order.RESUME, "claiming", lambda seen: not seen.beat.is_quiet, patience)
    return await telling.run(names, config, every=every)


@worker.command
async def drain(*names: Name, every: Every = False, patience: Patience = 60.0, config: ConfigFile = None) -> int:
    """Have workers finish what is in hand and end, as after SIGTERM; wait until they are gone.

    A supervisor that restarts whatever ends starts them again.
    """
    return await _Telling(Order.DRAIN, "gone", lambda seen: seen.is_lost, patience).run(names, config, every=every)


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
            refuse(2, "name workers, or say --all")
        async with open_queue(settings) as client:
            seen = await read_overview(client, settings.queue.name)
            if isinstance(seen, Unavailable):
                return report_unavailable(seen, settings)
            known = {each.beat.worker: each for each in seen.workers if not each.is_lost}
            for name in set(names) - known.keys():
                complain(f"no worker {name} runs{did_you_mean(name, known)}")
            wanted = [name for name in known if every or name in names]
            if not wanted or (names and len(wanted) < len(set(names))):
                return NOTHING_MATCHED
            told = await give_order(client, settings.queue.name, self.order, wanted)
            if isinstance(told, Unavailable):
                return report_unavailable(told, settings)
            return await self._wait(client, settings, set(told))

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
                            print(f"{name}: {self.done if name in still or self.order is Order.DRAIN else 'gone'}")
                if open_:
                    await trio.sleep(LOOK_SECONDS)
        for name in sorted(open_):
            complain(f"{name}: not yet {self.done}; it was told")
        return TIMED_OUT if open_ else OK


def _row(seen: WorkerSeen) -> str:
    beat = seen.beat
    words = (
        f"{worker_state(seen):<8}",
        f"{f'{beat.in_hand}/{beat.number_workers}':>9}",
        f"{per_second(beat.rates.sent):>7}",
        f"{duration(beat.latency.quantiles().p95):>6}",
        f"{share(beat.idle_share):>5}",
        f"{memory(beat.vitals.rss_bytes):>6}",
        f"{ago(seen.seen_seconds):>5}",
        beat.version,
    )
    return "  ".join(words)
