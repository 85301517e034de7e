"""Trio. ``worker quiet``, ``resume``, ``drain``, ``tasks`` and ``log-level``: orders to the workers of a queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Literal

import trio
from cyclopts import Parameter

from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import Duration
from trio_worker.cli.exit_codes import OK, PARTLY, TIMED_OUT, USAGE
from trio_worker.cli.flags import ConfigFile
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, refuse
from trio_worker.cli.target_workers import (
    ANSWER_POLL_SECONDS,
    AllWorkers,
    Patience,
    WorkerName,
    choose_workers,
    order_workers,
    report_unreached,
)
from trio_worker.fleet.orders import MAX_SECONDS, Drain, Order, Quiet, Resume, SetLogLevel, ShowTasks, send_order
from trio_worker.fleet.overview import read_overview
from trio_worker.printing import complain, say, say_text
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.heartbeat import WorkerSeen


async def quiet_workers(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 10.0, config: ConfigFile = None
) -> int:
    """Order workers to claim no more jobs, but to finish theirs and keep running. `worker resume` ends this."""
    return await _OrderRun(Quiet(), "quiet", lambda seen: seen.beat.is_quiet, patience).run(names, config, every=every)


async def resume_workers(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 10.0, config: ConfigFile = None
) -> int:
    """Order quiet workers to claim jobs again."""
    order_run = _OrderRun(Resume(), "claiming", lambda seen: not seen.beat.is_quiet, patience)
    return await order_run.run(names, config, every=every)


async def drain_workers(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 60.0, config: ConfigFile = None
) -> int:
    """Order workers to finish their jobs and exit, as after SIGTERM, and wait until they have exited.

    A supervisor may start them again.
    """
    return await _OrderRun(Drain(), "gone", lambda seen: seen.is_lost, patience).run(names, config, every=every)


async def show_tasks(
    *names: WorkerName, every: AllWorkers = False, patience: Patience = 10.0, config: ConfigFile = None
) -> int:
    """Print the state of workers: figures, connections, and the tree of tasks with the line where each task waits."""
    return await _ask(ShowTasks(), names, config, patience, every=every)


async def set_log_level(
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Parameter(help="Lowest level of messages that are logged.")
    ],
    *names: WorkerName,
    every: AllWorkers = False,
    for_seconds: Annotated[Duration, Parameter(name="--for", help="Duration, at most 1d.")] = 600.0,
    patience: Patience = 10.0,
    config: ConfigFile = None,
) -> int:
    """Change the log level of workers for some time. Then it is log.level again."""
    if not 1 <= for_seconds <= MAX_SECONDS:
        refuse(USAGE, "--for: must be between 1s and 1d")
    return await _ask(SetLogLevel(level, for_seconds), names, config, patience, every=every)


async def _ask(order: Order, names: Sequence[str], config: Path | None, patience: float, *, every: bool) -> int:
    """Send an order and print the answers."""
    settings = load_settings(config)
    if bool(names) == every:
        refuse(USAGE, "name workers, or use --all")
    code = OK
    async with open_queue(settings) as client:
        wanted = await choose_workers(client, settings, names, every=every)
        async with aclosing(order_workers(client, settings, order, wanted, patience)) as answers:
            async for came in answers:
                name, answer = answer_or_exit(came, settings)
                if answer is None:
                    complain(f"{name}: no answer within {patience:g} s")
                    code = TIMED_OUT
                else:
                    # The state of a worker has several lines.
                    say_text(answer if answer.startswith(f"{name}:") else f"{name}: {answer}")
    return code


@frozen
class _OrderRun:
    """Sends one order and waits until it is carried out; a worker that is gone has carried out a drain."""

    order: Order
    done: str
    is_carried_out: Callable[[WorkerSeen], bool]
    timeout_seconds: float

    async def run(self, names: Sequence[str], config: Path | None, *, every: bool) -> int:
        settings = load_settings(config)
        if bool(names) == every:
            refuse(USAGE, "name workers, or use --all")
        async with open_queue(settings) as client:
            wanted = await choose_workers(client, settings, names, every=every)
            sent = answer_or_exit(await send_order(client, settings.queue.name, self.order, wanted), settings)
            unreached = report_unreached(sent, wanted)
            code = await self._wait(client, settings, set(sent.worker_names))
            return PARTLY if unreached and code == OK else code

    async def _wait(self, client: RedisCalls, settings: Settings, open_: set[str]) -> int:
        """Wait until the heartbeats of the workers show that the order is carried out."""
        with trio.move_on_after(self.timeout_seconds):
            while open_:
                seen = await read_overview(client, settings.queue.name)
                if not isinstance(seen, Unavailable):
                    still = {each.beat.worker: each for each in seen.workers}
                    for name in sorted(open_):
                        if name not in still or self.is_carried_out(still[name]):
                            open_.discard(name)
                            say(f"{name}: {self.done if name in still or isinstance(self.order, Drain) else 'gone'}")
                if open_:
                    await trio.sleep(ANSWER_POLL_SECONDS)
        for name in sorted(open_):
            complain(f"{name}: not yet {self.done}; the order was sent")
        return TIMED_OUT if open_ else OK
