"""Edge. The log of a worker: a separate thread writes the lines of events.

If the disk is slow, full or gone, lines are dropped and counted; mails are not delayed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from attrs import field

from trio_worker.own_files import make_safe_folder, open_own_file
from trio_worker.printing import visible_lines
from trio_worker.records import define
from trio_worker.telemetry.log_line import (
    RANKS,
    SETTLED_LINES,
    Render,
    RenderSettled,
    as_json_line,
    as_logfmt,
    claimed_line,
    line_of,
    settled_as_json_lines,
    settled_as_logfmt,
)
from trio_worker.telemetry.options import LEVELS, LogOptions
from trio_worker.worker.events import Claimed, Event, Settled

# The maximum of queued lines: ten seconds at a thousand mails per second.
LINES_WAITING = 10_000
# Under load lines are written together; a reader of the file does not notice such a delay.
_GATHER_SECONDS = 0.02
# The log has no address and no token: others may read it.
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
# Files that the system makes, such as /dev/stderr, which is a link.
_OF_THE_SYSTEM = (("/", "dev"), ("/", "proc"))


@define
class Logbook:
    """Writes events as lines; `note` never blocks and never raises."""

    _writer: _Writer
    _least: int  # of `LEVELS`
    _render: Render
    _render_settled: RenderSettled
    _settings_least: int = field(init=False)  # the level of the settings
    _back_at: float = 0.0  # monotonic clock; 0 while the level is that of the settings
    logged: dict[str, int] = field(factory=lambda: dict.fromkeys(LEVELS, 0))  # lines by level

    def __attrs_post_init__(self) -> None:
        self._settings_least = self._least

    @property
    def lost_lines(self) -> int:
        """Return the number of lines that were dropped because the disk was too slow or gone."""
        return self._writer.lost

    def audit(self, message: str, fields: Mapping[str, str]) -> None:
        """Write a line about an action of a person, at any level."""
        self._put("warning", message, fields)

    def set_level(self, level: str, seconds: float) -> bool:
        """Change the level for this time; then it is that of the settings again. False for an unknown level."""
        if level not in LEVELS:
            return False
        self._put("warning", "Log level", {"level": level, "seconds": round(seconds)})
        self._least, self._back_at = RANKS[level], time.monotonic() + seconds
        return True

    def note(self, event: Event) -> None:
        if self._back_at and time.monotonic() >= self._back_at:
            self._least, self._back_at = self._settings_least, 0.0
            self._put("warning", "Log level", {"level": LEVELS[self._least]})
        # One line for each mail: lines below the level are not even made.
        if isinstance(event, Settled):
            levels = [SETTLED_LINES[job.disposition][0] for job in event.jobs]
            jobs = [job for job, level in zip(event.jobs, levels, strict=True) if RANKS[level] >= self._least]
            for level, count in Counter(levels).items():
                if RANKS[level] >= self._least:
                    self.logged[level] += count
            self._writer.put(self._render_settled(time.time(), jobs))
        elif isinstance(event, Claimed):
            if not self._least:
                for job in event.jobs:
                    self._put(*claimed_line(job))
        else:
            line = line_of(event)
            if line is not None and RANKS[line[0]] >= self._least:
                self._put(*line)

    def _put(self, level: str, message: str, fields: Mapping[str, object]) -> None:
        self.logged[level] += 1
        self._writer.put([self._render(time.time(), level, message, fields)])


@define(eq=False)
class _Writer:
    """A thread that writes the queued lines, and counts the lines that are dropped."""

    _open: Callable[[], TextIO]
    _path: Path | None
    lost: int = 0
    _lines: deque[str] = field(factory=deque)
    _has_lines: threading.Event = field(factory=threading.Event)
    _is_over: bool = False
    _thread: threading.Thread = field(init=False)
    _file: TextIO = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[str]) -> None:
        """Queue lines; never blocks."""
        taken = lines[: max(0, LINES_WAITING - len(self._lines))]
        self.lost += len(lines) - len(taken)
        if taken:
            self._lines += taken
            if not self._has_lines.is_set():
                self._has_lines.set()

    def close(self) -> None:
        """Write the queued lines, and end the thread."""
        self._is_over = True
        self._has_lines.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over or self._lines:
            self._has_lines.wait()
            self._has_lines.clear()
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self._write(lines)
            if not self._is_over:
                time.sleep(_GATHER_SECONDS)
        with suppress(OSError):
            self._release()

    def _write(self, lines: list[str]) -> None:
        try:
            self._reopen_if_rotated()
            self._file.write(visible_lines(lines) + "\n")
            self._file.flush()
        except (OSError, ValueError):  # a closed standard error is a ValueError
            self.lost += len(lines)
            with suppress(OSError):
                self._release()
            with suppress(OSError):
                self._file = self._open()

    def _reopen_if_rotated(self) -> None:
        """Open the file again if its name belongs to another file now (logrotate moves files away)."""
        if self._path is None:
            return
        try:
            named = self._path.stat()
        except FileNotFoundError:
            named = None
        ours = os.fstat(self._file.fileno())
        if named is None or (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
            self._release()
            self._file = self._open()

    def _release(self) -> None:
        if self._path is not None:
            self._file.close()


@contextmanager
def open_logbook(options: LogOptions, *, to_terminal: bool) -> Iterator[Logbook]:
    """Open the log for the block, and write all queued lines at its end.

    ``to_terminal`` means that a person reads standard error. Raises OSError if the file cannot be opened, or if another
    user has a hand in it. After a
    rotation the file is opened again.
    """
    path = Path(options.file) if options.file else None
    writer = _Writer(partial(_open_file, path), path)
    is_json = options.format == "json" or (options.format == "auto" and not options.file and not to_terminal)
    try:
        renders = (as_json_line, settled_as_json_lines) if is_json else (as_logfmt, settled_as_logfmt)
        yield Logbook(writer, RANKS[options.level], *renders)
    finally:
        writer.close()


def _open_file(path: Path | None) -> TextIO:
    if path is None:
        return sys.stderr
    if path.parts[:2] in _OF_THE_SYSTEM:
        return path.open("a", encoding="utf-8", errors="backslashreplace")
    make_safe_folder(path.parent, _FOLDER_MODE)
    file = open_own_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _FILE_MODE)
    return os.fdopen(file, "a", encoding="utf-8", errors="backslashreplace")
