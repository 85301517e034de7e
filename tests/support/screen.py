"""A terminal from its other side: what an emulator reads, and the frames in it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable

from attrs import define

PATIENCE_SECONDS = 60.0
LEAVE = b"\x1b[?2026l\x1b[m\x1b[?7h\x1b[?1049l\x1b[?25h"
BEGIN_FRAME, END_FRAME = b"\x1b[?2026h\x1b[H", b"\x1b[?2026l"
TERMINAL = {"TERM": "xterm-256color"}


@define
class Window:
    """The other side of a terminal: what a terminal emulator reads, and how large its window is."""

    fd: int
    seen: bytes = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, is_enough: Callable[[bytes], bool]) -> bytes:
        """Read on until what was seen is enough, or the terminal is closed; return all that was seen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_enough(self.seen):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.seen[-500:]
            try:
                octets = os.read(self.fd, 65536)
            except OSError:
                return self.seen  # EIO: every program has closed its side
            if not octets:
                return self.seen
            self.seen += octets
        return self.seen

    def read_to_end(self) -> bytes:
        return self.read_until(lambda _: False)


def frames_in(seen: bytes) -> list[bytes]:
    # The way out ends a frame too, one that was not whole.
    parts = seen.replace(LEAVE, b"").split(BEGIN_FRAME)[1:]
    return [part.split(END_FRAME)[0] for part in parts if END_FRAME in part]
