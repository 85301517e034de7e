"""Edge. ``embedded:DIR``: a real Valkey for one machine, shared by all processes that name the directory.

Its calls block, in a thread. There are two lock files in the directory; the kernel frees both when a process dies:

- ``users.lock``: every user holds it shared. A user that can lock it exclusively is the last one.
- ``start.lock``: locked exclusively while a server is started or stopped, so that only one process does either.
"""

from __future__ import annotations

import fcntl
import socket
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, assert_never

import trio
from attrs import define, frozen

from trio_worker.redis.embedded_server import (
    HOST,
    POLL_SECONDS,
    STOP_SECONDS,
    AlreadyGone,
    EmbeddedError,
    EmbeddedServerFailed,
    EmbeddedUnavailable,
    ForeignProcess,
    NotRunning,
    Running,
    ServerFile,
    StillStopping,
    Stopped,
    find_binary,
    is_alive,
    probe_port,
    read_server_file,
    remove_server_file,
    spawn_server,
    stop_server,
    wait_until_running,
    why_not_free,
    write_server_file,
)
from trio_worker.redis.url import EmbeddedAddress, EmbeddedAddressFault, parse_embedded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = [
    "AlreadyGone",
    "EmbeddedAddress",
    "EmbeddedAddressFault",
    "EmbeddedDirectoryUnusable",
    "EmbeddedError",
    "EmbeddedHold",
    "EmbeddedPortDiffers",
    "EmbeddedPortTaken",
    "EmbeddedServer",
    "EmbeddedServerFailed",
    "EmbeddedUnavailable",
    "LeftRunning",
    "ReleaseResult",
    "StillStopping",
    "Stopped",
    "acquire_embedded",
    "open_embedded",
    "parse_embedded",
    "read_embedded",
    "release_embedded",
]

# The default port of Redis, then the next ones, which an operator will try first.
USUAL_PORTS = range(6379, 6400)


