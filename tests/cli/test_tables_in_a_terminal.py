"""Tables in a real terminal: no line is wider than it, so nothing wraps in the middle of a time or an id."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.support.commands import CAUSES, SECRET, Ask, bury, push
from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from trio_worker.queue.keys import keys_of
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry.heartbeat import Heartbeat, write_heartbeat
from trio_worker.worker.phase import Phase

COMMANDS = [
    ("queue", "list"),
    ("queue", "age"),
    ("queue", "age", "--by", "domain"),
    ("queue", "peek"),
    ("dead", "list"),
    ("dead", "groups"),
    ("worker", "list"),
    ("status",),
    ("stats", "--last", "5"),
    ("stats", "--count", "1", "--interval", "1"),
]


async def fill(client: RedisClient) -> None:
    beat = Heartbeat("mail-worker-7f9c4d-x2k:4711", "0.2.0", time.time(), Phase.RUNNING, 20, 10)
    await client.run_script("beat", keys_of("jobs"), beat.worker, write_heartbeat(beat), 60_000, 0)


@pytest.fixture
def folder(ask: Ask, run: Callable[..., int], work_folder: Path) -> Path:
    """A folder whose queue has dead letters, waiting jobs, a pause and a worker, all with long names."""
    bury(ask, CAUSES)
    push(ask, *(job_bytes(number, f"ann@a-rather-long-name-of-a-domain-{number}.example.org") for number in range(3)))
    ask(fill)
    ask(lambda client: client.command("SET", keys_of("jobs").pause, "the relay is being moved to another host (ana)"))
    return work_folder


def shown(folder: Path, columns: int, lines: int, *words: str) -> list[str]:
    """Run a command in a terminal of this size, and return the lines that it prints."""
    outside, inside = pty.openpty()
    ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    command = [sys.executable, "-m", "trio_worker", *words, "--config", str(folder / "worker.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(
        command, cwd=folder, stdin=inside, stdout=inside, stderr=subprocess.DEVNULL, env=environment
    )
    os.close(inside)
    seen = b""
    with suppress(OSError):  # EIO: the program has ended
        while octets := os.read(outside, 65536):
            seen += octets
    os.close(outside)
    assert process.wait() == 0
    return seen.decode().splitlines()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (160, 45)])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_tables_fit_the_terminal(folder: Path, words: tuple[str, ...], columns: int, lines: int) -> None:
    """With headings, and with every id whole."""
    printed = shown(folder, columns, lines, *words)

    assert printed
    assert max(map(len, printed)) <= columns
    assert not any(SECRET in line for line in printed)


def test_a_wide_terminal_has_times_and_a_narrow_one_how_long_ago_that_was(folder: Path) -> None:
    """A time that is cut would tell nothing."""
    narrow, wide = (shown(folder, columns, 24, "dead", "groups") for columns in (80, 160))

    assert narrow[0].split() == wide[0].split() == ["count", "code", "cause", "type", "first", "last", "example"]
    assert " ago  " in narrow[1]
    assert f"{time.gmtime().tm_year}-" in wide[1]
    assert narrow[1].split()[-1] == wide[1].split()[-1]
