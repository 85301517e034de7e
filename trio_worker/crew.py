"""Trio. The tasks that see through what has to wait, each one thing at a time.

A task that is done takes the next: to wake it costs two thirds of what a new task does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import outcome
import trio
from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class Crew(Generic[T]):
    """Has ``handle`` see everything through that is given, in tasks of ``nursery``, which ends after `dismiss`."""

    nursery: trio.Nursery
    handle: Callable[[T], Awaitable[None]]
    _resting: list[trio.lowlevel.Task] = field(factory=list)
    _is_dismissed: bool = False

    def give(self, given: T) -> None:
        """Start the handling of one thing. Never awaits; a cancel of the nursery reaches the handling."""
        if self._resting:
            trio.lowlevel.reschedule(self._resting.pop(), outcome.Value(given))
        else:
            self.nursery.start_soon(self._work, given)

    def dismiss(self) -> None:
        """End every task that rests, and each other one after what it handles: nothing more is given."""
        self._is_dismissed = True
        for task in self._resting:
            trio.lowlevel.reschedule(task, outcome.Value(None))
        self._resting.clear()

    async def _work(self, first: T) -> None:
        given: T | None = first
        while given is not None:
            await self.handle(given)
            given = None if self._is_dismissed else await self._rest()

    async def _rest(self) -> T | None:
        """Wait for what is given next, or for the end; a cancel ends the task."""
        task = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._resting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._resting.append(task)
        given: T | None = await trio.lowlevel.wait_task_rescheduled(leave)
        return given
