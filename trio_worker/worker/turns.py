"""Trio. Turns of the event loop: jobs that cost much are made one after another, and between two all others go on.

What a job costs depends on its size. A usual one takes microseconds, and hundreds of them go without a pause; one of a
megabyte can take a quarter of a second. So consumers count the octets that they decode and compose: after
`TURN_OCTETS` they wait for a turn, in the order in which they asked, and each turn begins with a round of the event
loop, which sends, receives and answers for everybody else. A job of more than `BIG_OCTETS` is made in a thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import trio
from attrs import field

from trio_worker.records import define

ResultT = TypeVar("ResultT")

# Some 10 ms for the worst that we know, as much as for 400 usual jobs.
TURN_OCTETS = 65_536
BIG_OCTETS = 65_536
# While a thread works, every call of the event loop to the kernel waits for the interpreter's lock: for so long, not
# for the 5 ms of Python.
_SWITCH_SECONDS = 0.0005
# Read once: of two workers in one process, the second would keep the first one's.
_USUAL_SWITCH_SECONDS = sys.getswitchinterval()


@define(eq=False)
class Turns:
    """The turns of one worker's consumers; ``spent_octets`` since the last turn began."""

    spent_octets: int = 0
    _turn: trio.Lock = field(factory=trio.Lock)
    _thread: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1))

    def take_nowait(self, octets: int) -> bool:
        """Take what is left of this turn; False, and nothing is taken, if that is not enough."""
        if self.spent_octets + octets > TURN_OCTETS:
            return False
        self.spent_octets += octets
        return True

    async def take(self, octets: int) -> None:
        """Wait for a turn, and take this much of it: always a round of the event loop."""
        async with self._turn:
            self.spent_octets = 0
        self.spent_octets += octets

    async def in_thread(self, make: Callable[[], ResultT]) -> ResultT:
        """Call a pure function in a thread, one at a time; a cancel abandons it."""
        async with self._thread:
            sys.setswitchinterval(_SWITCH_SECONDS)
            try:
                return await trio.to_thread.run_sync(make, abandon_on_cancel=True)
            finally:
                sys.setswitchinterval(_USUAL_SWITCH_SECONDS)
