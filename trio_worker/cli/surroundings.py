"""Trio. What every command stands on: settings read or explained, Redis reached or the reason why not."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import trio
from attrs import evolve
from cyclopts import Parameter

from trio_worker.bridge import open_bridge
from trio_worker.cli.documents import Document, named
from trio_worker.redis.client import RedisClient, Unavailable, open_redis_client
from trio_worker.redis.url import EmbeddedAddress, parse_embedded, shown_redis_url
from trio_worker.settings.reader import SettingFault, SettingFaults, Settings, config_path, read_settings
from trio_worker.settings.spelling import nearest
from trio_worker.settings.stop_times import find_stop_times
from trio_worker.telemetry.words import counted
from trio_worker.worker.claiming import LONGEST_WAIT_SECONDS

if TYPE_CHECKING:
    from trio_worker.redis.embedded import EmbeddedServer

OK = 0
USAGE = 2
NOTHING_MATCHED = 3
REFUSED = 4
PARTLY = 5
UNREACHABLE = 69
TIMED_OUT = 75
LOGIN_REFUSED = 77
MISCONFIGURED = 78

CONFIG_HELP = "Configuration file; else TRIO_WORKER_CONFIG, conf/dev.toml."
ConfigFile = Annotated[Path | None, Parameter(name=["--config"], help=CONFIG_HELP)]
QueueName = Annotated[str | None, Parameter(name=["--queue"], help="Name of the queue; else queue.name.")]
OnlyAscii = Annotated[bool, Parameter(name=["--ascii"], negative=(), help="Draw with ASCII alone.")]
AsJson = Annotated[bool, Parameter(name=["--json"], negative=(), help="Print JSON, stable between versions.")]


def complain(what: str) -> None:
    """Print to standard error."""
    print(what, file=sys.stderr)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names what is written most alike, empty where nothing is."""
    alike = nearest(word, known)
    return f"; did you mean {alike}?" if alike else ""


def refuse(code: int, *lines: str) -> NoReturn:
    """Say why the command ends here, on standard error, and end it."""
    for line in lines:
        complain(line)
    raise SystemExit(code)


def load_settings(config: Path | None, flags: Mapping[str, object] | None = None) -> Settings:
    """Read the settings, or print every fault and end with 78."""
    settings = read_settings(config_path(config, os.environ), os.environ, flags or {})
    if isinstance(settings, SettingFaults):
        refuse(MISCONFIGURED, *map(str, settings.faults), counted(len(settings.faults), "problem"))
    return settings


def warnings_of(config: Path | None, settings: Settings) -> list[SettingFault]:
    """Return what is odd in the settings, or between them and the files of the supervisor."""
    path = config_path(config, os.environ)
    grace_seconds = settings.shutdown.grace_seconds
    stops = [] if path is None else find_stop_times(path, is_production=settings.profile == "production")
    place = settings.origins.get("shutdown.grace_seconds", "default")
    short = [
        f"shutdown.grace_seconds: {grace_seconds:g} s, but {stop.place} has a worker killed after {stop.seconds:g} s"
        for stop in stops
        if stop.seconds <= grace_seconds
    ]
    return [*settings.warnings, *(SettingFault(place, what) for what in short)]


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[RedisClient]:
    """Open a client for the configured Redis for a command that does one thing, or looks until Ctrl-C.

    Everything is closed at the end of the block, as `obey_signals` has it. Ends the command with 69 when an embedded
    server cannot be had.
    """
    async with obey_signals(), connect_queue(settings, complain) as client:
        yield client


@asynccontextmanager
async def obey_signals() -> AsyncIterator[None]:
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


def report_unavailable(unavailable: Unavailable, settings: Settings) -> int:
    """Say that Redis did not do what was asked; return the exit code."""
    complain(f"Redis at {redis_name(settings.redis.url)}: {unavailable.what}")
    if unavailable.is_login:
        return LOGIN_REFUSED
    return MISCONFIGURED if unavailable.is_misconfigured else UNREACHABLE


def redis_name(url: str) -> str:
    """Return a Redis URL without its login and options, as a screen shows it."""
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        return f"embedded:{parts.path}"
    return shown_redis_url(url)


def print_json(kind: Document, document: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    """Print one JSON document, or a list of them, each with its ``schema``; stable in its keys."""
    match document:
        case Mapping():
            whole: object = named(kind, document)
        case _:
            whole = [named(kind, each) for each in document]
    print(json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=False))
