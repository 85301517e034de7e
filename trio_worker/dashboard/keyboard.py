"""Trio. The keys of the terminal we were started from, one by one and not echoed; given back as it was."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio
from attrs import define

# Arrow and function keys come as sequences that begin so; a lone one is the key Esc.
_ESCAPE = "\x1b"
_MAX_OCTETS = 256


@define(eq=False)
class Keyboard:
    """Standard input in character mode; made by `open_keyboard`, which also gives it back."""

    _fd: int
    _before: list[Any]
    _is_taken: bool = False

    def take(self) -> None:
        """Have keys come one by one, without echo; Ctrl-C and Ctrl-Z still are signals (termios(3), ISIG).

        Nothing happens while we are in the background, where changing the terminal would stop us.
        """
        with suppress(termios.error, OSError):
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return
            mode = termios.tcgetattr(self._fd)
            mode[3] &= ~(termios.ICANON | termios.ECHO)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
            self._is_taken = True

    def give_back(self) -> None:
        """Put the terminal back as it was; safe in a signal handler, and more than once."""
        if self._is_taken:
            self._is_taken = False
            with suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    async def keys(self) -> AsyncIterator[str]:
        """Yield keys for ever, or until the terminal is gone; what is no single character is left out, but for Esc."""
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                octets = os.read(self._fd, _MAX_OCTETS)
            except OSError:
                return
            if not octets:
                return
            for key in split_keys(octets.decode("utf-8", "ignore")):
                yield key


def split_keys(text: str) -> list[str]:
    """Return the keys of what one read gave; the sequences of arrow and function keys are none of ours."""
    keys: list[str] = []
    place = 0
    while place < len(text):
        if text[place] != _ESCAPE or place + 1 == len(text):
            keys.append(text[place])
            place += 1
            continue
        place += 2
        if text[place - 1] in "[O":
            # ECMA-48 5.4: parameters, then one final character.
            while place < len(text) and not "@" <= text[place] <= "~":
                place += 1
            place += 1
    return keys


@contextmanager
def open_keyboard() -> Iterator[Keyboard | None]:
    """Take the keys of standard input for the block; None where that is no terminal of ours."""
    try:
        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
    except (termios.error, OSError, ValueError):
        yield None
        return
    keyboard = Keyboard(fd, before)
    keyboard.take()
    try:
        yield keyboard
    finally:
        keyboard.give_back()
