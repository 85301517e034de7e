"""What systemd hears: from a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.processes import Programs, patience, push
from trio_worker.capture.catcher import Catcher
from trio_worker.redis.client import RedisClient
from trio_worker.worker.events import PhaseChanged
from trio_worker.worker.phase import Phase
from trio_worker.worker.systemd import SystemdNotifier, find_notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A supervisor's socket, and its name as $NOTIFY_SOCKET has it."""
    name = f"{tmp_path}/notify" if request.param == "path" else f"@trio-worker-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + name[1:] if name[0] == "@" else name)
        heard.settimeout(20)
        yield heard, name


def supervisor(name: str, **environ: str) -> SystemdNotifier:
    found = find_notifier({"NOTIFY_SOCKET": name, **environ}, grace_seconds=30)
    assert found is not None
    return found


def test_phases_are_told(systemd: tuple[socket.socket, str]) -> None:
    """Ready when it runs; that it stops, and how long that may take, when it drains."""
    heard, name = systemd
    told = supervisor(name)
    told.note(PhaseChanged(Phase.RUNNING))
    told.note(PhaseChanged(Phase.DRAINING, "SIGTERM"))
    told.close()

    assert heard.recv(1000).decode().splitlines()[0] == "READY=1"
    stopping = heard.recv(1000).decode().splitlines()
    assert stopping == ["STOPPING=1", "STATUS=draining: SIGTERM", "EXTEND_TIMEOUT_USEC=40000000"]


def test_a_reason_that_a_stranger_wrote_is_one_line_of_text(systemd: tuple[socket.socket, str]) -> None:
    """Who writes an order in Redis gives systemd no assignment, and the terminal of `systemctl status` no sequence."""
    heard, name = systemd
    told = supervisor(name)
    told.note(PhaseChanged(Phase.DRAINING, "x\nMAINPID=1\x1b[2J\udcff"))
    told.close()

    assert heard.recv(1000).decode().splitlines()[1] == r"STATUS=draining: x\nMAINPID=1\u001b[2J\udcff"


def test_reload_begins_and_ends(systemd: tuple[socket.socket, str]) -> None:
    """With the time of its beginning, as Type=notify-reload needs it."""
    heard, name = systemd
    told = supervisor(name)
    told.begin_reload()
    told.end_reload()
    told.close()

    first, second = heard.recv(1000).decode().splitlines(), heard.recv(1000).decode()
    assert first[0] == "RELOADING=1"
    assert int(first[1].removeprefix("MONOTONIC_USEC=")) > 0
    assert second == "READY=1"


async def test_loop_that_runs_feeds_the_watchdog(
    systemd: tuple[socket.socket, str], autojump_clock: trio.testing.MockClock
) -> None:
    """Twice in each period, and a status line for people."""
    heard, name = systemd
    told = supervisor(name, WATCHDOG_USEC="4000000", WATCHDOG_PID=str(os.getpid()))
    with trio.move_on_after(9):
        await told.run(lambda: "running  fine")
    told.close()
    messages = [heard.recv(1000).decode() for _ in range(5)]
    heard.settimeout(0)
    with pytest.raises(BlockingIOError):
        heard.recv(1000)

    assert messages[0] == "WATCHDOG=1\nSTATUS=running fine"
    assert messages[1:] == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_without_a_supervisor_nobody_is_told(environ: dict[str, str]) -> None:
    """Most workers run without systemd."""
    assert find_notifier(environ, 30) is None


def test_watchdog_of_another_process_is_not_ours(systemd: tuple[socket.socket, str]) -> None:
    """The variable is inherited; the process it names is not."""
    told = supervisor(systemd[1], WATCHDOG_USEC="4000000", WATCHDOG_PID="1")

    assert told.watchdog_seconds is None
    told.close()


def test_supervisor_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    """A socket that no process reads is no error."""
    told = supervisor(f"{tmp_path}/gone")
    told.notify("READY=1")
    told.close()


async def test_worker_tells_its_supervisor(
    programs: Programs,
    real_redis: RedisClient,
    relay: Catcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real worker: ready, alive, stopping; in this order."""
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name)
        heard.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        with patience():
            worker = await programs.start("run", "--no-dashboard")
            told = ""
            while "READY=1" not in told or "WATCHDOG=1" not in told:
                told += (await trio.to_thread.run_sync(heard.recv, 1000)).decode() + "\n"
            worker.signal(signal.SIGTERM)
            while "STOPPING=1" not in told:
                told += (await trio.to_thread.run_sync(heard.recv, 1000)).decode() + "\n"
            assert await worker.end() == 0


# The first mail that this worker composes blocks its loop, as an endless regular expression or a dead disk would; those
# made of samples while it starts do not.
BLOCKED = """
import sys, time
from trio_worker.worker.preparation import Preparation
Preparation.prepare = lambda *_, **__: time.sleep(3600)
from trio_worker.cli.command_line import app
sys.exit(app())
"""
WATCHDOG_SECONDS = 1.0


def hear_until_silent(heard: socket.socket) -> None:
    """Receive until nothing has come for as long as the socket's time."""
    with suppress(TimeoutError):
        while heard.recv(1000):
            pass


@pytest.mark.case("E12")
async def test_worker_whose_loop_stands_still_is_started_anew_and_loses_nothing(
    programs: Programs,
    real_redis: RedisClient,
    relay: Catcher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watchdog hears nothing for its time; the test does what systemd does then, and the mail is sent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"{tmp_path}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_SECONDS * 1e6)))
        with patience():
            blocked = await programs.start_python(BLOCKED, "run", "--no-dashboard")
            heard.settimeout(20)
            told = ""
            while "READY=1" not in told or "WATCHDOG=1" not in told:
                told += (await trio.to_thread.run_sync(heard.recv, 1000)).decode() + "\n"
            await push(real_redis, 1)
            heard.settimeout(WATCHDOG_SECONDS)
            await trio.to_thread.run_sync(hear_until_silent, heard)
            blocked.signal(signal.SIGABRT)
            assert await blocked.end() == -signal.SIGABRT
            monkeypatch.delenv("NOTIFY_SOCKET")
            anew = await programs.start("run", "--no-dashboard")
            await relay.wait_for_mails(1)
            anew.signal(signal.SIGTERM)
            assert await anew.end() == 0

    assert anew.ledger["sent"] == 1
    assert anew.ledger["uncertain"] == 1
    assert relay.total == 1
