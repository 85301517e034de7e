"""Trio. The tasks that see things off which have to be waited for: few of them, each one thing at a time.

What is given while all are at work waits in line: a task for each would cost some ten kilobytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio
from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class Crew(Generic[T]):
    """Has ``handle`` see off all that is given, in the order of giving, in at most ``most`` tasks of ``nursery``.

    The nursery ends after `dismiss`. A cancel of it reaches what is being handled; what still waits in line is `left`.
    """

    nursery: trio.Nursery
    handle: Callable[[T], Awaitable[None]]
    most: int
    _line: deque[T] = field(factory=deque)
    _tasks: int = 0
    _resting: list[trio.lowlevel.Task] = field(factory=list)
    _is_dismissed: bool = False

    @property
    def is_behind(self) -> bool:
        """Whether something waits in line: what comes later must not overtake it."""
        return bool(self._line)

    def give(self, given: T) -> None:
        """Have one thing handled, now or in its turn. Never awaits."""
        self._line.append(given)
        if self._resting:
            trio.lowlevel.reschedule(self._resting.pop())
        elif self._tasks < self.most:
            self._tasks += 1
            self.nursery.start_soon(self._work)

    def dismiss(self) -> None:
        """End every task that rests, and each other one when the line is empty: nothing more is given."""
        self._is_dismissed = True
        for task in self._resting:
            trio.lowlevel.reschedule(task)
        self._resting.clear()

    def left(self) -> list[T]:
        """Take what was given and never handled, because a cancel came first."""
        left, self._line = list(self._line), deque()
        return left

    async def _work(self) -> None:
        while True:
            while self._line:
                await self.handle(self._line.popleft())
            if self._is_dismissed:
                return
            await self._rest()

    async def _rest(self) -> None:
        """Sleep until something is given, or until the end; a cancel ends the task."""
        task = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._resting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._resting.append(task)
        await trio.lowlevel.wait_task_rescheduled(leave)
