"""Trio. The screen: frames on the alternate screen of a terminal, which is given back as it was, whatever happens.

A terminal may stop reading (Ctrl-S, a frozen window, a slow line). The worker must not stop with it, so the terminal is
opened a second time, non-blocking: the flag belongs to our own open file and not to the one that the shell and other
programs share. What does not fit waits for the next frame; what is newer replaces what is older.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

import trio
from attrs import define, field

from trio_worker.terminal import open_again

# DEC private modes: 1049 alternate screen, 25 cursor, 7 wrapping at the margin, 2026 synchronized output (a terminal
# that knows it shows a frame at once, one that does not ignores it).
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[m\x1b[H\x1b[2J"
# Begins with ESC, which ends whatever sequence a half-written frame had begun.
_LEAVE = b"\x1b[?2026l\x1b[m\x1b[?7h\x1b[?1049l\x1b[?25h"
_BEGIN_FRAME, _END_FRAME = b"\x1b[?2026h\x1b[H", b"\x1b[m\x1b[J\x1b[?2026l"
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
    is_on: bool = True
    is_suspended: bool = False
    _unsent: bytes = b""
    _drawn: tuple[str, os.terminal_size] | None = field(default=None)

    def size(self) -> os.terminal_size:
        """Return the terminal's columns and lines as they are now; 80x24 where it does not know them."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return _DEFAULT_SIZE
        return size if size.columns > 0 and size.lines > 0 else _DEFAULT_SIZE

    async def draw(self, frame: str) -> None:
        """Show a frame: lines joined by newlines, each with the last column free.

        A frame is one write, unless the terminal takes only a part. Cancelled, the rest stays and goes out before the
        next frame, so that the terminal never sees half a sequence: give it a deadline, as `Dashboard` does.
        """
        await self._flush()
        shown = (frame, self.size())
        if not self.is_on or shown == self._drawn:
            return
        self._drawn = shown
        self._unsent = _encoded(frame)
        await self._flush()

    def restore(self) -> None:
        """Leave the alternate screen and show the cursor, once; never raises, returns within half a second.

        Safe in a signal handler and before ``os._exit``. The file stays open for `open_screen` to close.
        """
        if not self.is_on:
            return
        self.is_on = False
        self._unsent = b""
        _write_within(self._fd, _LEAVE, _LEAVE_SECONDS)

    def suspend(self) -> None:
        """Give the terminal back for a while, as before the process is stopped."""
        if self.is_on:
            self.restore()
            self.is_suspended = True

    def resume(self) -> None:
        """Take the terminal again after `suspend`."""
        self.is_on, self.is_suspended, self._drawn = True, False, None
        _write_within(self._fd, _ENTER, _LEAVE_SECONDS)

    def is_ours(self) -> bool:
        """Return whether we are in the terminal's foreground: the shell has it while we are in the background."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # not our controlling terminal: nobody else is told to keep off it

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
def open_screen(stream: TextIO) -> Iterator[Screen]:
    """Enter the alternate screen of the terminal behind ``stream`` and leave it at the end, however the end comes.

    An exception, SystemExit and the signals that would end the process unhandled all find the terminal restored before
    anything is printed or the process is gone. Raises OSError where `is_live` is false.
    """
    stream.flush()
    fd = open_again(stream)
    if fd is None:
        raise OSError(f"cannot open the terminal of {stream.name} a second time")
    screen = Screen(fd)
    try:
        with _restored_by_signals(screen), _entered(screen, fd):
            yield screen
    finally:
        os.close(fd)


@contextmanager
def _entered(screen: Screen, fd: int) -> Iterator[None]:
    try:
        _write_within(fd, _ENTER, _LEAVE_SECONDS)
        yield
    finally:
        screen.restore()


def _encoded(frame: str) -> bytes:
    lines = "\x1b[m\x1b[K\r\n".join(frame.split("\n"))
    return _BEGIN_FRAME + lines.encode("utf-8", "replace") + b"\x1b[m\x1b[K" + _END_FRAME


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
