"""Measure the cost of metrics and the dashboard, and how long commands take to start."""

from __future__ import annotations

import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROWS, COLUMNS = 45, 160


def start_on_terminal(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command with a pseudo-terminal as output, which is read all the time so that the command never waits."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env={**environment, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)

    def read_on() -> None:
        with suppress(OSError):  # the end of a terminal
            while os.read(ours, 65536):
                pass
        os.close(ours)

    threading.Thread(target=read_on, daemon=True).start()
    return process


def command_seconds(words: Sequence[str], environment: Mapping[str, str], rounds: int = 9) -> float:
    """Return the median seconds that a command takes."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *words], env=dict(environment), check=False, capture_output=True, text=True
        )
        found.append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return statistics.median(found)
