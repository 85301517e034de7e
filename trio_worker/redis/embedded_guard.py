"""Edge. A watchdog process that stops the embedded server of a process that was killed."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trio_worker.redis.embedded import EmbeddedAddress, EmbeddedError, acquire_embedded, release_embedded

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def open_guard(directory: Path) -> Iterator[None]:
    """Start a watchdog that stops the server of ``directory`` if this process dies inside the block.

    For servers in temporary directories, which no other process would stop. At the end of the block it still runs.
    """
    # In a new session, so that Ctrl-C and signals to the group of this process do not reach it.
    command = [sys.executable, "-P", "-m", __name__, str(directory)]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with guard:
        try:
            yield
        finally:
            # A byte, since closing the pipe is no sign: children of this process may have it open too.
            guard.communicate(b".")


def _watch(directory: Path) -> None:
    """Hold the server until a byte or the end comes on standard input; the last user stops it."""
    with suppress(EmbeddedError):  # the server is gone already
        hold = acquire_embedded(EmbeddedAddress(directory))
        has_died = not sys.stdin.buffer.read(1)
        if has_died:
            # The kernel closes the pipe and the lock of a dead process one after the other, and a child may have the
            # lock too. This keeps no new user out: no other process uses the directory.
            fcntl.flock(hold.users, fcntl.LOCK_EX)
        release_embedded(hold)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
