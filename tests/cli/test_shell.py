"""``shell`` in a pty and with a script, on an embedded Valkey that a worker uses too."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from trio_worker.cli.shell import masked_text
from trio_worker.privacy import mask_text
from trio_worker.redis.embedded import (
    ANY_PORT,
    EmbeddedAddress,
    EmbeddedHold,
    LeftRunning,
    acquire_embedded,
    release_embedded,
)

PATIENCE_SECONDS = 90
SECRET = "correct-horse"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}


@pytest.fixture
def config(work_folder: Path) -> Path:
    """An embedded Valkey and the catcher of a folder of this test."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    path = work_folder / "worker.toml"
    path.write_text(
        f'[redis]\nurl = "embedded:valkey"\n[smtp]\nport = {port}\ntls = "none"\npassword = "{SECRET}"\n'
        f'username = "mailer"\n[capture]\nlisten = "127.0.0.1:{port}"\ndir = "capture"\n'
    )
    return path


@pytest.fixture
def valkey(config: Path) -> Iterator[EmbeddedHold]:
    """The embedded Valkey of the configuration: the shell starts none."""
    hold = acquire_embedded(EmbeddedAddress(config.parent / "valkey", ANY_PORT))
    yield hold
    if not hold.users.is_closed:
        release_embedded(hold)


@define
class Terminal:
    """A shell command in a terminal, and what it has printed there."""

    process: subprocess.Popen[bytes]
    master: int
    printed: str = ""
    _raw: bytes = field(default=b"")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def has_come(self, words: str, seconds: float) -> bool:
        """Read until this text has come, for a limited time."""
        deadline = time.monotonic() + seconds
        while words not in self.printed:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            self._raw += os.read(self.master, 4096)
            self.printed = _ESCAPES.sub("", self._raw.decode("utf-8", "replace"))
        return True

    def until(self, words: str) -> str:
        """Read on until the words have come; return what came before them, and forget both."""
        assert self.has_come(words, PATIENCE_SECONDS), self.printed
        before, _, self.printed = self.printed.partition(words)
        self._raw = self.printed.encode()
        return before

    def interrupt(self) -> None:
        """Press Ctrl-C until it is heard: between printing its prompt and listening, readline is deaf."""
        for _ in range(PATIENCE_SECONDS):
            self.type("\x03")
            if self.has_come("KeyboardInterrupt", 1.0):
                break
        self.until("KeyboardInterrupt")
        self.until(">>> ")

    def ask(self, line: str) -> str:
        """Type a line at the prompt and return what is printed before the next one."""
        self.type(f"{line}\n")
        self.until(f"{line}\n")
        return self.until(">>> ").strip()


@pytest.fixture
def terminal(config: Path, valkey: EmbeddedHold) -> Iterator[Terminal]:
    """The prompt, in a terminal."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(master, (24, 500))  # a dumb terminal scrolls longer lines sideways
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_worker", "shell", "--config", str(config)],
        stdin=slave, stdout=slave, stderr=slave, env=environment(),
        preexec_fn=partial(os.login_tty, slave),  # noqa: PLW1509  this process has no other threads that hold locks
    )  # fmt: skip
    os.close(slave)
    made = Terminal(process, master)
    yield made
    if process.poll() is None:
        process.kill()
    process.wait()
    os.close(made.master)


@pytest.fixture
def worker(config: Path, valkey: EmbeddedHold) -> Iterator[subprocess.Popen[str]]:
    """A worker on the same configuration."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_worker", "run", "--no-dashboard", "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_what_is_typed_may_await_and_is_shown_masked(terminal: Terminal) -> None:
    """Queue, Redis, settings and a name of one's own; no secret, no address, no job on the screen unless printed."""
    assert "await queue.counts()" in terminal.until(">>> ")

    assert terminal.ask("1 + 1") == "2"
    assert terminal.ask(f"await queue.push({job_bytes(email='ann.secret@example.org')!r})").endswith("1")
    assert terminal.ask('depth = await redis.command("LLEN", queue.name)') == ""
    assert terminal.ask("depth") == "1"
    peeked = terminal.ask("await queue.peek()")
    assert "bytes: b'{" in peeked
    assert "secret" not in peeked
    assert "ann.secret@example.org" in terminal.ask("print(await queue.peek())")
    assert "password='…'" in terminal.ask("settings.smtp")
    assert "Unavailable" in terminal.ask('await redis.command("NOSUCH")')


def test_errors_are_shown_and_the_prompt_stays(terminal: Terminal) -> None:
    """Of what awaits, of what does not, and of what cannot be read."""
    terminal.until(">>> ")

    assert terminal.ask("1 / 0").endswith("ZeroDivisionError: division by zero")
    assert terminal.ask("await trio.lowlevel.checkpoint() or missing").endswith(
        "NameError: name 'missing' is not defined"
    )
    assert terminal.ask("1 +").endswith("SyntaxError: invalid syntax")
    assert terminal.ask("2") == "2"


