"""Trio. The slots that let messages onto the connections of a pool: permits for one message in flight, in a channel.

To give one back is ``send_nowait``: it cannot block and cannot be cancelled, so no slot leaks.
"""

from __future__ import annotations

import math

import trio
from attrs import define, field, frozen

# For how long the pool does without the slots of connections that could not be opened beside working ones.
SHRUNK_SECONDS = 30.0


@frozen
class Permit:
    """The right to have one message in flight."""


@define(eq=False)
class Slots:
    """So many permits, ``capacity`` of them at first; `resize` changes that while some are out."""

    capacity: int
    _withheld: list[float] = field(factory=list)  # until when, of each
    _surplus: int = 0  # slots that are out and do not come home: there are fewer now
    _give: trio.MemorySendChannel[Permit] = field(init=False)
    _take: trio.MemoryReceiveChannel[Permit] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._give, self._take = trio.open_memory_channel[Permit](math.inf)  # `resize` changes how many there are
        for _ in range(self.capacity):
            self._give.send_nowait(Permit())

    @property
    def home(self) -> int:
        """Slots that nobody has, withheld ones included."""
        return self._take.statistics().current_buffer_used + len(self._withheld)

    @property
    def withheld(self) -> int:
        return len(self._withheld)

    def take_nowait(self) -> Permit | None:
        """Take a slot if one is there."""
        try:
            return self._take.receive_nowait()
        except trio.WouldBlock:
            return None

    async def take(self) -> Permit:
        """Wait for a slot, first come first served; a cancel takes none."""
        return await self._take.receive()

    def bring_home(self, permit: Permit) -> None:
        """Put a slot back, unless there are fewer by it now. Never awaits, cannot fail."""
        if self._surplus:
            self._surplus -= 1
        else:
            self._give.send_nowait(permit)

    def withhold(self) -> None:
        """Keep a slot that was taken from being used for a while."""
        self._withheld.append(trio.current_time() + SHRUNK_SECONDS)

    def restore(self, *, all_of_them: bool) -> None:
        """Put withheld slots back whose time is over."""
        now = trio.current_time()
        keep = [] if all_of_them else [until for until in self._withheld if until > now]
        for _ in range(len(self._withheld) - len(keep)):
            self.bring_home(Permit())
        self._withheld = keep

    def resize(self, capacity: int) -> None:
        """Have so many from now on; those that are out stay out until they come home."""
        before, self.capacity = self.capacity, capacity
        for _ in range(capacity - before):
            self.bring_home(Permit())
        self._surplus += max(0, before - capacity)
        while self._surplus and self.home > len(self._withheld):
            self._take.receive_nowait()
            self._surplus -= 1
