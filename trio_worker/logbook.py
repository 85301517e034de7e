"""Edge. The worker's log: events become lines, and a thread of its own writes them.

A disk that is slow, full or gone costs lines, which are counted, never mail.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueListener, WatchedFileHandler
from pathlib import Path
from queue import Full, Queue
from typing import Any, TypeAlias, assert_never

import structlog
from attrs import define, frozen

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
    RedisFailed,
    RedisRecovered,
    RedisWeak,
    Settled,
    SettlementsKept,
)
from trio_worker.option import option
from trio_worker.outcome import Trouble
from trio_worker.privacy import mask_text

# Lines that may wait for the disk; at a thousand mails a second that is ten seconds of it.
LINES_WAITING = 10_000


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
        fields["cause"] = mask_text(str(event.cause))
    return fields


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
    _handler: _CountingQueueHandler

    @property
    def lost_lines(self) -> int:
        """Lines that found the disk too slow or gone."""
        return self._handler.lost

    def note(self, event: Event) -> None:
        line = line_of(event)
        if line is not None:
            level, what, fields = line
            self._logger.log(_LEVELS[level], what, **fields)


class _CountingQueueHandler(logging.Handler):
    """Hands rendered lines to the writer's thread; what finds no room is counted."""

    def __init__(self, lines: Queue[Any]) -> None:
        super().__init__()
        self._lines = lines
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(record)
        except Full:
            self.lost += 1


@contextmanager
def open_logbook(options: LogOptions, *, to_terminal: bool) -> Iterator[Logbook]:
    """Open the log for the block and write out what waits at its end.

    ``to_terminal`` tells that standard error is read by a person. Raises OSError when the file cannot be opened. A file
    that was rotated away is opened anew.
    """
    lines: Queue[Any] = Queue(LINES_WAITING)
    into = _CountingQueueHandler(lines)
    writer: logging.Handler = logging.StreamHandler(sys.stderr)
    if options.file:
        Path(options.file).parent.mkdir(parents=True, exist_ok=True)
        writer = WatchedFileHandler(options.file, encoding="utf-8", errors="backslashreplace")
    setattr(writer, "handleError", lambda _record: _count_lost(into))  # its documented hook  # noqa: B010
    logger = logging.Logger("trio_worker", _LEVELS[options.level])  # noqa: LOG001  ours alone, not in the tree
    logger.addHandler(into)
    as_json = options.format == "json" or (options.format == "auto" and not options.file and not to_terminal)
    listener = QueueListener(lines, writer)
    listener.start()
    try:
        yield Logbook(_structured(logger, as_json=as_json), into)
    finally:
        listener.stop()
        # A full disk refuses here what it refused before: the lines are counted already.
        with suppress(OSError):
            writer.close()


def _count_lost(handler: _CountingQueueHandler) -> None:
    handler.lost += 1


def _structured(logger: logging.Logger, *, as_json: bool) -> Any:
    renderer = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    )
    return structlog.wrap_logger(
        logger,
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.EventRenamer("event"),
            renderer,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