def test_ctrl_c_cancels_what_runs_and_ctrl_d_leaves(terminal: Terminal) -> None:
    """An await, a loop that never awaits, and a half typed line; the exit code is 0."""
    terminal.until(">>> ")
    awaiting = "print('it', 'runs'); await trio.sleep_forever()\n"
    looping = "for n in iter(lambda n=[0]: n.append(0) or len(n), 0): x = n == 9 and print('it', 'runs')\n\n"
    for line in (awaiting, looping):
        terminal.type(line)
        terminal.until("it runs\n")
        terminal.interrupt()
    terminal.type("half a li")
    terminal.until("half a li")
    terminal.interrupt()

    assert terminal.ask("'still here'").endswith("'still here'")
    terminal.type("\x04")
    assert terminal.process.wait(PATIENCE_SECONDS) == 0


def test_the_relay_is_opened_when_it_is_asked_for(worker: subprocess.Popen[str], terminal: Terminal) -> None:
    """A connection of the pool, inside `async with`, over the lines of a block."""
    until_running(worker)
    terminal.until(">>> ")
    terminal.type("async with pool.borrow() as connection:\n    type(connection).__name__\n\n")

    # The catcher knows one login; the configured one it lets in.
    assert "'Connection'" in terminal.until(">>> ").replace("... ", "")


def test_leaving_harms_no_worker(worker: subprocess.Popen[str], terminal: Terminal, config: Path) -> None:
    """The Valkey that both use goes on: a job pushed after Ctrl-D is sent, and the worker drains in order."""
    until_running(worker)
    terminal.until(">>> ")
    assert int(terminal.ask("(await queue.overview()).counts.waiting")) == 0
    terminal.type("\x04")
    assert terminal.process.wait(PATIENCE_SECONDS) == 0

    pushed = script(config, f"await queue.push({job_bytes()!r})")
    assert pushed.returncode == 0, pushed.stderr
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (list((config.parent / "capture" / "new").iterdir()) or time.monotonic() > deadline):
        assert script(config, "await trio.sleep(0.1)").returncode == 0
    worker.send_signal(signal.SIGTERM)
    printed, _ = worker.communicate(timeout=PATIENCE_SECONDS)

    assert worker.returncode == 0
    assert "1 claimed = 1 sent" in printed


def test_a_script_prints_values_and_ends_at_its_first_error(config: Path, valkey: EmbeddedHold) -> None:
    """No banner, no prompts; exit code 0, or 1 with the traceback on standard error."""
    good = script(config, "x = 20", "async def double(n):", "    return 2 * n", "", "await double(x)")
    assert (good.returncode, good.stdout) == (0, "40\n")
    assert good.stderr == f"{config}: queue jobs, Redis embedded:valkey\n"

    for bad in ("raise ValueError('no')", "await trio.sleep('no')", "1 +"):
        ended = script(config, bad, "print('never')")
        assert ended.returncode == 1, bad
        assert ended.stdout == ""
        assert "Error" in ended.stderr


def test_a_shell_that_cannot_have_its_redis_says_so(config: Path) -> None:
    """As every command: 69 if no server runs, since the shell starts none; 78 if the folder is none."""
    missing = script(config, "1")
    config.write_text(config.read_text().replace("embedded:valkey", "embedded:worker.toml"))
    no_folder = script(config, "1")

    assert (missing.returncode, no_folder.returncode) == (69, 78)
    assert "no server runs in" in missing.stderr
    assert "Not a directory" in no_folder.stderr
    assert "Traceback" not in missing.stderr + no_folder.stderr
    assert not (config.parent / "valkey").exists()


@pytest.mark.parametrize("how", ["terminal closed", "killed"])
def test_the_server_ends_with_a_shell_that_cannot_say_goodbye(
    how: str, terminal: Terminal, valkey: EmbeddedHold
) -> None:
    """The shell is its last user; a closed terminal and SIGKILL leave it no time to stop the server."""
    terminal.until(">>> ")
    assert release_embedded(valkey) == LeftRunning()
    server = os.pidfd_open(valkey.server.pid)
    if how == "killed":
        terminal.process.kill()
    else:
        os.close(terminal.master)
        terminal.master = os.open(os.devnull, os.O_RDWR)

    assert terminal.process.wait(PATIENCE_SECONDS) != 0
    assert select.select([server], [], [], PATIENCE_SECONDS)[0]
    os.close(server)


@given(st.binary(min_size=25, max_size=400), st.sampled_from([0, 1, 2]))
def test_no_job_is_shown_whole(body: bytes, depth: int) -> None:
    """In any quotes, wrapping or nesting: only its size and its beginning are shown."""
    value: object = body
    for _ in range(depth):
        value = [value]

    text = masked_text(value)

    assert text.strip("[]()") == mask_text(f"<{len(body):,} bytes: {body[:12]!r}…>")


def until_running(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        if "running" in line:
            return


def script(config: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trio_worker", "shell", "--config", str(config)],
        input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        env=environment(), cwd=config.parent,
    )  # fmt: skip
