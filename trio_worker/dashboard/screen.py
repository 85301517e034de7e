"""Trio. The screen: rich's live view, on a terminal that may stop reading and is given back as it was.

`rich.live.Live` takes the alternate screen and draws the frames, but onto a page in memory: it would wait for a
terminal that stops reading (Ctrl-S, a frozen window, a slow line), and the worker with it. Bringing the page to the
terminal is ours. It is opened a second time, non-blocking: the flag belongs to our own open file and not to the one
that the shell and other programs share. What does not fit waits for the next frame; what is newer replaces what is
older.
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
from attrs import define
from rich.console import ConsoleRenderable
from rich.live import Live

from trio_worker.dashboard.frame import open_console
from trio_worker.dashboard.terminal import open_again

# DEC private modes: 1049 alternate screen, 25 cursor, 7 wrapping at the margin, 2026 synchronized output (a terminal
# that knows it shows a frame at once, one that does not ignores it). The first two are switched on by rich; without the
# third a frame that was drawn for a wider window does not scroll away.
_ENTER_TOO = b"\x1b[m\x1b[?7l"
# Begins with ESC, which ends whatever sequence a half-written frame had begun.
_LEAVE = b"\x1b[?2026l\x1b[m\x1b[?7h\x1b[?1049l\x1b[?25h"
_BEGIN_FRAME, _END_FRAME = b"\x1b[?2026h", b"\x1b[?2026l"
# A terminal that takes nothing for this long at the end is left as it is: the worker has to go.
_LEAVE_SECONDS = 0.5
# Terminals on serial lines and in some containers do not know their size; this is the VT100's.
_DEFAULT_SIZE = os.terminal_size((80, 24))
# These end the process at once where nobody handles them; the worker handles the first two itself.
_DEADLY_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@define(eq=False)
class Screen:
    """The alternate screen of one terminal; made by `open_screen`, which also closes it.

    It turns itself off for good, silently, when the terminal is gone: then `draw` does nothing, and the worker goes on.
    """

    _fd: int
    _page: StringIO
    _live: Live
    is_on: bool = False
    is_suspended: bool = False
    _unsent: bytes = b""
    _drawn: str = ""

    def size(self) -> os.terminal_size:
        """Return the terminal's columns and lines as they are now; 80x24 where it does not know them."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return _DEFAULT_SIZE
        return size if size.columns > 0 and size.lines > 0 else _DEFAULT_SIZE

    async def draw(self, frame: ConsoleRenderable) -> None:
        """Show a frame at the terminal's size, unless it would look as the last one did.

        A frame is one write, unless the terminal takes only a part. Cancelled, the rest stays and goes out before the
        next frame, so that the terminal never sees half a sequence: give it a deadline, as `Dashboard` does.
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
        """Take the terminal, at first and after `suspend`."""
        self._live.start()
        self.is_on, self.is_suspended, self._drawn = True, False, ""
        _write_within(self._fd, self._take_page().encode() + _ENTER_TOO, _LEAVE_SECONDS)

    def restore(self) -> None:
        """Leave the alternate screen and show the cursor, once; never raises, returns within half a second.

        Safe in a signal handler, where rich, in the midst of a frame, would say nothing, and before ``os._exit``. The
        file stays open for `open_screen` to close.
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
        self._take_page()  # the way out, which the terminal knows by now

    def suspend(self) -> None:
        """Give the terminal back for a while, as before the process is stopped."""
        if self.is_on:
            self.give_back()
            self.is_suspended = True

    def is_ours(self) -> bool:
        """Return whether we are in the terminal's foreground: the shell has it while we are in the background."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # not our controlling terminal: nobody else is told to keep off it

    def _take_page(self) -> str:
        """Return what was drawn onto the page, and clear it."""
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
        """Write what the terminal takes; return whether it took anything, or is gone."""
        try:
            taken = os.write(self._fd, self._unsent)
        except BlockingIOError:
            return False
        except OSError:
            # EIO after a hangup, EPIPE, ENXIO: nobody looks any more.
            self.is_on = False
            return True
        self._unsent = self._unsent[taken:]
        return taken > 0


@contextmanager
def open_screen(stream: TextIO, *, color: bool = True) -> Iterator[Screen]:
    """Enter the alternate screen of the terminal behind ``stream`` and leave it at the end, however the end comes.

    An exception, SystemExit and the signals that would end the process unhandled all find the terminal restored before
    anything is printed or the process is gone. Raises OSError where `is_live` is false.
    """
    stream.flush()
    fd = open_again(stream)
    if fd is None:
        raise OSError(f"cannot open the terminal of {stream.name} a second time")
    page = StringIO()
    console = open_console(page, *_DEFAULT_SIZE, color=color)
    # Without a thread of its own, and without taking what others print.
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
    """Write bytes without trio, as far as the terminal takes them in time; a terminal that is gone is no error."""
    deadline = time.monotonic() + seconds
    with suppress(OSError):
        while octets:
            _, writable, _ = select.select([], [fd], [], max(0.0, deadline - time.monotonic()))
            if not writable:
                return
            octets = octets[os.write(fd, octets) :]


@contextmanager
def _restored_by_signals(screen: Screen) -> Iterator[None]:
    """Where a signal would end the process unhandled, restore the screen first; handled ones are left alone."""

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
