"""Trio. What a terminal can do, how it is opened a second time, and status lines for runs without one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Never, TextIO

import trio

from trio_worker.dashboard.status_line import status_line
from trio_worker.telemetry.snapshot import Snapshot


def is_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a dashboard can be shown: on a terminal with cursor addressing, and not in CI."""
    if not stream.isatty() or environ.get("TERM", "") in {"", "dumb"}:
        return False
    if environ.get("CI", "").lower() not in {"", "0", "false"}:
        return False
    fd = open_again(stream)
    if fd is None:
        return False
    os.close(fd)
    return True


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal that still exists."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(terminal)
    return True


def is_ascii_only(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether the terminal may be unable to show characters other than ASCII.

    An encoding in PYTHONIOENCODING decides. Else Python writes UTF-8 even if the locale is C or is not installed (PEP
    538, PEP 540); but if a variable names that locale, or another encoding, the terminal probably cannot show UTF-8.
    """
    if environ.get("PYTHONIOENCODING", "").partition(":")[0]:
        return not _is_utf8(stream.encoding)
    named = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    _, has_encoding, encoding = named.partition("@")[0].partition(".")
    if named in {"C", "POSIX"} or (has_encoding and not _is_utf8(encoding)):
        return True
    return not _is_utf8(stream.encoding)


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").lower().replace("-", "").replace("_", "") == "utf8"


def has_color(environ: Mapping[str, str]) -> bool:
    """Return whether colours may be used (no-color.org: not if NO_COLOR has any value)."""
    return not environ.get("NO_COLOR")


async def run_status_lines(
    take_snapshot: Callable[[], Snapshot], write: Callable[[str], None], every_seconds: float = 10.0
) -> Never:
    """Write a status line now and at every whole tick, until cancelled; for runs without a terminal."""
    while True:
        began = trio.current_time()
        write(status_line(take_snapshot()))
        await trio.sleep_until(next_tick(began, every_seconds))


def next_tick(now: float, every_seconds: float) -> float:
    """Return the next multiple of ``every_seconds``; missed ticks are skipped."""
    return (math.floor(now / every_seconds) + 1) * every_seconds


def open_again(stream: TextIO) -> int | None:
    """Open the terminal behind a stream a second time, as non-blocking; None if that fails.

    First by its name. After ``su`` the terminal belongs to another user; then it is opened as /dev/tty, if it is the
    controlling terminal.
    """
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(OSError):
        return os.open(os.ttyname(stream.fileno()), flags)
    with suppress(OSError):
        os.tcgetpgrp(stream.fileno())  # fails unless it is the controlling terminal
        return os.open("/dev/tty", flags)
    return None
