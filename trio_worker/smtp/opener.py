"""Trio. Opens sessions with the relay for the pool, one at a time while nothing proves that the relay lets us in."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
from attrs import define, field

from trio_worker.smtp.events import ConnectionFailed, PublishConnectionEvent
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.session import Session

# A good opening proves for so long that the relay lets us in, and several may be opened at once.
PROVEN_SECONDS = 10.0

OpenSession: TypeAlias = Callable[[], Awaitable[Session | Trouble]]


@define(eq=False)
class Opener:
    """Opens sessions; one that fails speaks for all that waited behind it.

    ``count_working`` counts the connections that work: a failure beside them is most often the relay's own limit.
    """

    open_session: OpenSession
    publish: PublishConnectionEvent
    count_working: Callable[[], int]
    connecting: int = 0  # sessions that are being opened
    trouble: Trouble | None = None  # of the last opening; None after a good one
    _opened_at: float = -math.inf  # the last good opening (local clock); no other has failed since
    _single_flight: trio.Lock = field(factory=trio.Lock)

    async def open(self) -> Session | Trouble:
        """Open one session; a relay that refuses the login sees one try, not one for each that wants a connection."""
        trouble_before = self.trouble
        if not self._is_proven:
            async with self._single_flight:
                if self.trouble is not None and self.trouble is not trouble_before:
                    return self.trouble
                if not self._is_proven:
                    return await self._open_now()
        return await self._open_now()

    @property
    def _is_proven(self) -> bool:
        return trio.current_time() - self._opened_at <= PROVEN_SECONDS

    async def _open_now(self) -> Session | Trouble:
        self.connecting += 1
        try:
            opened = await self.open_session()
        finally:
            self.connecting -= 1
        if isinstance(opened, Trouble):
            self.trouble, self._opened_at = opened, -math.inf
            self.publish(ConnectionFailed(opened, self.count_working() or None))
        else:
            self.trouble, self._opened_at = None, trio.current_time()
        return opened
