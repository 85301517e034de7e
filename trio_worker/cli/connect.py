"""Trio. Connects a command to the queue's Redis, and ends it on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import evolve

from trio_worker.bridge import open_bridge
from trio_worker.cli.exit_codes import MISCONFIGURED, OK, UNREACHABLE
from trio_worker.cli.output import complain, refuse
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.url import EmbeddedAddress, parse_embedded
from trio_worker.settings.reader import Settings
from trio_worker.worker.claiming import LONGEST_WAIT_SECONDS

if TYPE_CHECKING:
    from trio_worker.redis.embedded import EmbeddedServer


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[RedisClient]:
    """Open a client for the configured Redis for a command that does one thing, or looks until Ctrl-C.

    Everything is closed at the end of the block, as `exit_on_signals` has it. Ends the command with 69 when an embedded
    server cannot be had.
    """
    async with exit_on_signals(), connect_queue(settings, complain) as client:
        yield client


@asynccontextmanager
async def exit_on_signals() -> AsyncIterator[None]:
    """Let Ctrl-C or SIGTERM cancel the block and end the command with 130 or 143.

    A KeyboardInterrupt inside of asyncio would leave it hanging. Whoever ends the command in the block ends it with
    that code, as is.
    """
    ended: list[int] = []
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def end_by_signal() -> None:
                    ended.append(await anext(signals))
                    nursery.cancel_scope.cancel()

                nursery.start_soon(end_by_signal)
                yield
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        refusals, others = group.split(SystemExit)
        if refusals is None or others is not None:
            raise
        raise SystemExit(_first_code(refusals)) from None
    if ended:
        raise SystemExit(128 + ended[0])


def _first_code(group: BaseExceptionGroup[SystemExit]) -> int:
    """Return the exit code of the first refusal in a group."""
    first = group.exceptions[0]
    return _first_code(first) if isinstance(first, BaseExceptionGroup) else int(first.code or OK)


@asynccontextmanager
async def connect_queue(settings: Settings, say: Callable[[str], object]) -> AsyncIterator[RedisClient]:
    """Open the bridge and a client for the configured Redis; an embedded one is started if nobody runs it.

    Everything is closed at the end of the block; the last user of an embedded server stops it. ``say`` is told of
    futures that nobody awaited. Raises SystemExit(69) when an embedded server cannot be had.
    """
    options = settings.redis
    async with AsyncExitStack() as stack:
        # Before the bridge, so that a refusal leaves no nursery on its way out.
        if options.url.startswith("embedded:"):
            server = await _enter_embedded(stack, options.url)
            options = evolve(options, url=server.url)
        await stack.enter_async_context(open_bridge(say))
        yield await stack.enter_async_context(open_redis_client(options, LONGEST_WAIT_SECONDS, settings.queue.name))


async def _enter_embedded(stack: AsyncExitStack, url: str) -> EmbeddedServer:
    address = parse_embedded(url)
    if not isinstance(address, EmbeddedAddress):
        refuse(MISCONFIGURED, f"redis.url: {address.what}")
    # Seventeen classes that no command needs which finds its server running.
    from trio_worker.redis.embedded import EmbeddedError, open_embedded  # noqa: PLC0415

    try:
        return await stack.enter_async_context(open_embedded(address))
    except EmbeddedError as error:
        refuse(UNREACHABLE, str(error))
