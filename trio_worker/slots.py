"""Trio. The slots that let messages onto the connections of a pool, each for one message in flight.

To give one back cannot block and cannot be cancelled, so no slot leaks.
"""

from __future__ import annotations

import trio
from attrs import define, field

# For how long the pool does without the slots of connections that could not be opened beside working ones.
SHRUNK_SECONDS = 30.0


@define(eq=False)
class Slots:
    """So many slots, ``capacity`` of them at first; `resize` changes that while some are out."""

    capacity: int
    _withheld: list[float] = field(factory=list)  # until when, of each
    _surplus: int = 0  # slots that are out and do not come home: there are fewer now
    _free: int = field(init=False)
    _waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)  # none while a slot is free

    def __attrs_post_init__(self) -> None:
        self._free = self.capacity

    @property
    def home(self) -> int:
        """Slots that nobody has, withheld ones included."""
        return self._free + len(self._withheld)

    @property
    def withheld(self) -> int:
        return len(self._withheld)

    def take_nowait(self) -> bool:
        """Take a slot if one is there."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Wait for a slot, first come first served; a cancel takes none."""
        if not self.take_nowait():
            await self._waiting.park()

    def bring_home(self) -> None:
        """Put a slot back, unless there are fewer by it now. Never awaits, cannot fail."""
        if self._surplus:
            self._surplus -= 1
        elif self._waiting:
            self._waiting.unpark()
        else:
            self._free += 1

    def withhold(self) -> None:
        """Keep a slot that was taken from being used for a while."""
        self._withheld.append(trio.current_time() + SHRUNK_SECONDS)

    def restore(self, *, all_of_them: bool) -> None:
        """Put withheld slots back whose time is over."""
        if not self._withheld:
            return
        now = trio.current_time()
        keep = [] if all_of_them else [until for until in self._withheld if until > now]
        for _ in range(len(self._withheld) - len(keep)):
            self.bring_home()
        self._withheld = keep

    def resize(self, capacity: int) -> None:
        """Have so many from now on; those that are out stay out until they come home."""
        before, self.capacity = self.capacity, capacity
        for _ in range(capacity - before):
            self.bring_home()
        self._surplus += max(0, before - capacity)
        while self._surplus and self.take_nowait():
            self._surplus -= 1
