"""Trio. The alternate screen of a terminal, drawn by rich without blocking, and restored at the end.

`rich.live.Live` draws the frames into memory, and this module writes them to the terminal: rich would block, and the
worker with it, when the terminal stops reading (Ctrl-S, a frozen window, a slow line). The terminal is opened a second
time, as non-blocking: so the flag does not change the open file that the shell and other programs share. Bytes that
the terminal does not accept wait for the next frame; a newer frame replaces an older one.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from types import FrameType
from typing import TextIO

import trio
from rich.console import ConsoleRenderable
from rich.live import Live

from trio_worker.dashboard.frame import open_console
from trio_worker.dashboard.terminal import open_again
from trio_worker.records import define

# DEC private modes: 1049 alternate screen, 25 cursor, 7 wrapping at the margin, 2026 synchronized output (the terminal
# shows a frame at once; a terminal without it ignores it). rich switches on the first two; with the third switched off,
# a frame that was drawn for a wider window does not scroll the screen.
_ENTER_TOO = b"\x1b[m\x1b[?7l"
# Begins with ESC, which ends a sequence that a half-written frame may have begun.
_LEAVE = b"\x1b[?2026l\x1b[m\x1b[?7h\x1b[?1049l\x1b[?25h"
_BEGIN_FRAME, _END_FRAME = b"\x1b[?2026h", b"\x1b[?2026l"
# If the terminal accepts nothing for this long at the end, it is not restored: the worker must exit.
_LEAVE_SECONDS = 0.5
# For terminals without a size, on serial lines and in some containers; the size of the VT100.
_DEFAULT_SIZE = os.terminal_size((80, 24))
# Signals that end the process at once if they have no handler; the worker handles the first two itself.
_DEADLY_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@define(eq=False)
class Screen:
    """The alternate screen of one terminal; made by `open_screen`, which also closes it.

    When the terminal is gone, `is_on` becomes false, `draw` does nothing, and the worker keeps running.
    """

    _fd: int
    _page: StringIO
    _live: Live
    is_on: bool = False
    is_suspended: bool = False
    _unsent: bytes = b""
    _drawn: str = ""

    def size(self) -> os.terminal_size:
        """Return the current columns and lines of the terminal; 80x24 if it does not know them."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return _DEFAULT_SIZE
        return size if size.columns > 0 and size.lines > 0 else _DEFAULT_SIZE

    async def draw(self, frame: ConsoleRenderable) -> None:
        """Show a frame at the size of the terminal, unless it is the same as the last one.

        A frame is one write, unless the terminal accepts only a part. After a cancel the rest is written before the
        next frame, so that the terminal never gets half a sequence: call this with a deadline, as `Dashboard` does.
        """
        await self._flush()
        if not self.is_on:
            return
        self._live.console.size = self.size()
        self._live.update(frame, refresh=True)
        text = self._take_page()
        if text == self._drawn:
            return
        self._drawn = text
        self._unsent = _BEGIN_FRAME + text.replace("\n", "\r\n").encode("utf-8", "replace") + _END_FRAME
        await self._flush()

    def take(self) -> None:
        """Take the terminal, at the beginning and after `suspend`."""
        self._live.start()
        self.is_on, self.is_suspended, self._drawn = True, False, ""
        _write_within(self._fd, self._take_page().encode() + _ENTER_TOO, _LEAVE_SECONDS)

    def restore(self) -> None:
        """Leave the alternate screen and show the cursor, once; never raises, returns within half a second.

        Safe before ``os._exit`` and in a signal handler, where rich does nothing if it is drawing a frame. The file
        stays open; `open_screen` closes it.
        """
        if not self.is_on:
            return
        self.is_on = False
        self._unsent = b""
        _write_within(self._fd, _LEAVE, _LEAVE_SECONDS)

    def give_back(self) -> None:
        """Restore the terminal and end the live view."""
        self.restore()
        self._live.stop()
        self._take_page()  # the sequences that leave the screen: the terminal has them already

    def suspend(self) -> None:
        """Give the terminal back for some time, before the process is stopped."""
        if self.is_on:
            self.give_back()
            self.is_suspended = True

    def is_ours(self) -> bool:
        """Return whether this process is in the foreground of the terminal; else the shell has the terminal."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # not the controlling terminal, which has no foreground process for us

    def _take_page(self) -> str:
        """Return what rich has drawn, and clear the page."""
        text = self._page.getvalue()
        self._page.seek(0)
        self._page.truncate()
        return text

    async def _flush(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.is_on and self._unsent:
            if not self._write_nowait():
                await trio.lowlevel.wait_writable(self._fd)

    def _write_nowait(self) -> bool:
        """Write what the terminal accepts; return whether it accepted anything, or is gone."""
        try:
            taken = os.write(self._fd, self._unsent)
        except BlockingIOError:
            return False
        except OSError:
            # EIO after a hangup, EPIPE, ENXIO: the terminal is gone.
            self.is_on = False
            return True
        self._unsent = self._unsent[taken:]
        return taken > 0


@contextmanager
def open_screen(stream: TextIO, *, color: bool = True) -> Iterator[Screen]:
    """Enter the alternate screen of the terminal behind ``stream``, and leave it at the end of the block.

    The terminal is restored before an exception is printed, and before SystemExit or an unhandled signal ends the
    process. Raises OSError if `is_live` is false.
    """
    stream.flush()
    fd = open_again(stream)
    if fd is None:
        raise OSError(f"cannot open the terminal of {stream.name} a second time")
    page = StringIO()
    console = open_console(page, *_DEFAULT_SIZE, color=color)
    # Without the thread of rich, and without capturing what other code prints.
    live = Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    screen = Screen(fd, page, live)
    try:
        with _restored_by_signals(screen), _taken(screen):
            yield screen
    finally:
        os.close(fd)


@contextmanager
def _taken(screen: Screen) -> Iterator[None]:
    try:
        screen.take()
        yield
    finally:
        screen.give_back()


def _write_within(fd: int, octets: bytes, seconds: float) -> None:
    """Write bytes without trio, as many as the terminal accepts in this time; raises nothing if it is gone."""
    deadline = time.monotonic() + seconds
    with suppress(OSError):
        while octets:
            _, writable, _ = select.select([], [fd], [], max(0.0, deadline - time.monotonic()))
            if not writable:
                return
            octets = octets[os.write(fd, octets) :]


@contextmanager
def _restored_by_signals(screen: Screen) -> Iterator[None]:
    """Restore the screen when a signal without a handler ends the process; signals with a handler are not changed."""

    def restore_and_die(number: int, _frame: FrameType | None) -> None:
        screen.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    ours = []
    try:
        for number in _DEADLY_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, restore_and_die)
                ours.append(number)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
