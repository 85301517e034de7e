"""Edge. Orders to workers (quiet, resume, drain, probe, tasks, log level, trace), in Redis and back; their answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TypeAlias, assert_never

from trio_worker.queue.counts import count_action
from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable

# A trace and a changed log level end by themselves: the operator who asked may be cut off.
MAX_SECONDS = 86_400.0


@frozen
class Quiet:
    """Claim nothing more, finish the jobs in flight, and stay."""


@frozen
class Resume:
    """Claim again."""


@frozen
class Drain:
    """Claim nothing more, finish the jobs in flight, and end."""


@frozen
class Probe:
    """Try the relay now, instead of waiting for the next probe."""


@frozen
class ShowTasks:
    """Answer with the state of the worker and the tree of its tasks."""


@frozen
class SetLogLevel:
    """Log from this level on, for ``seconds``."""

    level: str
    seconds: float


@frozen
class Trace:
    """Publish what is said on each connection for ``seconds``; a worker stops early when no watcher is left."""

    seconds: float


Order: TypeAlias = Quiet | Resume | Drain | Probe | ShowTasks | SetLogLevel | Trace


@frozen
class OrderMessage:
    """An order on its way; its sender finds the result under ``answer_id``."""

    order: Order
    answer_id: str


def write_order_message(message: OrderMessage) -> str:
    """Return one line: the answer's id, the order's name, its arguments."""
    return f"{message.answer_id} {_text_of(message.order)}"


def read_order_messages(wire: bytes) -> list[OrderMessage]:
    """Read the orders of a worker, one a line, in the order in which they were given.

    An order that only another version knows is left out: it is never answered.
    """
    lines = wire.decode("ascii", "replace").splitlines()
    return [message for line in lines if (message := _order_message(line)) is not None]


def _text_of(order: Order) -> str:
    match order:
        case Quiet():
            return "quiet"
        case Resume():
            return "resume"
        case Drain():
            return "drain"
        case Probe():
            return "probe"
        case ShowTasks():
            return "tasks"
        case SetLogLevel(level, seconds):
            return f"log-level {level} {seconds:.0f}"
        case Trace(seconds):
            return f"trace {seconds:.0f}"
        case _:
            assert_never(order)


def _order_message(line: str) -> OrderMessage | None:
    match line.split(" "):
        case [answer_id, "quiet"]:
            return OrderMessage(Quiet(), answer_id)
        case [answer_id, "resume"]:
            return OrderMessage(Resume(), answer_id)
        case [answer_id, "drain"]:
            return OrderMessage(Drain(), answer_id)
        case [answer_id, "probe"]:
            return OrderMessage(Probe(), answer_id)
        case [answer_id, "tasks"]:
            return OrderMessage(ShowTasks(), answer_id)
        case [answer_id, "log-level", level, seconds] if _is_time(seconds):
            return OrderMessage(SetLogLevel(level, float(seconds)), answer_id)
        case [answer_id, "trace", seconds] if _is_time(seconds):
            return OrderMessage(Trace(float(seconds)), answer_id)
        case _:
            return None


def _is_time(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and float(text) <= MAX_SECONDS


# Reading changes nothing, so it is not counted.
_ACTIONS: Mapping[type[Order], OperatorAction] = {
    Quiet: OperatorAction.WORKER_QUIET,
    Resume: OperatorAction.WORKER_RESUME,
    Drain: OperatorAction.WORKER_DRAIN,
    Probe: OperatorAction.RELAY_PROBE,
    SetLogLevel: OperatorAction.WORKER_LOG_LEVEL,
}


@frozen
class OrderSent:
    """An order that was sent: to which of the workers, and under which id they answer."""

    worker_names: frozenset[str]
    answer_id: str


async def send_order(
    client: RedisCalls, queue_name: str, order: Order, worker_names: Sequence[str]
) -> OrderSent | Unavailable:
    """Send an order to workers; unknown ones are left out of what is returned."""
    message = OrderMessage(order, secrets.token_hex(4))
    answer = await client.run_script("order", keys_of(queue_name), write_order_message(message), *worker_names)
    if isinstance(answer, Unavailable):
        return answer
    action = _ACTIONS.get(type(order))
    if answer and action is not None:
        await count_action(client, queue_name, action)
    return OrderSent(frozenset(name.decode("utf-8", "replace") for name in answer), message.answer_id)


async def read_answers(client: RedisCalls, queue_name: str, sent: OrderSent) -> dict[str, str] | Unavailable:
    """Return the results of an order at the workers that have carried it out, each once: it is deleted from Redis."""
    names = sorted(sent.worker_names)
    if not names:
        return {}
    fields = [f"{sent.answer_id} {name}" for name in names]
    # Both at once: an answer that comes between two commands would be deleted unread.
    answer = await client.run_script("hear", keys_of(queue_name), *fields)
    if isinstance(answer, Unavailable):
        return answer
    return {name: each.decode("utf-8", "replace") for name, each in zip(names, answer, strict=True) if each}
