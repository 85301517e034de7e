"""The command line: what is said with it of the queue, its commands, and their help."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from cyclopts import App
from rich.console import Console

from tests.support.jobs import job_bytes
from trio_worker.cli.command_line import app
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import Bury, Settlement
from trio_worker.redis.client import RedisClient

SECRET = "ann.secret@example.org"
CAUSES = [Cause("refused", "550 5.1.1", "rcpt", f"{SECRET} unknown")] * 3 + [Cause("malformed", text="$.data: missing")]
Ask = Callable[[Callable[[RedisClient], Awaitable[Any]]], Any]


def push(ask: Ask, *jobs: bytes) -> None:
    ask(lambda client: client.command("RPUSH", "jobs", *jobs))


def counts(ask: Ask) -> Counts:
    found = ask(lambda client: count_jobs(client, "jobs"))
    assert isinstance(found, Counts)
    return found


def bury(ask: Ask, causes: list[Cause]) -> list[str]:
    """Bury a job for each cause; return their ids."""

    async def put(client: RedisClient) -> list[str]:
        await client.command("RPUSH", "jobs", *(job_bytes(number, SECRET) for number in range(len(causes))))
        broker = Broker(client, QueueOptions())
        claims = await broker.claim(len(causes))
        assert isinstance(claims, Claims)
        for job, cause in zip(claims.jobs, causes, strict=True):
            record = Record(claims.at, "Registration", attempts=2, cause=cause)
            await broker.settle([Settlement(job, Bury(record, cause)).stored])
        return [job.job_id for job in claims.jobs]

    found: list[str] = ask(put)
    return found


HELPS = {"--help", "-h", "--version"}


def commands(of: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, by its words."""
    names = [name for name in of if name not in HELPS]
    if not names:
        yield path
    for name in names:
        yield from commands(of[name], (*path, name))


def help_of(*words: str, of: App = app) -> str:
    """The help of a command, on a screen that is wide enough for one line of each option."""
    shown = io.StringIO()
    of([*words, "--help"], console=Console(file=shown, width=400))
    return shown.getvalue()


COMMANDS = sorted(commands(app))
