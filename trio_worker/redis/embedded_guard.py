"""Edge. The guard of an embedded server: a process that ends it when its last user, or its folder, is gone.

The last user stops the server by itself. It cannot if it was killed or its terminal was closed, and then nobody else
would. The guard runs as a program of its own, with the standard library only: it stands beside every server.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from contextlib import suppress

# How often it looks. A server without users waits this long; the look costs some 50 microseconds.
_LOOK_SECONDS = 1.0
# How long nobody can start a server while this one writes its data; then it is looked at again.
_STOP_SECONDS = 10.0


def guard(folder: int, server_lives: int) -> None:
    """Return when the server has ended, by itself or because its last user or its folder is gone.

    ``server_lives`` is the reading end of a pipe: the pid of the server comes over it, and then, when it ends, the end.
    """
    pid = _read_pid(folder, server_lives)
    while pid and not _has_ended(server_lives, _LOOK_SECONDS):
        if _is_gone(folder):
            _stop(pid, server_lives)
        # Until the server has ended nobody else may start one.
        locks = _lock_if_unused(folder)
        if locks and _stop(pid, server_lives):
            with suppress(OSError):
                os.unlink("server.json", dir_fd=folder)
        _close(locks)


def _read_pid(folder: int, server_lives: int) -> int:
    """Return the pid of the server; 0 if it was not started, or has ended.

    If its starter was killed before it could tell the pid, the server itself has written it, or soon will.
    """
    while True:
        if _is_readable(server_lives, _LOOK_SECONDS):
            return int(os.read(server_lives, 64) or 0)
        with suppress(OSError, ValueError):
            file = os.open("valkey.pid", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(file, encoding="ascii") as written:
                return int(written.read())


def _has_ended(server_lives: int, seconds: float) -> bool:
    """Wait at most this long for the end of the server; a pid that comes only now is one that was read before."""
    return _is_readable(server_lives, seconds) and not os.read(server_lives, 64)


def _is_readable(pipe: int, seconds: float) -> bool:
    return bool(select.select([pipe], [], [], seconds)[0])


def _is_gone(folder: int) -> bool:
    """Return whether the folder was deleted; one that was renamed still has its files."""
    try:
        os.stat("users.lock", dir_fd=folder)
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return not os.listdir(folder)
        return True
    return False


def _lock_if_unused(folder: int) -> list[int]:
    """Return both locks of the folder, if the server has no user and nobody starts or stops it."""
    files = []
    with suppress(OSError):  # BlockingIOError: it is locked
        for name in ("start.lock", "users.lock"):
            files.append(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder))
            fcntl.flock(files[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return files
    _close(files)
    return []


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _stop(pid: int, server_lives: int) -> bool:
    """Let the server write its data, and return whether it has ended. As it lives, nobody else has its pid."""
    if not _has_ended(server_lives, 0):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return _has_ended(server_lives, _STOP_SECONDS)


if __name__ == "__main__":
    guard(int(sys.argv[1]), 0)
