"""Trio. ``shell``: a Python prompt with top-level await and names for the queue, Redis, the relay and the settings.

The prompt runs in the main thread, where Ctrl-C and line editing work as usual; awaited code runs in trio, in a second
thread.
"""

from __future__ import annotations

import ast
import builtins
import code
import inspect
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pprint import pformat
from types import CodeType, FunctionType
from typing import Any

import trio
from attrs import evolve

from trio_worker import __version__
from trio_worker.cli.connect import connect_queue
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import ConfigFile
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import redis_name
from trio_worker.cli.setup import relay_of
from trio_worker.fleet.overview import Overview, read_overview
from trio_worker.printing import complain, complain_text, print_values, read_answer, say
from trio_worker.privacy import mask_text
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import find_shelved, read_shelf
from trio_worker.queue.pause import PAUSE_SECONDS, pause_queue, resume_queue
from trio_worker.queue.record import ShelvedJob
from trio_worker.records import define, frozen
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.secret_mask import mask_of
from trio_worker.settings.reader import Settings
from trio_worker.settings.text import effective
from trio_worker.smtp.pool import Pool, open_pool
from trio_worker.smtp.session import open_session
from trio_worker.trio_thread import TrioThread, open_trio_thread

# Bytes are mostly jobs: only the beginning of longer ones is shown; say("") shows them in full.
_SHOWN_BYTES = 12
_LITERAL = r"(?:b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\")"
# A literal that is too long for one line is written in pieces, one below the other.
_BYTES_LITERAL = re.compile(rf"{_LITERAL}(?:\s+{_LITERAL})*")

_BANNER = """\
trio-worker {version}: {queue} @ {redis}, relay {relay} ({profile})
  await queue.counts()             also overview, peek, push, dead, held, pause, resume
  await redis.command("LLEN", {queue!r})
  async with pool.borrow() as connection: ...
  settings
Addresses, secrets and jobs are masked in shown values; say("") shows a value in full.
Ctrl-C cancels the awaited call, Ctrl-D exits; workers keep running."""


def shell(*, config: ConfigFile = None) -> int:
    """Open a Python prompt with top-level await and the names queue, redis, pool and settings."""
    settings = load_settings(config)
    is_terminal = sys.stdin.isatty()
    with open_trio_thread(partial(_open_desk, settings)) as (thread, desk):
        names = {
            "__name__": "__console__",
            "queue": desk.queue,
            "redis": desk.redis,
            "pool": desk.pool,
            "settings": settings,
            "trio": trio,
            "print": print_values,
        }
        prompt = Prompt(thread, names, is_terminal=is_terminal)
        usual, sys.displayhook = sys.displayhook, partial(display, secrets_of(settings))
        try:
            prompt.interact(_banner(settings) if is_terminal else "", exitmsg="")
        finally:
            sys.displayhook = usual
    return OK


@define(eq=False)
class Queue:
    """The configured queue; if Redis does not do what is asked, methods return an `Unavailable`."""

    name: str
    _client: RedisClient

    async def counts(self) -> Counts | Unavailable:
        """Count the jobs in every state."""
        return await count_jobs(self._client, self.name)

    async def overview(self) -> Overview | Unavailable:
        """Return the state of the queue, its workers and the past hour."""
        return await read_overview(self._client, self.name)

    async def peek(self, count: int = 5) -> list[bytes] | Unavailable:
        """Return the next jobs of the list without taking them."""
        found: list[bytes] | Unavailable = await self._client.command("LRANGE", self.name, 0, count - 1)
        return found

    async def push(self, *jobs: Mapping[str, Any] | str | bytes) -> int | Unavailable:
        """Push jobs as a producer does; return the number of waiting jobs."""
        words = [job if isinstance(job, str | bytes) else json.dumps(job) for job in jobs]
        depth: int | Unavailable = await self._client.command("RPUSH", self.name, *words)
        return depth

    async def dead(self, limit: int = 20) -> list[ShelvedJob] | Unavailable:
        """Return dead letters without their bodies, newest first."""
        return await read_shelf(self._client, self.name, "dead", limit)

    async def held(self, limit: int = 20) -> list[ShelvedJob] | Unavailable:
        """Return held jobs without their bodies, newest first."""
        return await read_shelf(self._client, self.name, "held", limit)

    async def body(self, job_id: str) -> bytes | Unavailable | None:
        """Return the original bytes of a dead or held job, or None."""
        for shelf in ("dead", "held"):
            found = await find_shelved(self._client, self.name, shelf, [job_id], with_bodies=True)
            if isinstance(found, Unavailable):
                return found
            if found:
                return found[0].body
        return None

    async def pause(self, reason: str, seconds: float = PAUSE_SECONDS) -> Unavailable | None:
        """Stop all workers from claiming jobs for this time."""
        return await pause_queue(self._client, self.name, reason, "shell", seconds)

    async def resume(self) -> bool | Unavailable:
        """End a pause; return whether there was one."""
        return await resume_queue(self._client, self.name)


