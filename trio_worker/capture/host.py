"""Trio. Hosting of the catcher of a folder by one of several processes, and the folder's faults.

The folder is a Maildir with two more files. ``host.lock`` is locked (flock) by the process that hosts the catcher, and
has its pid and address; the others stand by and take over when the lock is free, which it is however the host ends.
``chaos`` has faults as text; the host checks it before each input, so that they can be changed from any shell.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
from attrs import field

from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import FaultSyntax, InjectedFaults, parse_faults
from trio_worker.capture.maildir import make_maildir
from trio_worker.capture.options import CaptureOptions, split_listen
from trio_worker.capture.server import CatcherPortTaken, open_catcher
from trio_worker.capture.store import MaildirStore
from trio_worker.own_files import open_own_file, replace_own_file
from trio_worker.records import define, frozen

LOCK_FILE = "host.lock"
CHAOS_FILE = "chaos"
# How often a process that stands by tries the lock, or tries to listen again.
STAND_BY_SECONDS = 0.25
# Longer than `read_host` holds the lock.
READ_HOST_SECONDS = 0.02


@frozen
class HostedBy:
    """The process that hosts a catcher, and the catcher's address."""

    pid: int
    host: str
    port: int


@define(eq=False)
class Hosting:
    """Whether this process hosts the catcher: ``catcher`` is None while it stands by.

    ``problem``: why the last takeover failed, because another program had taken the address.
    """

    catcher: Catcher | None = None
    problem: CatcherPortTaken | None = None
    _became_host: trio.Event = field(factory=trio.Event, init=False)

    @property
    def is_host(self) -> bool:
        """Whether this process hosts the catcher."""
        return self.catcher is not None

    async def wait_until_host(self) -> Catcher:
        """Wait until this process hosts the catcher, and return it."""
        await self._became_host.wait()
        if self.catcher is None:
            raise RuntimeError("the catcher was closed while its host waited for it")
        return self.catcher

    def begin(self, catcher: Catcher) -> None:
        """Record that the catcher is open. Called by the hosting task only."""
        self.catcher, self.problem = catcher, None
        self._became_host.set()


@asynccontextmanager
async def host_catcher(options: CaptureOptions, credentials: tuple[str, str] | None = None) -> AsyncIterator[Hosting]:
    """Host the catcher of ``options.dir``, or stand by while another process does.

    ``credentials`` (user, password) are the login that it accepts; without them it offers none. When the block is
    entered there is a host: this process, or the one that has the lock. At its end the catcher is closed and the lock
    is freed. Raises `CatcherPortTaken` if another program listens on the address, and ValueError if ``options.listen``
    is not an address.
    """
    host, port = split_listen(options.listen)
    folder = Path(options.dir)
    make_maildir(folder)
    hosting = Hosting()
    with _open_lock(folder) as lock:
        setup = _HostSetup(folder, lock, host, port, credentials)
        if await _try_lock_thrice(lock):
            async with _open_hosted(setup) as catcher:
                hosting.begin(catcher)
                yield hosting
            return
        async with trio.open_nursery() as standing_by:
            standing_by.start_soon(_take_over, hosting, setup)
            yield hosting
            standing_by.cancel_scope.cancel()


def read_host(folder: Path) -> HostedBy | None:
    """Return the process that hosts the catcher of a folder; None if there is none."""
    try:
        lock = os.fdopen(open_own_file(folder / LOCK_FILE, os.O_RDWR), "r+b")
    except OSError:
        return None
    with lock:
        if _try_lock_nowait(lock.fileno()):
            return None
        fields = lock.read().decode("ascii", "replace").split()
    return HostedBy(int(fields[0]), fields[1], int(fields[2])) if len(fields) == 3 else None


def write_chaos(folder: Path, text: str) -> FaultSyntax | None:
    """Set the faults of a folder's catcher, or return what is wrong with ``text``; "" ends them.

    The file is replaced atomically, so that the host never reads half of it. Blocks on the disk; raises OSError.
    """
    faults = parse_faults(text)
    if isinstance(faults, FaultSyntax):
        return faults
    make_maildir(folder)
    replace_own_file(folder / CHAOS_FILE, text.encode())
    return None


def read_chaos(folder: Path) -> str:
    """Return the faults of a folder's catcher, as they were written."""
    try:
        return (folder / CHAOS_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


@frozen
class _HostSetup:
    """What hosting needs: the folder, its lock (a file descriptor), the address, and the login to accept."""

    folder: Path
    lock: int
    host: str
    port: int
    credentials: tuple[str, str] | None


@define
class _ChaosFile:
    """Follows the chaos file of a folder; a file with a syntax error changes nothing."""

    folder: Path
    put_in_force: Callable[[InjectedFaults], None]
    _signature: tuple[int, int, int] | None = None

    def follow(self) -> None:
        """Set the faults if the file has changed since the last call; costs one stat, a few microseconds."""
        try:
            status = (self.folder / CHAOS_FILE).stat()
            signature = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            signature = None
        if signature == self._signature:
            return
        self._signature = signature
        faults = parse_faults(read_chaos(self.folder))
        if isinstance(faults, InjectedFaults):
            self.put_in_force(faults)


async def _take_over(hosting: Hosting, setup: _HostSetup) -> None:
    """Wait for the lock, then host until cancelled; a lock that this process has already is taken again at once."""
    while True:
        if _try_lock_nowait(setup.lock):
            try:
                await _host_until_cancelled(hosting, setup)
            except CatcherPortTaken as problem:
                hosting.problem = problem
        await trio.sleep(STAND_BY_SECONDS)


async def _host_until_cancelled(hosting: Hosting, setup: _HostSetup) -> None:
    async with _open_hosted(setup) as catcher:
        hosting.begin(catcher)
        await trio.sleep_forever()


@asynccontextmanager
async def _open_hosted(setup: _HostSetup) -> AsyncIterator[Catcher]:
    """Open the catcher on a folder that is locked, and write its pid and address into the lock file."""
    chaos_file = _ChaosFile(setup.folder, lambda _: None)
    store = MaildirStore(setup.folder)
    async with open_catcher(
        host=setup.host,
        port=setup.port,
        store=store,
        open_file=store.open_file,
        credentials=setup.credentials,
        before_input=chaos_file.follow,
    ) as catcher:
        chaos_file.put_in_force = catcher.chaos.put_in_force
        chaos_file.follow()
        os.ftruncate(setup.lock, 0)
        os.pwrite(setup.lock, f"{os.getpid()} {catcher.host} {catcher.port}\n".encode(), 0)
        yield catcher


@contextmanager
def _open_lock(folder: Path) -> Iterator[int]:
    """Open the lock file; closing it frees the lock."""
    lock = open_own_file(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        yield lock
    finally:
        os.close(lock)


async def _try_lock_thrice(lock: int) -> bool:
    """Try the lock up to three times: `read_host` in another process may have it for a moment."""
    for _ in range(2):
        if _try_lock_nowait(lock):
            return True
        await trio.sleep(READ_HOST_SECONDS)
    return _try_lock_nowait(lock)


def _try_lock_nowait(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
