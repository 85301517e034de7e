"""Which processes of a run of the tests are still alive: found by a variable that they inherit, or by their folder."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path


def alive(mark: str, folder: Path) -> dict[int, str]:
    """Return the processes that inherited the variable ``mark`` or work in ``folder``, with their command lines.

    Only Linux tells; a zombie is not alive. This process, which set the variable itself, has not inherited it.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            inherited = (process / "environ").read_bytes().split(b"\0")
            works_in = str((process / "cwd").readlink())
            is_ours = any(each.startswith(f"{mark}=".encode()) for each in inherited)
            if int(process.name) != os.getpid() and (is_ours or f"{works_in}/".startswith(f"{folder}/")):
                words = (process / "cmdline").read_bytes().split(b"\0")
                found[int(process.name)] = b" ".join(words).decode(errors="replace").strip()
    return found


def still_alive(mark: str, folder: Path, patience_seconds: float) -> dict[int, str]:
    """Wait until none of them is alive, at most this long; return those that are."""
    deadline = time.monotonic() + patience_seconds
    while (left := alive(mark, folder)) and (seconds := deadline - time.monotonic()) > 0:
        with suppress(ProcessLookupError):
            ended = os.pidfd_open(next(iter(left)))
            select.select([ended], [], [], seconds)
            os.close(ended)
    return left
