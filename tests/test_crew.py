"""The tasks that see things off: each once and in turn, tasks used again, and an end that waits for the last."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import define, field

from trio_worker.broker import Claim
from trio_worker.crew import Crew
from trio_worker.events import Source
from trio_worker.record import Record


def claim(number: int) -> Claim:
    return Claim(f"job{number}", b"", Record(0.0), "token", Source.FRESH, 1, 0.0, 0.0)


@define
class Handling:
    """Handles jobs for a second each, and remembers in which task."""

    begun: list[str] = field(factory=list)
    done: list[str] = field(factory=list)
    cut_off: list[str] = field(factory=list)
    tasks: set[trio.lowlevel.Task] = field(factory=set)

    async def handle(self, given: Claim) -> None:
        self.tasks.add(trio.lowlevel.current_task())
        self.begun.append(given.job_id)
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            self.cut_off.append(given.job_id)
            raise
        self.done.append(given.job_id)


async def test_tasks_are_used_again(autojump_clock: trio.testing.MockClock) -> None:
    """As many tasks as there were jobs at once; every job is handled once, in the order of giving."""
    handling = Handling()
    async with trio.open_nursery() as nursery:
        crew = Crew(nursery, handling.handle, 9)
        for start in range(0, 30, 3):
            for number in range(start, start + 3):
                crew.give(claim(number))
            await trio.sleep(2)
        crew.dismiss()

    assert sorted(handling.done) == sorted(f"job{number}" for number in range(30))
    assert len(handling.tasks) == 3


async def test_end_waits_for_the_last_job(autojump_clock: trio.testing.MockClock) -> None:
    """Tasks at rest end at once, one at work after its job."""
    handling = Handling()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        crew = Crew(nursery, handling.handle, 9)
        crew.give(claim(1))
        crew.give(claim(2))
        await trio.sleep(2)
        crew.give(claim(3))
        await trio.sleep(0.5)
        crew.dismiss()

    assert handling.done[-1] == "job3"
    assert trio.current_time() - began == pytest.approx(3)


async def test_cancel_reaches_every_job_and_every_task(autojump_clock: trio.testing.MockClock) -> None:
    """Jobs at work are cut off, those just given too; nothing is left at rest."""
    handling = Handling()
    async with trio.open_nursery() as nursery:
        crew = Crew(nursery, handling.handle, 9)
        crew.give(claim(1))
        crew.give(claim(2))
        await trio.sleep(2)
        crew.give(claim(3))
        await trio.testing.wait_all_tasks_blocked()
        crew.give(claim(4))
        crew.give(claim(5))
        nursery.cancel_scope.cancel()

    assert sorted(handling.done) == ["job1", "job2"]
    assert sorted(handling.cut_off) == ["job3", "job4", "job5"]


async def test_what_all_tasks_are_too_busy_for_waits_in_line(autojump_clock: trio.testing.MockClock) -> None:
    """In the order of giving; the end waits for the line as well."""
    handling = Handling()
    async with trio.open_nursery() as nursery:
        crew = Crew(nursery, handling.handle, 2)
        for number in range(7):
            crew.give(claim(number))
        assert crew.is_behind
        await trio.sleep(0.5)
        crew.dismiss()

    assert handling.begun == [f"job{number}" for number in range(7)]
    assert sorted(handling.done) == handling.begun
    assert len(handling.tasks) == 2
    assert not crew.is_behind


async def test_what_waited_in_line_at_a_cancel_is_left(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever gave it gets it back, once."""
    handling = Handling()
    async with trio.open_nursery() as nursery:
        crew = Crew(nursery, handling.handle, 2)
        for number in range(5):
            crew.give(claim(number))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert sorted(handling.cut_off) == ["job0", "job1"]
    assert [each.job_id for each in crew.left()] == ["job2", "job3", "job4"]
    assert crew.left() == []
