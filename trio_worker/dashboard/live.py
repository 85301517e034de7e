"""Trio. The running dashboard: draws frames, handles keys, and follows the size of the window."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Never

import trio
from attrs import evolve, field

from trio_worker.dashboard.frame import Frame
from trio_worker.dashboard.keyboard import Keyboard
from trio_worker.dashboard.screen import Screen
from trio_worker.dashboard.terminal import next_tick
from trio_worker.dashboard.view import KeyAction, View, press
from trio_worker.records import define
from trio_worker.telemetry.snapshot import Snapshot

# Dragging the edge of a window would cause a hundred frames per second; ten are enough and cost little.
_MIN_FRAME_SECONDS = 0.1
# A notice that is not the answer to a key disappears after this time.
_NOTICE_SECONDS = 15.0


@define(eq=False)
class Dashboard:
    """Draws frames and handles keys; `run` it while the screen is open, until cancelled.

    ``act`` carries out the action of a key and returns a notice about its result. Without a ``keyboard`` no keys are
    read.
    """

    take_snapshot: Callable[[], Snapshot]
    screen: Screen
    keyboard: Keyboard | None = None
    act: Callable[[KeyAction], Awaitable[str]] | None = None
    view: View = field(factory=View)
    ascii_only: bool = False
    _drawn: Snapshot | None = None
    _notice_until: float = math.inf
    _changed: trio.Event = field(factory=trio.Event)

    def show_notice(self, text: str) -> None:
        """Show a notice on the bottom line for some time, or until a key is pressed; typing continues below it."""
        self.view = evolve(self.view, notice=text)
        self._notice_until = trio.current_time() + _NOTICE_SECONDS
        self._changed.set()

    async def run(self) -> None:
        """Draw a frame at every whole tick, and at once after a key or when the window changes its size.

        A frame that the terminal does not accept before the next tick is dropped. An exception from ``take_snapshot``
        or from rendering is a bug and is raised; `open_screen` restores the terminal before it is printed.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_signals)
            if self.keyboard is not None:
                self.view = evolve(self.view, has_keys=True)
                nursery.start_soon(self._follow_keys, self.keyboard)
            await self._keep_drawing()

    async def _keep_drawing(self) -> Never:
        while True:
            began = trio.current_time()
            tick = next_tick(began, self.view.every_seconds)
            self._changed = trio.Event()
            self._come_back()
            if began >= self._notice_until:
                self.view, self._notice_until = evolve(self.view, notice=""), math.inf
            if self.screen.is_on:
                self._drawn = self.take_snapshot()
                with trio.move_on_at(tick):
                    await self.screen.draw(Frame(self._drawn, self.view, self.ascii_only))
            with trio.move_on_at(tick):
                await self._changed.wait()
                await trio.sleep_until(began + _MIN_FRAME_SECONDS)

    async def _follow_keys(self, keyboard: Keyboard) -> None:
        async with aclosing(keyboard.keys()) as keys:
            async for key in keys:
                if self._drawn is None:
                    continue
                self.view, action = press(self.view, key, self._drawn)
                self._changed.set()
                if action is not None and self.act is not None:
                    self.view = evolve(self.view, notice=await self.act(action))
                    self._notice_until = math.inf
                    self._changed.set()

    async def _follow_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGTSTP) as signals:
            async for number in signals:
                if number == signal.SIGTSTP:
                    self.screen.suspend()
                    if self.keyboard is not None:
                        self.keyboard.give_back()
                    os.kill(os.getpid(), signal.SIGSTOP)
                self._changed.set()

    def _come_back(self) -> None:
        """Take the screen again when this process is in the foreground of the terminal (after Ctrl-Z and fg)."""
        if self.screen.is_suspended and self.screen.is_ours():
            if self.keyboard is not None:
                self.keyboard.take()
            self.screen.take()
