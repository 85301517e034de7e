"""The dashboard that draws on and on, until it is left or its terminal is gone."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TextIO

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.support.screen import PATIENCE_SECONDS, Window, frames_in
from tests.support.snapshot import busy
from trio_worker.dashboard.live import Dashboard
from trio_worker.dashboard.screen import open_screen
from trio_worker.dashboard.view import View
from trio_worker.telemetry.snapshot import Snapshot


async def test_dashboard_draws_on_and_on(terminal: tuple[Window, TextIO]) -> None:
    """Every tick takes a snapshot and draws it; a slow terminal misses some, and sees none twice."""
    window, stream = terminal
    full = busy()
    taken = 0

    def take_snapshot() -> Snapshot:
        nonlocal taken
        taken += 1
        return evolve(full, at=full.at + taken)

    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Dashboard(take_snapshot, screen, view=View(every_seconds=0.02)).run)
            await trio.to_thread.run_sync(window.read_until, lambda seen: len(frames_in(seen)) >= 3)
            nursery.cancel_scope.cancel()

    found = [re.search(rb"12:04:(\d\d)Z", frame) for frame in frames_in(window.seen)]
    seconds = [int(each[1]) for each in found if each is not None]
    assert len(seconds) >= 3
    assert seconds[0] >= 32
    assert all(before < after for before, after in pairwise(seconds))


async def test_dashboard_tells_what_no_key_asked_for(terminal: tuple[Window, TextIO]) -> None:
    """It appears on the bottom line at once, and disappears by itself."""
    window, stream = terminal
    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        dashboard = Dashboard(busy, screen, view=View(every_seconds=0.02))
        dashboard.show_notice("the state is in state-7.txt")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dashboard.run)
            await trio.to_thread.run_sync(window.read_until, lambda seen: len(frames_in(seen)) >= 1)
            dashboard._notice_until = trio.current_time()
            while dashboard.view.notice:
                await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()

    assert b"the state is in state-7.txt" in frames_in(window.seen)[0]


async def test_dashboard_without_a_terminal_waits(terminal: tuple[Window, TextIO]) -> None:
    """When the terminal is gone no more snapshots are taken, and the task goes on until it is cancelled."""
    _window, stream = terminal
    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        screen.is_on = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Dashboard(busy, screen, view=View(every_seconds=1000.0)).run)
            await trio.testing.wait_all_tasks_blocked()

            assert nursery.child_tasks
            nursery.cancel_scope.cancel()


async def test_failing_snapshot_is_raised(terminal: tuple[Window, TextIO]) -> None:
    """A bug in a snapshot is not hidden by the screen."""
    _window, stream = terminal

    def fail() -> Snapshot:
        raise ZeroDivisionError

    with open_screen(stream) as screen, pytest.raises(ExceptionGroup) as raised:
        await Dashboard(fail, screen).run()
    assert raised.group_contains(ZeroDivisionError)
