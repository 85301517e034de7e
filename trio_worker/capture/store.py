"""Trio. Where caught mails are kept: in memory, or in a Maildir that other processes read."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, field

from trio_worker.capture.maildir import make_maildir, write_mails

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio_worker.capture.actions import CaughtMail

NEWEST_KEPT = 500


class Store(Protocol):
    """Keeps mails. ``mails`` are the newest of them, oldest first; ``total`` counts all that were kept."""

    @property
    def mails(self) -> tuple[CaughtMail, ...]:
        """The newest mails that are still at hand."""

    @property
    def total(self) -> int:
        """How many mails were kept since the store was made."""

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Keep mails in order. May raise OSError; what a cancel leaves behind is kept, but not counted."""


@define(eq=False)
class MemoryStore:
    """Keeps the ``most`` newest mails in memory and counts all of them."""

    most: int = NEWEST_KEPT
    total: int = field(default=0, init=False)
    _newest: deque[CaughtMail] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._newest = deque(maxlen=self.most)

    @property
    def mails(self) -> tuple[CaughtMail, ...]:
        """The newest mails, oldest first."""
        return tuple(self._newest)

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Keep mails; never waits."""
        self.keep_nowait(mails)

    def keep_nowait(self, mails: Sequence[CaughtMail]) -> None:
        """Keep mails."""
        self._newest.extend(mails)
        self.total += len(mails)


@define(eq=False)
class MaildirStore:
    """Keeps mails in the Maildir ``folder``, one thread for all mails that came in one read; the newest in memory too.

    The thread is there for the disk that is slow for once: nobody else's connection waits for it. Nothing is fsynced, a
    catcher promises no more than its process. The folder is made, readable by its owner only.
    """

    folder: Path
    _memory: MemoryStore = field(factory=MemoryStore, init=False)
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

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Write mails to the Maildir; OSError where that fails."""
        await trio.to_thread.run_sync(write_mails, self.folder, mails, limiter=self._threads)
        self._memory.keep_nowait(mails)
