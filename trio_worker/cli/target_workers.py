"""Trio. The workers that an order is sent to, and the answer of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import trio
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_worker.cli.durations import Seconds
from trio_worker.cli.exit_codes import NOTHING_MATCHED
from trio_worker.cli.output import answer_or_exit, did_you_mean
from trio_worker.cli.silence import silence_words
from trio_worker.fleet.orders import Order, OrderSent, read_answers, send_order
from trio_worker.fleet.overview import read_overview
from trio_worker.printing import complain
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.settings.reader import Settings

ANSWER_POLL_SECONDS = 0.5

WorkerName = Annotated[str, Parameter(help="Names of workers, as `worker list` shows them; or --all.")]
AllWorkers = Annotated[bool, Parameter(name=["--all"], negative=(), help="All workers.")]
Patience = Annotated[
    Seconds, Parameter(name=["--timeout"], help="Maximum time to wait for the workers.", validator=Number(gte=0))
]


async def choose_workers(client: RedisCalls, settings: Settings, names: Sequence[str], *, every: bool) -> list[str]:
    """Return the names of the live workers that are named, or of all; exit with 3 where one of them does not run."""
    seen = answer_or_exit(await read_overview(client, settings.queue.name), settings)
    known = [each.beat.worker for each in seen.workers if not each.is_lost]
    for name in sorted(set(names) - set(known)):
        complain(f"worker {name} does not run{did_you_mean(name, known)}")
    if every and not known:
        complain(await silence_words(client, settings.queue.name))
    wanted = [name for name in known if every or name in names]
    if not wanted or len(wanted) < len(set(names)):
        raise SystemExit(NOTHING_MATCHED)
    return wanted


def report_unreached(order_sent: OrderSent, names: Sequence[str]) -> list[str]:
    """Return the workers that the order could not be sent to: they have ended, or read no orders any more."""
    unreached = sorted(set(names) - order_sent.worker_names)
    for name in unreached:
        complain(f"{name}: order not sent: the worker has ended, or reads no orders any more")
    return unreached


async def order_workers(
    client: RedisCalls, settings: Settings, order: Order, names: Sequence[str], timeout_seconds: float
) -> AsyncGenerator[tuple[str, str | None] | Unavailable]:
    """Send an order, then yield the answer of each worker as it comes; None if a worker does not answer in time.

    A worker reads its orders with its next heartbeat.
    """
    queue = settings.queue.name
    order_sent = await send_order(client, queue, order, names)
    if isinstance(order_sent, Unavailable):
        yield order_sent
        return
    for name in report_unreached(order_sent, names):
        yield name, None
    silent = set(order_sent.worker_names)
    ends_at = trio.current_time() + timeout_seconds
    while silent:
        answers = await read_answers(client, queue, order_sent)
        if isinstance(answers, Unavailable):
            yield answers
            return
        for name in sorted(silent & answers.keys()):
            silent.discard(name)
            yield name, answers[name]
        if silent and trio.current_time() >= ends_at:
            break
        if silent:
            await trio.sleep(ANSWER_POLL_SECONDS)
    for name in sorted(silent):
        yield name, None
