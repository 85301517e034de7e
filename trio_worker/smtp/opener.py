"""Trio. Opens sessions for the pool: one at a time, until one has shown that the relay accepts our login."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
from attrs import field

from trio_worker.records import define
from trio_worker.smtp.events import ConnectionFailed, PublishConnectionEvent
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.session import Session

# After a successful opening several sessions may be opened at the same time for this long.
PROVEN_SECONDS = 10.0

OpenSession: TypeAlias = Callable[[], Awaitable[Session | Trouble]]


@define(eq=False)
class Opener:
    """Opens sessions; if one fails, all callers that waited for their turn get the same trouble.

    ``count_working`` counts the connections that work: while there are some, a failure is most often the relay's limit.
    """

    open_session: OpenSession
    publish: PublishConnectionEvent
    count_working: Callable[[], int]
    connecting: int = 0  # sessions that are being opened
    trouble: Trouble | None = None  # of the last opening; None if it succeeded
    _opened_at: float = -math.inf  # time of the last success (local clock), -inf after a failure
    _single_flight: trio.Lock = field(factory=trio.Lock)

    async def open(self) -> Session | Trouble:
        """Open one session; a relay that refuses the login sees one try, not one for each waiting caller."""
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
