"""Trio. Connects a command to the queue's Redis, and ends it on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import evolve

from trio_worker.bridge import open_bridge
from trio_worker.cli.embedded import embedded_address, embedded_code
from trio_worker.cli.exit_codes import MISCONFIGURED, OK
from trio_worker.cli.output import refuse
from trio_worker.printing import complain
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.tls import tls_fault
from trio_worker.settings.reader import Settings
from trio_worker.worker.claiming import LONGEST_WAIT_SECONDS

if TYPE_CHECKING:
    from trio_worker.redis.embedded import EmbeddedServer


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[RedisClient]:
    """Open a client for the configured Redis, for a command that runs to its end or until Ctrl-C.

    Everything is closed at the end of the block; signals end the block as in `exit_on_signals`. Exits with 69 when an
    embedded server does not run.
    """
    async with exit_on_signals(), connect_queue(settings, complain) as client:
        yield client


@asynccontextmanager
async def exit_on_signals() -> AsyncIterator[None]:
    """Let Ctrl-C or SIGTERM cancel the block and end the command with 130 or 143.

    A KeyboardInterrupt inside asyncio would make it hang. A SystemExit raised in the block keeps its exit code, without
    the groups that nurseries wrap around it.
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
    """Return the exit code of the first SystemExit in a group."""
    first = group.exceptions[0]
    return _first_code(first) if isinstance(first, BaseExceptionGroup) else int(first.code or OK)


@asynccontextmanager
async def connect_queue(
    settings: Settings, say: Callable[[str], object], *, starts_embedded: bool = False
) -> AsyncIterator[RedisClient]:
    """Open the bridge and a client for the configured Redis. An embedded server is only started if that is asked for.

    Everything is closed at the end of the block; the last user of an embedded server stops it. ``say`` is called with
    a line for each future that was not awaited. Exits with 69 when there is no embedded server, with 78 when its folder
    cannot be used.
    """
    options = settings.redis
    if fault := tls_fault(options):
        refuse(MISCONFIGURED, fault)
    async with AsyncExitStack() as stack:
        # Before the bridge is opened, so that an exit has no nursery to pass.
        if options.url.startswith("embedded:"):
            server = await _enter_embedded(stack, settings, starts_embedded=starts_embedded)
            options = evolve(options, url=server.url, username=server.username, password=server.password)
        await stack.enter_async_context(open_bridge(say))
        yield await stack.enter_async_context(open_redis_client(options, LONGEST_WAIT_SECONDS, settings.queue.name))


async def _enter_embedded(stack: AsyncExitStack, settings: Settings, *, starts_embedded: bool) -> EmbeddedServer:
    # Imported here, because commands for another Redis need none of its seventeen classes.
    from trio_worker.redis.embedded import EmbeddedError, open_embedded  # noqa: PLC0415

    # Producers may push to the list of a worker; a command must not open a list that no worker reads.
    lists = [settings.queue.name] if starts_embedded else []
    address = embedded_address(settings)
    try:
        return await stack.enter_async_context(open_embedded(address, lists, may_start=starts_embedded))
    except EmbeddedError as error:
        refuse(embedded_code(error), *f"redis.url: {error}".split("\n"))  # the end of its log
