"""Edge. A process that outlives another one and stops its embedded server: who is killed cannot do that itself."""

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
    """Have the server of ``directory`` stopped if this process dies within the block, however it dies.

    For servers that nobody would find again; the block itself ends with the server running.
    """
    # Of a session of its own, so that Ctrl-C and what ends the group of this process leave it alone.
    command = [sys.executable, "-P", "-m", __name__, str(directory)]
    guard = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    with guard:
        try:
            yield
        finally:
            # A word, for the end of the pipe may be held by children of this process too.
            guard.communicate(b".")


def _watch(directory: Path) -> None:
    """Be a user of the server until standard input says or ends something; the last user stops it."""
    with suppress(EmbeddedError):  # it is gone already, and with it the task
        hold = acquire_embedded(EmbeddedAddress(directory))
        has_died = not sys.stdin.buffer.read(1)
        if has_died:
            # The kernel closes its pipe and its lock one after the other, and a child of it may hold the lock as well.
            # No new user is kept out by this: nobody else comes to the folder.
            fcntl.flock(hold.users, fcntl.LOCK_EX)
        release_embedded(hold)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