@frozen
class Desk:
    """The objects that have a name at the prompt."""

    queue: Queue
    redis: RedisClient
    pool: Pool


@asynccontextmanager
async def _open_desk(settings: Settings) -> AsyncIterator[Desk]:
    relay = relay_of(settings)
    options = evolve(settings.smtp_pool, min_idle=0)  # connections are opened only when they are borrowed
    async with (
        connect_queue(settings, complain) as client,
        open_pool(options, settings.smtp_timeouts, partial(open_session, relay), lambda _event: None) as pool,
    ):
        yield Desk(Queue(settings.queue.name, client), client, pool)


class Prompt(code.InteractiveConsole):
    """A console whose code may await; without a terminal it reads a script and exits at its first error."""

    def __init__(self, thread: TrioThread[Desk], names: dict[str, Any], *, is_terminal: bool) -> None:
        super().__init__(names, "<shell>")
        self.thread = thread
        self.is_terminal = is_terminal
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        if is_terminal:
            _complete_by_tab(names)

    def raw_input(self, prompt: str = "") -> str:
        """Read a line; a script sees no prompts."""
        return read_answer(prompt if self.is_terminal else "")

    def write(self, data: str) -> None:
        """Write a message of the console to standard error; a script writes no empty ones."""
        if data.strip() or self.is_terminal:
            complain_text(data)

    def runcode(self, code: CodeType) -> None:
        """Run code: in trio if it awaits, else in this thread, where Ctrl-C ends any loop."""
        function = FunctionType(code, self.locals)
        try:
            if inspect.iscoroutinefunction(function):
                self.thread.call(function)
            else:
                function()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001  the code may raise anything, and it is shown
            self.showtraceback()
            if not self.is_terminal:
                raise SystemExit(1) from None

    def showsyntaxerror(self, filename: str | None = None, **more: Any) -> None:
        """Show a syntax error; a script exits."""
        super().showsyntaxerror(filename, **more)
        if not self.is_terminal:
            raise SystemExit(1)


def display(secrets: tuple[str, ...], value: object) -> None:
    """Print the value of an expression, masked; None is not shown."""
    if value is None:
        return
    vars(builtins)["_"] = value
    say(masked_text(value, secrets))


def masked_text(value: object, secrets: tuple[str, ...] = ()) -> str:
    """Return the text of a value, with secrets, addresses and links masked and long bytes cut."""
    text = _BYTES_LITERAL.sub(_shortened, pformat(value, width=100, sort_dicts=False))
    return mask_text(mask_of(*secrets, *(repr(secret)[1:-1] for secret in secrets)).masked(text))


def _shortened(literal: re.Match[str]) -> str:
    held: bytes = ast.literal_eval(f"({literal[0]})")
    if len(held) <= 2 * _SHOWN_BYTES:
        return literal[0]
    return f"<{len(held):,} bytes: {held[:_SHOWN_BYTES]!r}…>"


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Return the texts that must never be shown: every secret, and the login in the Redis URL."""
    secrets = [value for _key, value, is_secret in effective(settings) if is_secret and value]
    login = re.search(r"://([^/@]*)@", settings.redis.url)
    return tuple(filter(None, [*secrets, login[1] if login else ""]))


def _banner(settings: Settings) -> str:
    return _BANNER.format(
        version=__version__,
        queue=settings.queue.name,
        redis=redis_name(settings.redis.url),
        relay=f"{settings.smtp.host}:{settings.smtp.port}",
        profile=settings.profile,
    )


def _complete_by_tab(names: dict[str, Any]) -> None:
    try:
        import readline  # noqa: PLC0415  not every Python has it
        import rlcompleter  # noqa: PLC0415  the same
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
