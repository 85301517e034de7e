"""Edge. ``embedded:DIR``: a real Valkey for one machine and one user, shared by all processes that name the directory.

Its calls block, in a thread. There are two lock files in the directory; the kernel frees both when a process dies:

- ``users.lock``: every user holds it shared. A user that can lock it exclusively is the last one.
- ``start.lock``: locked exclusively while a server is started or stopped, so that only one process does either.

A user that is killed stops nothing; the guard of the server then does (embedded_guard.py).
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from attrs import field

from trio_worker.own_files import UntrustedPathError
from trio_worker.records import define, frozen
from trio_worker.redis.embedded_folder import (
    OWNER,
    START_LOCK,
    USERS_LOCK,
    Folder,
    ServerFile,
    make_folder,
    open_folder,
    open_lock,
    read_password,
    read_server_file,
    remove_server_file,
    write_server_file,
)
from trio_worker.redis.embedded_server import (
    HOST,
    POLL_SECONDS,
    STOP_SECONDS,
    AlreadyGone,
    EmbeddedError,
    EmbeddedServerFailed,
    EmbeddedUnavailable,
    StillStopping,
    Stopped,
    find_binary,
    is_alive,
    spawn_server,
    stop_server,
    wait_until_running,
    why_not_free,
)
from trio_worker.redis.embedded_socket import NotRunning, Running, open_lists, probe
from trio_worker.redis.url import EmbeddedAddress, EmbeddedAddressFault, parse_embedded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

__all__ = [
    "AlreadyGone",
    "EmbeddedAddress",
    "EmbeddedAddressFault",
    "EmbeddedDirectoryUnusable",
    "EmbeddedError",
    "EmbeddedHold",
    "EmbeddedNotRunning",
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
    "release_embedded",
]

# The default port of Redis, then the next ones, which an operator will try first.
USUAL_PORTS = range(6379, 6400)
# ``?port=0``: any free port but these, for tests: a worker that knows only the default must not find their queue.
ANY_PORT = 0
_FREE_PORTS_TRIED = 5


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
    """The directory cannot be created, written or locked, or another user has a hand in it."""

    directory: Path
    why: str

    def __str__(self) -> str:
        return f"the directory of the embedded server, {self.directory}, cannot be used: {self.why}"


@define
class EmbeddedNotRunning(EmbeddedError):  # noqa: N818  the name says what is wrong, its parent says Error
    """No server runs in the directory, and none was to be started."""

    directory: Path

    def __str__(self) -> str:
        return f"no server runs in {self.directory}; trio-worker run starts one, and other commands then use it"


@frozen
class EmbeddedServer:
    """A server that runs and answers. ``started_by_us``: this hold has started it. ``directory`` is absolute.

    ``username`` and ``password`` are the login that may do everything, also at the TCP ``port``.
    """

    port: int
    directory: Path
    pid: int
    started_by_us: bool
    version: str
    socket: str
    password: str = field(repr=False)
    username: str = OWNER

    @property
    def url(self) -> str:
        """The URL for our Redis client, without the login: the socket, which nobody else can have in his hands."""
        return f"unix://{quote(self.socket)}"

    @property
    def tcp_url(self) -> str:
        """The URL with the login for clients in other processes; whoever has it may do everything."""
        return f"redis://{self.username}:{self.password}@{HOST}:{self.port}/0"


@frozen
class EmbeddedHold:
    """One use of a server, until `release_embedded`; ``users`` is the open file with the shared lock."""

    server: EmbeddedServer
    folder: Folder = field(repr=False)
    users: _Lock = field(repr=False)


@frozen
class LeftRunning:
    """Others use the server, or ``start.lock`` was not free within ``STOP_SECONDS``."""


ReleaseResult = Stopped | LeftRunning | AlreadyGone | StillStopping


@asynccontextmanager
async def open_embedded(
    address: EmbeddedAddress, lists: Sequence[str] = (), *, may_start: bool = True
) -> AsyncIterator[EmbeddedServer]:
    """Use the server of ``address`` for a block; it is started if necessary, and its last user stops it.

    The parameters and errors are those of `acquire_embedded`. After a cancel during the start the locks are free, and a
    server without other users is stopped. The release at the end is shielded and takes at most ``2 * STOP_SECONDS``.
    """
    import trio  # noqa: PLC0415  a command that only reads needs none

    # check_cancelled is called in trio's thread, so that the thread ends early on a cancel and is not abandoned.
    acquire = partial(acquire_embedded, address, trio.from_thread.check_cancelled, lists, may_start=may_start)
    hold = await trio.to_thread.run_sync(acquire)
    try:
        yield hold.server
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(release_embedded, hold)


def acquire_embedded(
    address: EmbeddedAddress,
    check_cancelled: Callable[[], None] = lambda: None,
    lists: Sequence[str] = (),
    *,
    may_start: bool = True,
) -> EmbeddedHold:
    """Find or start the server of ``address`` and become one of its users; blocks until its data is loaded.

    Producers without a login may push to ``lists``. Unless it ``may_start``, a server that does not run is an
    `EmbeddedNotRunning`. ``check_cancelled`` is called every few milliseconds; it ends the wait by raising. If anything
    is raised (also another `EmbeddedError`), no lock is kept and a server that this call started is stopped. A process
    may hold a server several times. A hold does not restart a server that dies; the next acquire does, on the same port
    if it is free.
    """
    directory = _absolute(address.directory)
    with _directory_faults(directory):
        if not may_start and not directory.exists():
            raise EmbeddedNotRunning(directory)
        folder = make_folder(directory) if may_start else open_folder(directory)
        try:
            with _starting_and_stopping(folder, check_cancelled):
                users = _Lock(open_lock(folder, USERS_LOCK))
                try:
                    server = _find_or_start(_Wanted(folder, address.port, lists, may_start), users, check_cancelled)
                except BaseException:
                    users.close()
                    raise
                return EmbeddedHold(server, folder, users)
        except BaseException:
            folder.close()
            raise


def release_embedded(hold: EmbeddedHold) -> ReleaseResult:
    """End one use of the server; the last user stops it and waits up to ``STOP_SECONDS`` until its data is written.

    A second release of the same hold raises ValueError.
    """
    hold.users.refuse_if_closed()
    try:
        with suppress(OSError), _starting_and_stopping(hold.folder, _within(STOP_SECONDS)):
            # The lock is given up before start.lock is free again, for the next process that releases.
            try:
                if not hold.users.try_lock(fcntl.LOCK_EX):
                    return LeftRunning()
                server_file = read_server_file(hold.folder)
                return AlreadyGone() if server_file is None else stop_server(server_file, hold.folder)
            finally:
                hold.users.close()
        return LeftRunning()
    finally:
        # Also if that point is never reached: start.lock was not free in time, or the directory was deleted.
        hold.users.close()
        hold.folder.close()


@frozen
class _Wanted:
    """What a caller asks for."""

    folder: Folder
    port: int | None
    lists: Sequence[str]
    may_start: bool


@define
class _Lock:
    """An open file that may be locked; its lock is free when it is closed, however the process ends."""

    file: int
    is_closed: bool = False

    def try_lock(self, kind: int) -> bool:
        """Lock the file, or change the lock. It belongs to the open file, which is closed on exec."""
        try:
            fcntl.flock(self.file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def refuse_if_closed(self) -> None:
        if self.is_closed:
            raise ValueError("the hold was released before: its lock is closed")

    def close(self) -> None:
        """Close the file, if it is not closed yet."""
        if not self.is_closed:
            self.is_closed = True
            os.close(self.file)


def _find_or_start(wanted: _Wanted, users: _Lock, check_cancelled: Callable[[], None]) -> EmbeddedServer:
    """Return a server that is ready. Needs ``start.lock``; on return ``users`` is locked shared."""
    is_alone = users.try_lock(fcntl.LOCK_EX)
    users.try_lock(fcntl.LOCK_SH)  # cannot fail: it is locked exclusively only under start.lock
    folder = wanted.folder
    server_file = read_server_file(folder)
    running = _find(server_file, folder, check_cancelled)
    if running is None:
        if not wanted.may_start:
            raise EmbeddedNotRunning(folder.path)
        return _start(wanted, server_file, check_cancelled)
    if wanted.port in (None, ANY_PORT, running.port):
        return _adopt(running, server_file, wanted)
    # It runs on another port than the requested one: if it has no user (after a crash) it may be replaced.
    known = ServerFile(running.port, running.pid)
    if not (is_alone and wanted.may_start) or isinstance(stop_server(known, folder), StillStopping):
        raise EmbeddedPortDiffers(folder.path, wanted.port, running.port)
    return _start(wanted, None, check_cancelled)


def _find(server_file: ServerFile | None, folder: Folder, check_cancelled: Callable[[], None]) -> Running | None:
    """Return the server of the folder once it is ready, None if there is none; a silent one is an error."""
    if server_file is None and isinstance(probe(folder), NotRunning):
        return None

    def lives() -> bool:
        # Without a record there is only the socket, on which something listens.
        if server_file is None:
            return not isinstance(probe(folder), NotRunning)
        return is_alive(server_file, folder)

    return wait_until_running(folder, lives, check_cancelled)


def _adopt(running: Running, server_file: ServerFile | None, wanted: _Wanted) -> EmbeddedServer:
    """Use a server that another process started, and write its port and pid into ``server.json``."""
    if server_file is None or (server_file.port, server_file.pid) != (running.port, running.pid):
        write_server_file(wanted.folder, ServerFile(running.port, running.pid))
    if wanted.lists:
        open_lists(wanted.folder, wanted.lists)
    return _server(running, wanted.folder, started_by_us=False)


def _server(running: Running, folder: Folder, *, started_by_us: bool) -> EmbeddedServer:
    return EmbeddedServer(
        running.port,
        folder.path,
        running.pid,
        started_by_us,
        running.version,
        folder.socket,
        read_password(folder),
    )


def _start(wanted: _Wanted, server_file: ServerFile | None, check_cancelled: Callable[[], None]) -> EmbeddedServer:
    """Start a server on the first free port."""
    binary = find_binary()
    port, why = 0, ""
    for port in _ports(wanted.port, server_file):
        why = why_not_free(port)
        started = None if why else spawn_server(binary, port, wanted.folder, wanted.lists, check_cancelled)
        if started is not None:
            return _server(started, wanted.folder, started_by_us=True)
        why = why or "another program took it at the same moment"
    remove_server_file(wanted.folder)
    raise EmbeddedPortTaken(port, wanted.folder.path, why)


def _ports(asked: int | None, server_file: ServerFile | None) -> Iterator[int]:
    """Yield the ports to try: only the requested one, or else the last one, the usual ones, and any free ones."""
    if asked is not None and asked != ANY_PORT:
        yield asked
        return
    # After a crash clients try the port of the old server. A clean stop removes server.json.
    last_used = () if server_file is None else (server_file.port,)
    yield from dict.fromkeys((*last_used, *(USUAL_PORTS if asked is None else ())))
    for _ in range(_FREE_PORTS_TRIED):
        with socket.socket() as chosen:
            chosen.bind((HOST, 0))
            port: int = chosen.getsockname()[1]
        yield port


@contextmanager
def _starting_and_stopping(folder: Folder, check_cancelled: Callable[[], None]) -> Iterator[None]:
    """Lock ``start.lock`` for a block. It is polled, since a blocking flock() could not be cancelled."""
    lock = _Lock(open_lock(folder, START_LOCK))
    try:
        while not lock.try_lock(fcntl.LOCK_EX):
            check_cancelled()
            time.sleep(POLL_SECONDS)
        yield
    finally:
        lock.close()


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
    except UntrustedPathError as error:
        raise EmbeddedDirectoryUnusable(directory, str(error.strerror)) from error
    except OSError as error:
        raise EmbeddedDirectoryUnusable(directory, error.strerror or str(error)) from error


def _absolute(directory: Path) -> Path:
    try:
        return directory.expanduser().absolute()
    except (OSError, RuntimeError) as error:  # no working directory; no such user's home
        raise EmbeddedDirectoryUnusable(directory, str(error)) from error
