"""A program in a pseudo-terminal: what it shows, and keys for it."""

from __future__ import annotations

import os
import pty
import re
import struct
import sys
import termios
from contextlib import suppress
from fcntl import ioctl
from typing import Any

import trio
from attrs import define

from tests.support.paths import ROOT
from tests.support.processes import Programs


@define
class Window:
    """A terminal of 80x24 with a program in it: what it shows, and keys for it."""

    fd: int
    seen: str = ""

    async def until(self, word: str) -> None:
        """Read the screen until the last frame holds that word."""
        while word not in self.frame:
            await trio.lowlevel.wait_readable(self.fd)
            self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")

    async def read_on(self) -> None:
        """Read what is shown for as long as the program is there."""
        with suppress(OSError):
            while True:
                await trio.lowlevel.wait_readable(self.fd)
                self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")

    @property
    def frame(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.seen.rpartition("\x1b[H")[2])

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())


async def open_window(programs: Programs, *words: str) -> tuple[trio.Process, Window, list[Any]]:
    inside, outside = pty.openpty()
    ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(outside)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_worker", *words, "--config", str(programs.config)],
        cwd=programs.folder,
        stdin=outside,
        stdout=outside,
        stderr=outside,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "CI": "", "NO_COLOR": "1"},
        preexec_fn=own_terminal,
    )
    programs.started.append(process)
    os.set_blocking(inside, False)
    return process, Window(inside), [outside, before]


def own_terminal() -> None:
    os.setsid()
    ioctl(0, termios.TIOCSCTTY, 0)
