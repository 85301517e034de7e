"""Pure. The log line of each event, in logfmt for people or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, assert_never

from trio_worker.privacy import mask_text
from trio_worker.queue.losses import LOSS_WORDS
from trio_worker.queue.record import Cause
from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    DepthLimited,
    DepthRestored,
    PlacesRestored,
    PlacesSuspended,
)
from trio_worker.smtp.outcome import Trouble
from trio_worker.telemetry.options import LEVELS
from trio_worker.worker.breaker import Closed, HalfOpen, Open
from trio_worker.worker.events import (
    BreakerChanged,
    Claimed,
    ClaimedJob,
    DataLost,
    Event,
    HeartbeatTroubled,
    JobBroke,
    JournalFailed,
    JournalReplayed,
    LeaseLost,
    LeasesRecovered,
    LoopComplained,
    PhaseChanged,
    QueuePaused,
    QuietChanged,
    RateLimited,
    RateLimitLifted,
    RedisFailed,
    RedisRecovered,
    RedisWeak,
    SettingsRead,
    Settled,
    SettledJob,
    SettlementsKept,
    WaitTroubled,
)
from trio_worker.worker.phase import Disposition
from trio_worker.worker.queue_seen import QueueSeen

RANKS = {level: rank for rank, level in enumerate(LEVELS)}

# Level, event and fields; None if the log has no line for an event.
Line: TypeAlias = tuple[str, str, dict[str, Any]] | None

# Level and event.
SETTLED_LINES = {
    Disposition.SENT: ("info", "Completed job"),
    Disposition.DELAYED: ("info", "Delayed job"),
    Disposition.DEAD: ("warning", "Buried job"),
    Disposition.HELD: ("warning", "Held job"),
    Disposition.RELEASED: ("info", "Released job"),
    Disposition.FENCED: ("warning", "Fenced job"),
    Disposition.GONE: ("error", "Gone job"),
    Disposition.UNSETTLED: ("error", "Unsettled job"),
}


def claimed_line(job: ClaimedJob) -> tuple[str, str, dict[str, Any]]:
    """Return the line of one claimed job."""
    job_id, source, deliveries = job
    return "debug", "Claimed job", {"job_id": job_id, "source": str(source), "deliveries": deliveries}


def settled_line(job: SettledJob) -> tuple[str, str, dict[str, Any]]:
    """Return the line of one settled job."""
    return *SETTLED_LINES[job.disposition], _settled_fields(job)


def line_of(event: Event) -> Line:
    """Return the line of an event; claims and settlements have a line for each job instead."""
    match event:
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
        case BreakerChanged() | RateLimited() | RateLimitLifted() | PlacesSuspended() | PlacesRestored():
            return _limit_line(event)
        case QueuePaused(why):
            return ("warning", "Queue paused", {"why": why}) if why else ("info", "Queue resumed", {})
        case DepthLimited() | DepthRestored():
            return _depth_line(event)
        case Claimed() | Settled() | QueueSeen():
            return None
        case RedisFailed() | RedisRecovered() | RedisWeak() | DataLost() | WaitTroubled() | HeartbeatTroubled():
            return _redis_line(event)
        case SettlementsKept(count):
            return "warning", "Redis took no settlements: journal written", {"settlements": count}
        case JournalFailed(reason):
            return "error", "Journal failed: nothing is sent while Redis is away", {"what": reason}
        case JournalReplayed(settled, refused):
            return "warning", "Journal of a process that is gone replayed", {"settled": settled, "refused": refused}
        case JobBroke(job_id, places):
            return "error", "Handling a job raised", {"job_id": job_id, "traceback": places}
        case SettingsRead(taken, waiting, faults):
            if faults:
                return "error", "Settings not taken", {"faults": "; ".join(faults)}
            fields = {"taken": "; ".join(taken) or "nothing"}
            return "info", "Settings read", fields | ({"after_a_new_start": "; ".join(waiting)} if waiting else {})
        case LoopComplained(complaint):
            return "error", "The asyncio loop complained", {"what": complaint}
        case _:
            assert_never(event)


def _redis_line(
    event: RedisFailed | RedisRecovered | RedisWeak | DataLost | WaitTroubled | HeartbeatTroubled,
) -> Line:
    match event:
        case RedisFailed(doing, reason):
            return "warning", "Redis failed", {"doing": doing, "what": reason}
        case RedisRecovered(after_seconds):
            return "info", "Redis answers again", {"after": _rounded(after_seconds)}
        case RedisWeak(risk):
            fields = {"what": risk.reason, "promise": risk.promise, "advice": risk.advice}
            return ("error" if risk.breaks else "warning"), "Redis weakens a promise", fields
        case DataLost(sign, count):
            return "error", "Redis lost data", {"sign": str(sign), "count": count, "what": LOSS_WORDS[sign]}
        case WaitTroubled(why, polls):
            if not why:
                return "info", "Waiting for jobs in Redis again", {}
            found = "Redis does not let us wait for jobs: polling" if polls else "Waits for jobs are shorter now"
            return "warning", found, {"what": why}
        case HeartbeatTroubled(why, is_heard):
            if not why:
                return "info", "Redis takes the heartbeat again", {}
            follows = "no orders reach this worker" if is_heard else "status and top do not show this worker"
            return "warning", f"Redis refuses the heartbeat: {follows}", {"what": why}
        case _:
            assert_never(event)


def _settled_fields(event: SettledJob) -> dict[str, Any]:
    fields: dict[str, Any] = {"job_id": event.job_id, "email_type": event.email_type or "-", "attempt": event.attempt}
    if event.waited_seconds is not None:
        fields["wait"] = ("~" if event.is_estimate else "") + f"{event.waited_seconds:.3f}"
    if event.smtp_seconds is not None:
        fields["smtp"] = _rounded(event.smtp_seconds)
    fields["total"] = _rounded(event.total_seconds)
    if event.recipients:
        fields["rcpt"] = _recipient_words(event.recipients)
    if event.connection_id is not None:
        fields["connection"] = event.connection_id
    if event.delay_seconds:
        fields["again_in"] = _rounded(event.delay_seconds)
    if event.cause is not None:
        fields["cause"] = _cause_words(event.cause)
    return fields


def _cause_words(cause: Cause) -> str:
    return mask_text(str(cause))


def _recipient_words(recipients: tuple[str, ...]) -> str:
    return recipients[0] if len(recipients) == 1 else f"{len(recipients)} recipients"


def _trouble_fields(trouble: Trouble) -> dict[str, Any]:
    return {
        "how": str(trouble.how),
        "stage": str(trouble.stage),
        "what": mask_text(str(trouble.reply or trouble.reason)),
    }


def _depth_line(event: DepthLimited | DepthRestored) -> Line:
    if isinstance(event, DepthRestored):
        return "info", "Connections carry several mails at a time again", {"pipeline_depth": event.depth}
    fields = {"what": mask_text(str(event.loss)), "again_in": _rounded(event.seconds)}
    return "warning", "One mail at a time on each connection", fields


def _limit_line(event: BreakerChanged | RateLimited | RateLimitLifted | PlacesSuspended | PlacesRestored) -> Line:
    """Return the line of an event that changes how much may go to the relay."""
    match event:
        case BreakerChanged(breaker):
            return _breaker_line(breaker)
        case RateLimited(trouble, seconds, per_second):
            fields = _trouble_fields(trouble) | {"again_in": _rounded(seconds), "per_second": round(per_second, 2)}
            return "warning", "Relay limits the rate: claiming slower", fields
        case RateLimitLifted():
            return "info", "Relay limits the rate no more: claiming freely", {}
        case PlacesSuspended(trouble, seconds):
            fields = _trouble_fields(trouble) | {"again_in": _rounded(seconds)}
            return "warning", "Connections suspended: no more can be opened though others work", fields
        case PlacesRestored(count):
            return "info", "Suspended connections may be opened again", {"count": count}
        case _:
            assert_never(event)


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


# Arguments: the time in epoch seconds, level, event and fields.
Render: TypeAlias = Callable[[float, str, str, Mapping[str, object]], str]
# Arguments: the time in epoch seconds, and the settled jobs.
RenderSettled: TypeAlias = Callable[[float, Sequence[SettledJob]], list[str]]


def as_logfmt(at: float, level: str, message: str, fields: Mapping[str, object]) -> str:
    """Return a line of ``key=value`` pairs, as structlog writes it."""
    pairs = [f"timestamp={_stamp(at)} level={level} event={_quoted(message)}"]
    for key, value in fields.items():
        if isinstance(value, str):
            pairs.append(f"{key}={_word(value)}")
        elif type(value) is float or type(value) is int:
            pairs.append(f"{key}={value}")
        else:
            pairs.append(f"{key}={_logfmt_word(value)}")
    return " ".join(pairs)


def settled_as_logfmt(at: float, jobs: Sequence[SettledJob]) -> list[str]:
    """Return the lines of settled jobs as `as_logfmt` does, in half the time: there is one for each mail."""
    stamp, lines = _stamp(at), []
    for job in jobs:
        job_id, email_type = job.job_id, job.email_type or "-"
        line = f"timestamp={stamp}{_SETTLED_HEADS[job.disposition]}"
        # The common case: names and ids need no quotes.
        line += f" job_id={job_id if job_id.isalnum() else _quoted(job_id)}"
        line += f" email_type={email_type if email_type.isalnum() else _quoted(email_type)} attempt={job.attempt}"
        if job.waited_seconds is not None:
            line += f" wait={'~' if job.is_estimate else ''}{job.waited_seconds:.3f}"
        if job.smtp_seconds is not None:
            line += f" smtp={_four_places(job.smtp_seconds)}"
        line += f" total={_four_places(job.total_seconds)}"
        if job.recipients:
            line += f" rcpt={_quoted(_recipient_words(job.recipients))}"
        if job.connection_id is not None:
            line += f" connection={job.connection_id}"
        if job.delay_seconds:
            line += f" again_in={_four_places(job.delay_seconds)}"
        if job.cause is not None:
            line += _cause_field(job.cause)
        lines.append(line)
    return lines


_SETTLED_HEADS = {
    disposition: f' level={level} event="{message}"' for disposition, (level, message) in SETTLED_LINES.items()
}


@lru_cache(256)
def _cause_field(cause: Cause) -> str:
    """Return the last field of the line of a settlement; it is cached, because nearly all are equal."""
    return f" cause={_word(_cause_words(cause))}"


def settled_as_json_lines(at: float, jobs: Sequence[SettledJob]) -> list[str]:
    """Return the lines of settled jobs as JSON objects."""
    return [as_json_line(at, *settled_line(job)) for job in jobs]


def as_json_line(at: float, level: str, message: str, fields: Mapping[str, object]) -> str:
    """Return a line that is a JSON object."""
    return json.dumps({"timestamp": _stamp(at), "level": level, "event": message, **fields}, ensure_ascii=False)


def _stamp(at: float) -> str:
    second, fraction = divmod(at, 1)
    # `zfill` takes half the time of a format with a width.
    return f"{_second_words(int(second))}.{str(int(fraction * 1e6)).zfill(6)}Z"


@lru_cache(4)
def _second_words(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _logfmt_word(value: object) -> str:
    return _quoted("" if value is None else str(value).lower() if isinstance(value, bool) else str(value))


def _four_places(seconds: float) -> str:
    """Return ``str(round(seconds, 4))`` in half the time, for less than a thousand years."""
    text = f"{seconds:.4f}".rstrip("0")
    return f"{text}0" if text[-1] == "." else text


def _word(text: str) -> str:
    # The common case: names and ids need no quotes.
    return text if text.isalnum() else _quoted(text)


def _quoted(text: str) -> str:
    """Return a text as a value of logfmt; with a space, an equals sign or a quote it is quoted."""
    if " " not in text and "=" not in text and '"' not in text:
        return text.replace("\n", "\\n")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
