"""Edge. Commands whose calls to Redis block: they read or change something, print it and end.

They import neither trio nor the library of Redis, whose imports would be most of their time.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from attrs import evolve

from trio_worker.cli.exit_codes import MISCONFIGURED
from trio_worker.cli.output import refuse
from trio_worker.redis.blocking import BlockingClient, open_blocking_client, run_blocking
from trio_worker.redis.tls import tls_fault
from trio_worker.settings.reader import Settings

if TYPE_CHECKING:
    from trio_worker.redis.embedded import EmbeddedServer

_P = ParamSpec("_P")


def blocking(command: Callable[_P, Coroutine[Any, Any, int]]) -> Callable[_P, int]:
    """Make a plain function of a command that awaits only what a `BlockingClient` and `sleep_until` give."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> int:
        return run_blocking(command(*args, **kwargs))

    return run


async def sleep_until(ends_at: float, seconds: float) -> bool:
    """Block for ``seconds``, but not beyond ``ends_at`` (`time.monotonic`); return whether that is still to come.

    Ctrl-C and SIGTERM end the command meanwhile.
    """
    left = ends_at - time.monotonic()
    time.sleep(max(0.0, min(seconds, left)))  # noqa: ASYNC251  there is no event loop
    return seconds < left


@contextmanager
def open_calls(settings: Settings) -> Iterator[BlockingClient]:
    """Open a client for the configured Redis; an embedded server must run already.

    Everything is closed at the end of the block, also after Ctrl-C and SIGTERM; the last user of an embedded server
    stops it. Exits with 69 when an embedded server does not run, with 78 when its folder
    cannot be used, with 143 on SIGTERM.
    """
    options = settings.redis
    if fault := tls_fault(options):
        refuse(MISCONFIGURED, fault)
    with ExitStack() as stack:
        stack.enter_context(_exit_on_sigterm())
        if options.url.startswith("embedded:"):
            server = _enter_embedded(stack, settings)
            options = evolve(options, url=server.url, username=server.username, password=server.password)
        yield stack.enter_context(open_blocking_client(options, settings.queue.name))


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception, so that an embedded server is left in order."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _enter_embedded(stack: ExitStack, settings: Settings) -> EmbeddedServer:
    # Imported here, because commands for another Redis need none of its seventeen classes.
    from trio_worker.cli.embedded import embedded_address, embedded_code  # noqa: PLC0415
    from trio_worker.redis.embedded import EmbeddedError, acquire_embedded, release_embedded  # noqa: PLC0415

    try:
        hold = acquire_embedded(embedded_address(settings), may_start=False)
    except EmbeddedError as error:
        refuse(embedded_code(error), *f"redis.url: {error}".split("\n"))  # the end of its log
    stack.callback(release_embedded, hold)
    return hold.server
