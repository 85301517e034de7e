"""Trio. The keys of standard input, one by one and without echo; the terminal is restored at the end."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio

from trio_worker.records import define

# The sequences of arrow and function keys begin with this character; alone it is the key Esc.
_ESCAPE = "\x1b"
_MAX_OCTETS = 256


@define(eq=False)
class Keyboard:
    """Standard input in character mode; made by `open_keyboard`, which also gives it back."""

    _fd: int
    _before: list[Any]
    _is_taken: bool = False

    def take(self) -> None:
        """Switch to keys one by one, without echo; Ctrl-C and Ctrl-Z remain signals (termios(3), ISIG).

        Does nothing in the background, where a change of the terminal would stop this process.
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
        """Restore the mode of the terminal; safe in a signal handler, and more than once."""
        if self._is_taken:
            self._is_taken = False
            with suppress(termios.error, OSError):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    async def keys(self) -> AsyncGenerator[str]:
        """Yield keys until the terminal is gone; only single characters and Esc."""
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
    """Return the keys in the text of one read, without the sequences of arrow and function keys."""
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
    """Take the keys of standard input for the block; None if it is not a terminal."""
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
