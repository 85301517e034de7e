"""Trio. Stores for caught mails: in memory, or in a Maildir that other processes read."""

from __future__ import annotations

from collections import deque
from functools import partial
from math import inf
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Protocol

import trio
from attrs import field

from trio_worker.capture.maildir import make_maildir, write_mails
from trio_worker.records import define

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio_worker.capture.actions import CaughtMail

NEWEST_KEPT = 500
# Of those that are in a Maildir too: the rest is read from there.
NEWEST_KEPT_BYTES = 16 * 1024 * 1024


class Store(Protocol):
    """A store of mails. ``mails``: the newest of them, oldest first; ``total``: the number of all that were stored."""

    @property
    def mails(self) -> tuple[CaughtMail, ...]:
        """The newest mails."""

    @property
    def total(self) -> int:
        """How many mails were stored since the store was made."""

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Store mails in order. May raise OSError. After a cancel some may be stored but not counted."""


@define(eq=False)
class MemoryStore:
    """Stores the ``max_mails`` newest mails in memory, at most ``max_bytes`` of them, and counts all of them."""

    max_mails: int = NEWEST_KEPT
    max_bytes: float = inf
    total: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _newest: deque[CaughtMail] = field(factory=deque, init=False)

    @property
    def mails(self) -> tuple[CaughtMail, ...]:
        """The newest mails, oldest first."""
        return tuple(self._newest)

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Store mails; never waits."""
        self.keep_nowait(mails)

    def keep_nowait(self, mails: Sequence[CaughtMail]) -> None:
        """Store mails."""
        self._newest.extend(mails)
        self._bytes += sum(len(mail.content) for mail in mails)
        self.total += len(mails)
        while self._newest and (len(self._newest) > self.max_mails or self._bytes > self.max_bytes):
            self._bytes -= len(self._newest.popleft().content)


@define(eq=False)
class MaildirStore:
    """Stores mails in the Maildir ``folder``, in one thread call for all mails of one input; the newest in memory too.

    With a thread the other connections do not wait for a slow disk. Nothing is fsynced: mails need to survive the
    process, not the machine. The folder is made, readable by its owner only.
    """

    folder: Path
    _memory: MemoryStore = field(factory=partial(MemoryStore, max_bytes=NEWEST_KEPT_BYTES), init=False)
    _threads: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(2), init=False)

    def __attrs_post_init__(self) -> None:
        make_maildir(self.folder)

    @property
    def mails(self) -> tuple[CaughtMail, ...]:
        """The newest mails that this process caught, oldest first."""
        return self._memory.mails

    @property
    def total(self) -> int:
        """How many mails this process caught."""
        return self._memory.total

    def open_file(self) -> IO[bytes]:
        """Open a file without a name on the disk of the Maildir. Raises OSError."""
        return TemporaryFile(dir=self.folder / "tmp")

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Write mails to the Maildir; OSError if that fails."""
        await trio.to_thread.run_sync(write_mails, self.folder, mails, limiter=self._threads)
        self._memory.keep_nowait(mails)
