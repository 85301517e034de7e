"""tools/load against a worker: what it pushes, and that its figures are those of the queue."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.support.paths import ROOT
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import InjectedFaults, parse_faults

LOAD = ROOT / "tools" / "loading.py"
Done = subprocess.CompletedProcess[bytes]
Load = Callable[..., Awaitable[Done]]


@pytest.fixture
def load(valkey_url: str, tmp_path: Path) -> Load:
    """Run the tool on the real Valkey."""
    config = tmp_path / "worker.toml"

    async def run(*words: str, profile: str = "dev") -> Done:
        own = 'mail.from = "a@shop.dev"\nmail.frontend_url = "https://shop.dev"\n'  # production refuses placeholders
        config.write_text(f'profile = "{profile}"\n{own}[redis]\nurl = "{valkey_url}"\n')
        command = [sys.executable, str(LOAD), "--config", str(config), *words]
        environment = {**os.environ, "PYTHONPATH": str(LOAD.parent.parent)}
        with trio.fail_after(60):
            return await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, env=environment
            )

    return run


@asynccontextmanager
async def working(workers: WorkerMaker, catcher: Catcher) -> AsyncIterator[None]:
    """A worker for the length of a block."""
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        yield
        reporter.worker.drain("the test is over")


async def test_a_load_of_every_type_is_sent_and_counted(workers: WorkerMaker, catcher: Catcher, load: Load) -> None:
    """In turn, each to a different address; exit code 0 if all were sent."""
    types = ("Registration", "WeeklyRecap", "Message")
    async with working(workers, catcher):
        done = await load("--jobs", "30", *(word for each in types for word in ("--type", each)), "--json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["pushed"], document["sent"], document["waiting"], document["dead"]) == (30, 30, 0, 0)
    recipients = [recipient for mail in catcher.mails for recipient in mail.recipients]
    assert len(set(recipients)) == 30
    assert all(recipient.endswith("@example.com") for recipient in recipients)
    assert sum(b"Your week with" in mail.content for mail in catcher.mails) == 10


async def test_what_is_not_sent_is_told(workers: WorkerMaker, catcher: Catcher, load: Load) -> None:
    """Delays and deaths are those of this load, and the exit code is 5."""
    parsed = parse_faults("rcpt=550:first3 final=451:first2")
    assert isinstance(parsed, InjectedFaults)
    catcher.faults = parsed
    async with working(workers, catcher):
        done = await load("--jobs", "20", "--domain", "example.org")

    assert done.returncode == 5, done.stderr
    printed = done.stdout.decode()
    assert "20 pushed: 17 sent, 0 delayed, 3 dead, 0 held, 0 leased, 0 waiting" in printed
    assert "2 delays, 0 uncertain" in printed
    assert "dead groups" in printed
    assert all(mail.recipients[0].endswith("@example.org") for mail in catcher.mails)


async def test_a_rate_is_kept(workers: WorkerMaker, load: Load) -> None:
    """Thirty jobs at a hundred a second take at least 0.29 seconds; the tool does not wait for their end."""
    done = await load("--jobs", "30", "--rate", "100", "--wait", "0", "--json")

    document = json.loads(done.stdout)
    assert (done.returncode, document["pushed"], document["waiting"]) == (0, 30, 30)
    assert document["pushed_seconds"] >= 0.28


async def test_without_a_worker_the_wait_ends(workers: WorkerMaker, load: Load) -> None:
    """Exit code 75; the jobs stay, and what others had pushed is named."""
    await workers.push(b"{}")
    done = await load("--jobs", "5", "--wait", "0.5")

    assert done.returncode == 75
    assert "5 pushed: 0 sent, 0 delayed, 0 dead, 0 held, 0 leased, 6 waiting" in done.stdout.decode()
    assert "1 jobs of others were open before" in done.stdout.decode()


@pytest.mark.parametrize(
    ("words", "profile", "code", "said"),
    [
        (("--type", "Registraton"), "dev", 3, "Did you mean Registration?"),
        (("--domain", "not a domain"), "dev", 78, "--domain"),
        ((), "production", 4, "Say --yes"),
        (("--jobs", "0"), "dev", 2, "--jobs"),
    ],
)
async def test_what_cannot_be_meant_pushes_nothing(
    workers: WorkerMaker, load: Load, words: tuple[str, ...], profile: str, code: int, said: str
) -> None:
    """A type that there is not, a domain that is none, real mails by accident."""
    done = await load(*words, profile=profile)

    assert done.returncode == code
    assert said in done.stderr.decode()
    assert await workers.client.command("LLEN", "jobs") == 0


async def test_a_terminal_shows_bars(workers: WorkerMaker, catcher: Catcher, valkey_url: str, tmp_path: Path) -> None:
    """One for what was pushed, one for what is finished; the figures follow."""
    config = tmp_path / "worker.toml"
    config.write_text(f'[redis]\nurl = "{valkey_url}"\n')
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(LOAD.parent.parent), "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, str(LOAD), "--config", str(config), "--jobs", "20", "--rate", "50"]
    async with working(workers, catcher):
        with trio.fail_after(60):
            run = partial(trio.run_process, command, stdin=slave, stdout=slave, stderr=slave, env=environment)
            await run()
    os.close(slave)
    printed = b""
    while chunk := read(master):
        printed += chunk
    os.close(master)

    assert b"pushed" in printed
    assert b"20/20" in printed
    assert b"20 sent, 0 delayed" in printed


def read(master: int) -> bytes:
    """Read what the terminal still holds; its end is an error on Linux."""
    try:
        return os.read(master, 65536)
    except OSError:
        return b""


def test_relative_paths_begin_where_it_was_started(tmp_path: Path) -> None:
    """The same configuration means the same queue to it as to a worker that is started in the same folder."""
    tools, programs, started = tmp_path / "tools", tmp_path / "programs", tmp_path / "elsewhere"
    for folder in (tools, programs, started):
        folder.mkdir()
    shutil.copy(LOAD.with_name("load"), tools)
    (tools / "environment").write_text("bin=programs\n")
    (programs / "python").write_text('#!/bin/sh\npwd\necho "$@"\n')
    (programs / "python").chmod(0o755)

    done = subprocess.run(
        [tools / "load", "--config", "mine.toml"], cwd=started, capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.splitlines() == [str(started), f"{tools}/loading.py --config mine.toml"]