@define
class EmbeddedPortTaken(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """The requested port is not free."""

    port: int
    directory: Path
    why: str

    def __str__(self) -> str:
        return (
            f"port {self.port} on {HOST} is not free for {self.directory}: {self.why}; "
            "ask for another with ?port=N, or leave ?port= out to get a free one"
        )


@define
class EmbeddedPortDiffers(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """The server of the directory runs already, on another port than the requested one."""

    directory: Path
    asked: int
    serving: int

    def __str__(self) -> str:
        return (
            f"{self.directory} is already served on port {self.serving}, and port {self.asked} was asked for; "
            f"use ?port={self.serving}, leave ?port= out, or end the processes that use it"
        )


@define
class EmbeddedDirectoryUnusable(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """The directory cannot be created, written or locked."""

    directory: Path
    why: str

    def __str__(self) -> str:
        return f"the directory of the embedded server, {self.directory}, cannot be used: {self.why}"


@frozen
class EmbeddedServer:
    """A server that runs and answers. ``started_by_us``: this hold has started it. ``directory`` is absolute."""

    port: int
    directory: Path
    pid: int
    started_by_us: bool
    version: str

    @property
    def url(self) -> str:
        """The URL for a Redis client."""
        return f"redis://{HOST}:{self.port}/0"


@frozen
class EmbeddedHold:
    """One use of a server, until `release_embedded`; the open file has the shared lock."""

    server: EmbeddedServer
    users: IO[bytes]


@frozen
class LeftRunning:
    """Others use the server, or ``start.lock`` was not free within ``STOP_SECONDS``."""


ReleaseResult = Stopped | LeftRunning | AlreadyGone | StillStopping


@asynccontextmanager
async def open_embedded(address: EmbeddedAddress) -> AsyncIterator[EmbeddedServer]:
    """Use the server of ``address`` for a block; it is started if necessary, and its last user stops it.

    Raises an `EmbeddedError`. After a cancel during the start the locks are free, and a server without other users is
    stopped. The release at the end is shielded and takes at most ``2 * STOP_SECONDS``.
    """
    # check_cancelled is called in trio's thread, so that the thread ends early on a cancel and is not abandoned.
    acquire = partial(acquire_embedded, address, trio.from_thread.check_cancelled)
    hold = await trio.to_thread.run_sync(acquire)
    try:
        yield hold.server
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(release_embedded, hold)


def acquire_embedded(address: EmbeddedAddress, check_cancelled: Callable[[], None] = lambda: None) -> EmbeddedHold:
    """Find or start the server of ``address`` and become one of its users; blocks until its data is loaded.

    ``check_cancelled`` is called every few milliseconds; it ends the wait by raising. If anything is raised (also an
    `EmbeddedError`), no lock is kept and a server that this call started is stopped. A process may hold a server
    several times. A hold does not restart a server that dies; the next acquire does, on the same port if it is free.
    """
    directory = _absolute(address.directory)
    with _directory_faults(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # it contains the mails of the queue
        with _starting_and_stopping(directory, check_cancelled):
            users = (directory / "users.lock").open("ab")
            try:
                server = _find_or_start(directory, address.port, users, check_cancelled)
            except BaseException:
                users.close()
                raise
            return EmbeddedHold(server, users)


def release_embedded(hold: EmbeddedHold) -> ReleaseResult:
    """End one use of the server; the last user stops it and waits up to ``STOP_SECONDS`` until its data is written.

    A second release of the same hold raises ValueError.
    """
    directory = hold.server.directory
    with hold.users, suppress(OSError), _starting_and_stopping(directory, _within(STOP_SECONDS)), hold.users:
        # hold.users is closed twice: before start.lock is free again, for the next process that releases, and also if
        # that point is never reached (start.lock was not free in time, the directory was deleted).
        if not _try_lock(hold.users, fcntl.LOCK_EX):
            return LeftRunning()
        server_file = read_server_file(directory)
        return AlreadyGone() if server_file is None else stop_server(server_file, directory)
    return LeftRunning()


def read_embedded(address: EmbeddedAddress) -> EmbeddedServer | None:
    """Return the server of ``address`` if it runs; starts, holds and locks nothing.

    It may still be loading its data, and its last user may stop it at any moment. Raises `EmbeddedPortDiffers`.
    """
    directory = _absolute(address.directory)
    server_file = read_server_file(directory)
    if server_file is None:
        return None
    running = probe_port(server_file.port, directory)
    if not isinstance(running, Running):
        return None
    if address.port not in (None, running.port):
        raise EmbeddedPortDiffers(directory, address.port, running.port)
    return EmbeddedServer(running.port, directory, running.pid, started_by_us=False, version=running.version)


def _find_or_start(
    directory: Path, asked: int | None, users: IO[bytes], check_cancelled: Callable[[], None]
) -> EmbeddedServer:
    """Return a server that is ready. Needs ``start.lock``; on return ``users`` is locked shared."""
    is_alone = _try_lock(users, fcntl.LOCK_EX)
    _try_lock(users, fcntl.LOCK_SH)  # cannot fail: it is locked exclusively only under start.lock
    server_file = read_server_file(directory)
    running = None if server_file is None else _find(server_file, directory, check_cancelled)
    if server_file is None or running is None:
        return _start(directory, asked, server_file, check_cancelled)
    if asked in (None, running.port):
        return _adopt(running, server_file, directory)
    # It runs on another port than the requested one: if it has no user (after a crash) it may be replaced.
    if not is_alone or isinstance(stop_server(server_file, directory), StillStopping):
        raise EmbeddedPortDiffers(directory, asked, running.port)
    return _start(directory, asked, None, check_cancelled)


def _find(server_file: ServerFile, directory: Path, check_cancelled: Callable[[], None]) -> Running | None:
    """Return the server that ``server.json`` names once it is ready, None if it is dead; a silent one is an error."""
    return wait_until_running(server_file.port, directory, lambda: is_alive(server_file, directory), check_cancelled)


def _adopt(running: Running, server_file: ServerFile | None, directory: Path) -> EmbeddedServer:
    """Use a server that another process started, and write its port and pid into ``server.json``."""
    if server_file is None or (server_file.port, server_file.pid) != (running.port, running.pid):
        write_server_file(directory, ServerFile(running.port, running.pid))
    return EmbeddedServer(running.port, directory, running.pid, started_by_us=False, version=running.version)


def _start(
    directory: Path, asked: int | None, server_file: ServerFile | None, check_cancelled: Callable[[], None]
) -> EmbeddedServer:
    """Start a server on the first free port, or use the one that a process left there when it was killed."""
    binary = find_binary()
    port, why = 0, ""
    for port in _ports(asked, server_file):
        why = why_not_free(port)
        started = None if why else spawn_server(binary, port, directory, check_cancelled)
        if started is not None:
            return EmbeddedServer(port, directory, started.pid, started_by_us=True, version=started.version)
        match probe_port(port, directory):
            case Running(pid=pid):
                found = _find(ServerFile(port, pid), directory, check_cancelled)
                if found is not None:
                    return _adopt(found, None, directory)
            case ForeignProcess(what):
                why = what
            case NotRunning():
                why = why or "another program took it at the same moment"
            case other:
                assert_never(other)
    remove_server_file(directory)
    raise EmbeddedPortTaken(port, directory, why)


def _ports(asked: int | None, server_file: ServerFile | None) -> Iterator[int]:
    """Yield the ports to try: only the requested one, or else the last one, the usual ones, and any free one."""
    if asked is not None:
        yield asked
        return
    # After a crash clients try the port of the old server. A clean stop removes server.json.
    last_used = () if server_file is None else (server_file.port,)
    yield from dict.fromkeys((*last_used, *USUAL_PORTS))
    with socket.socket() as chosen:
        chosen.bind((HOST, 0))
        port: int = chosen.getsockname()[1]
    yield port


@contextmanager
def _starting_and_stopping(directory: Path, check_cancelled: Callable[[], None]) -> Iterator[None]:
    """Lock ``start.lock`` for a block. It is polled, since a blocking flock() could not be cancelled."""
    with (directory / "start.lock").open("ab") as lock:
        while not _try_lock(lock, fcntl.LOCK_EX):
            check_cancelled()
            time.sleep(POLL_SECONDS)
        yield


def _try_lock(file: IO[bytes], kind: int) -> bool:
    """Lock a file, or change the lock. It belongs to the open file, which is closed on exec."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _within(seconds: float) -> Callable[[], None]:
    """Return a check that raises TimeoutError when the time is over."""
    deadline = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    return check


@contextmanager
def _directory_faults(directory: Path) -> Iterator[None]:
    """Raise every OSError of the block as `EmbeddedDirectoryUnusable`: it only uses files in the directory."""
    try:
        yield
    except OSError as error:
        raise EmbeddedDirectoryUnusable(directory, error.strerror or str(error)) from error


def _absolute(directory: Path) -> Path:
    try:
        return directory.expanduser().absolute()
    except (OSError, RuntimeError) as error:  # no working directory; no such user's home
        raise EmbeddedDirectoryUnusable(directory, str(error)) from error
