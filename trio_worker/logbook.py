"""Edge. The worker's log: events become lines, and a thread of its own writes them.

A disk that is slow, full or gone costs lines, which are counted, never mail.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TextIO, TypeAlias, assert_never

import structlog
from attrs import define, field, frozen

from trio_worker.breaker import Closed, HalfOpen, Open
from trio_worker.events import (
    BreakerChanged,
    Claimed,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    Disposition,
    Event,
    JobBroke,
    JournalFailed,
    JournalReplayed,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    PhaseChanged,
    QueuePaused,
    QueueSeen,
    QuietChanged,
    RedisFailed,
    RedisRecovered,
    RedisWeak,
    Settled,
    SettlementsKept,
)
from trio_worker.option import option
from trio_worker.outcome import Trouble
from trio_worker.privacy import mask_text
from trio_worker.record import Cause

# Lines that may wait for the disk; at a thousand mails a second that is ten seconds of it.
LINES_WAITING = 10_000
# Under load lines are written together; a person who follows the file does not see so little.
_GATHER_SECONDS = 0.02


@frozen
class LogOptions:
    """Where the log goes and how much of it (config section ``[log]``)."""

    file: str = option("logs/worker.log", "File of the log; empty for standard error.")
    level: str = option("info", "Least level that is written.", choices=("debug", "info", "warning", "error"))
    format: str = option(
        "auto",
        "Lines for people (console) or JSON; auto: console in a file and on a terminal, else JSON.",
        choices=("auto", "console", "json"),
    )


# Level, what happened, and its fields; None for what the log does not tell.
Line: TypeAlias = tuple[str, str, dict[str, Any]] | None

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SETTLED_LINES = {
    Disposition.SENT: ("info", "Completed job"),
    Disposition.DELAYED: ("info", "Delayed job"),
    Disposition.DEAD: ("warning", "Buried job"),
    Disposition.HELD: ("warning", "Held job"),
    Disposition.RELEASED: ("info", "Released job"),
    Disposition.FENCED: ("warning", "Fenced job"),
    Disposition.UNSETTLED: ("error", "Unsettled job"),
}


def line_of(event: Event) -> Line:
    """Return the one line that an event is told by."""
    match event:
        case Settled():
            return *_SETTLED_LINES[event.disposition], _settled_fields(event)
        case Claimed(job_id, source, deliveries):
            return "debug", "Claimed job", {"job_id": job_id, "source": str(source), "deliveries": deliveries}
        case PhaseChanged(phase, why):
            return "info", f"Worker {phase}", {"why": why} if why else {}
        case QuietChanged(is_quiet, why):
            return "info", "Worker quiet" if is_quiet else "Worker claims again", {"why": why} if why else {}
        case LeasesRecovered(count, crashed, held, too_large):
            figures = {"recovered": count, "crashed": crashed, "held": held, "too_large": too_large}
            return "warning", "Leases ran out or jobs were set aside", {k: v for k, v in figures.items() if v}
        case LeaseLost(job_id):
            return "warning", "Lost the lease of a job", {"job_id": job_id}
        case ConnectionOpened():
            fields = {"connection": event.connection_id, "seconds": _rounded(event.seconds), "tls": event.tls or "none"}
            return "info", "Connection opened", fields | {"offers": " ".join(event.capabilities.keywords)}
        case ConnectionFailed(trouble, ceiling):
            return "warning", "Connection failed", _trouble_fields(trouble) | ({"ceiling": ceiling} if ceiling else {})
        case ConnectionClosed(connection_id, why, delivered, age_seconds):
            fields = {"connection": connection_id, "why": mask_text(why), "delivered": delivered}
            return "info", "Connection closed", fields | {"age": _rounded(age_seconds)}
        case BreakerChanged(breaker):
            return _breaker_line(breaker)
        case QueuePaused(why):
            return ("warning", "Queue paused", {"why": why}) if why else ("info", "Queue resumed", {})
        case QueueSeen():
            return None
        case RedisFailed(doing, what):
            return "warning", "Redis failed", {"doing": doing, "what": what}
        case RedisRecovered(after_seconds):
            return "info", "Redis answers again", {"after": _rounded(after_seconds)}
        case RedisWeak(weakness):
            fields = {"what": weakness.what, "promise": weakness.promise, "advice": weakness.advice}
            return ("error" if weakness.breaks else "warning"), "Redis weakens a promise", fields
        case SettlementsKept(count):
            return "warning", "Redis took no settlements: journal written", {"settlements": count}
        case JournalFailed(what):
            return "error", "Journal failed: nothing is sent while Redis is away", {"what": what}
        case JournalReplayed(settled, refused):
            return "warning", "Journal of a process that is gone replayed", {"settled": settled, "refused": refused}
        case JobBroke(job_id, places):
            return "error", "Handling a job raised", {"job_id": job_id, "traceback": places}
        case LoopComplained(what):
            return "error", "The asyncio loop complained", {"what": what}
        case _:
            assert_never(event)


def _settled_fields(event: Settled) -> dict[str, Any]:
    fields: dict[str, Any] = {"job_id": event.job_id, "email_type": event.email_type or "-", "attempt": event.attempt}
    if event.waited_seconds is not None:
        fields["wait"] = ("~" if event.is_estimate else "") + f"{event.waited_seconds:.3f}"
    if event.smtp_seconds is not None:
        fields["smtp"] = _rounded(event.smtp_seconds)
    fields["total"] = _rounded(event.total_seconds)
    if event.recipients:
        fields["rcpt"] = event.recipients[0] if len(event.recipients) == 1 else f"{len(event.recipients)} recipients"
    if event.connection_id is not None:
        fields["connection"] = event.connection_id
    if event.delay_seconds:
        fields["again_in"] = _rounded(event.delay_seconds)
    if event.cause is not None:
        fields["cause"] = _cause_words(event.cause)
    return fields


@lru_cache(256)
def _cause_words(cause: Cause) -> str:
    """Return what a cause says, masked; nearly all of them say the same."""
    return mask_text(str(cause))


def _trouble_fields(trouble: Trouble) -> dict[str, Any]:
    return {"how": str(trouble.how), "stage": str(trouble.stage), "what": mask_text(str(trouble.reply or trouble.what))}


def _breaker_line(breaker: Closed | Open | HalfOpen) -> Line:
    match breaker:
        case Closed():
            return "info", "Relay works: claiming freely", {}
        case Open(trouble=trouble, failures=failures):
            return "warning", "Relay in trouble: claiming stopped", _trouble_fields(trouble) | {"failures": failures}
        case HalfOpen():
            return "info", "Relay probed with one mail", {}
        case _:
            assert_never(breaker)


def _rounded(seconds: float) -> float:
    return round(seconds, 4)


@define
class Logbook:
    """Writes events as lines; `note` never blocks and never raises."""

    _logger: Any
    _writer: _Writer
    _level: int
    told: dict[str, int] = field(factory=lambda: dict.fromkeys(_LEVELS, 0))  # lines by level

    @property
    def lost_lines(self) -> int:
        """Lines that found the disk too slow or gone."""
        return self._writer.lost

    def audit(self, what: str, fields: Mapping[str, str]) -> None:
        """Write what a person did or was shown, whatever the level."""
        self.told["error"] += 1
        self._logger.error(what, **fields)

    def note(self, event: Event) -> None:
        if isinstance(event, Claimed) and self._level > logging.DEBUG:
            return  # there is one for each mail: not even its line is made
        line = line_of(event)
        if line is not None:
            level, what, fields = line
            self.told[level] += _LEVELS[level] >= self._level
            self._logger.log(_LEVELS[level], what, **fields)


@define(eq=False)
class _Writer:
    """A thread that writes whatever lines have gathered, and counts those that find no room or no disk.

    It is structlog's logger as well: what structlog has rendered is put in line.
    """

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

    def msg(self, line: str) -> None:
        """Put a rendered line in line; never blocks."""
        if len(self._lines) >= LINES_WAITING:
            self.lost += 1
            return
        self._lines.append(line)
        if not self._has_lines.is_set():
            self._has_lines.set()

    debug = info = warning = error = msg

    def close(self) -> None:
        """Write what waits, and end the thread."""
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
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
        except (OSError, ValueError):  # a closed standard error is a ValueError
            self.lost += len(lines)
            with suppress(OSError):
                self._release()
            with suppress(OSError):
                self._file = self._open()

    def _reopen_if_rotated(self) -> None:
        """Follow the name, not the file that once had it (logrotate moves it away)."""
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
    """Open the log for the block and write out what waits at its end.

    ``to_terminal`` tells that standard error is read by a person. Raises OSError when the file cannot be opened. A file
    that was rotated away is opened anew.
    """
    path = Path(options.file) if options.file else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    writer = _Writer(partial(_open_file, path), path)
    as_json = options.format == "json" or (options.format == "auto" and not options.file and not to_terminal)
    try:
        yield Logbook(_structured(writer, _LEVELS[options.level], as_json=as_json), writer, _LEVELS[options.level])
    finally:
        writer.close()


def _open_file(path: Path | None) -> TextIO:
    if path is None:
        return sys.stderr
    return path.open("a", encoding="utf-8", errors="backslashreplace")


def _structured(writer: _Writer, level: int, *, as_json: bool) -> Any:
    return structlog.wrap_logger(
        writer,
        processors=[
            _begun,
            structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else _as_logfmt,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )


# What logfmt writes without quotes: no space, no equals sign, no quote, no line end.
_PLAIN_WORD = re.compile(r"[^ =\"\n]*")


def _begun(_logger: object, level: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Begin a line with the time in UTC, its level and what happened."""
    second, fraction = divmod(time.time(), 1)
    stamp = f"{_second_words(int(second))}.{int(fraction * 1e6):06}Z"
    return {"timestamp": stamp, "level": level, "event": fields.pop("event"), **fields}


@lru_cache(4)
def _second_words(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _as_logfmt(_logger: object, _level: str, fields: MutableMapping[str, Any]) -> str:
    """Render a line as structlog's LogfmtRenderer does, which looks at every letter of every key: ours are known."""
    words = []
    for key, value in fields.items():
        is_number = type(value) is float or type(value) is int
        words.append(f"{key}={value}" if is_number else f"{key}={_logfmt_word(value)}")
    return " ".join(words)


def _logfmt_word(value: object) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if _PLAIN_WORD.fullmatch(text):
        return text
    if " " not in text and "=" not in text and '"' not in text:
        return text.replace("\n", "\\n")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
