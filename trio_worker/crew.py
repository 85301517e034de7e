"""Trio. The tasks that see jobs through, one job each at a time.

A task that is done takes the next job: to wake it costs two thirds of what a new task does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import outcome
import trio
from attrs import define, field

from trio_worker.broker import Claim


@define(eq=False)
class Crew:
    """Has ``handle`` see every job through that is given, in tasks of ``nursery``, which ends after `dismiss`."""

    nursery: trio.Nursery
    handle: Callable[[Claim], Awaitable[None]]
    _resting: list[trio.lowlevel.Task] = field(factory=list)
    _is_dismissed: bool = False

    def give(self, claim: Claim) -> None:
        """Start the handling of one job. Never awaits; a cancel of the nursery reaches the handling."""
        if self._resting:
            trio.lowlevel.reschedule(self._resting.pop(), outcome.Value(claim))
        else:
            self.nursery.start_soon(self._work, claim)

    def dismiss(self) -> None:
        """End every task that has no job, and each other one after its job: nothing more is given."""
        self._is_dismissed = True
        for task in self._resting:
            trio.lowlevel.reschedule(task, outcome.Value(None))
        self._resting.clear()

    async def _work(self, first: Claim) -> None:
        claim: Claim | None = first
        while claim is not None:
            await self.handle(claim)
            claim = None if self._is_dismissed else await self._rest()

    async def _rest(self) -> Claim | None:
        """Wait for the next job, or for the end; a cancel ends the task."""
        task = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._resting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._resting.append(task)
        given: Claim | None = await trio.lowlevel.wait_task_rescheduled(leave)
        return given
