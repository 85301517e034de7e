"""Pure. Figures as text for people: counts, rates, durations, and the trouble of a relay.

Everywhere: ``-`` is unknown, ``0`` is zero, ``~`` marks an estimate, and no duration is negative.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import assert_never

from trio_worker.privacy import mask_text
from trio_worker.smtp.outcome import FailureKind, Trouble
from trio_worker.telemetry.heartbeat import Suspended
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.worker.breaker import Breaker, Closed, HalfOpen, Open
from trio_worker.worker.events import SettledJob

UNKNOWN = "-"

# The longest duration that fits six characters; it is 273 years.
_LONGEST_SECONDS = 99_999 * 86_400.0

# What the relay does, to be read after "RELAY" or "The relay".
_TROUBLES: Mapping[FailureKind, str] = {
    FailureKind.CLOSING: "closes its connections",
    FailureKind.EOF: "closes the connection without a reply",
    FailureKind.RESET: "breaks the connection",
    FailureKind.TIMEOUT: "does not answer in time",
    FailureKind.GARBLED: "sends invalid replies",
    FailureKind.CANCELLED: "did not answer before the attempt was cancelled",
    FailureKind.RESOLVE: "has no address in DNS",
    FailureKind.CONNECT: "cannot be reached",
    FailureKind.TLS: "has no TLS that can be trusted",
    FailureKind.GREETING: "refuses the connection",
    FailureKind.LOGIN: "refuses the login",
    FailureKind.LOCAL: "cannot be reached: this machine is out of file descriptors",
}


def count(number: int | None, room: int = 26) -> str:
    """Return a count with thousands separators; if longer than ``room``, in whole k, M, G or T."""
    if number is None:
        return UNKNOWN
    text = f"{number:,}"
    for unit in "kMGT":
        if len(text) <= room:
            return text
        number //= 1000
        text = f"{number:,}{unit}"
    return text


def counted(number: int, one: str, many: str = "") -> str:
    """Return a count with its noun: ``1 job``, ``2 jobs``; ``many`` is the plural if it is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def paused_words(reason: str, at: float, seconds_left: float | None) -> str:
    """Return why a queue is paused, by whom, and until when; ``at`` is the time of the poll in epoch seconds."""
    if seconds_left is None:
        return f"{reason}, until it is resumed"
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at + seconds_left))
    return f"{reason}, until {ends} ({duration(seconds_left)} more)"


def per_second(rate: float, room: int = 26) -> str:
    """Return a rate, with one decimal below ten, else as a whole number."""
    if round(rate, 1) < 10:
        return f"{max(0.0, rate):.1f}"
    return count(round(rate), room)


def duration(seconds: float | None, *, is_estimate: bool = False) -> str:
    """Return a duration in at most two units and six characters; seven with the ``~`` of an estimate."""
    if seconds is None:
        return UNKNOWN
    return ("~" if is_estimate else "") + _duration(min(max(0.0, seconds), _LONGEST_SECONDS))


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "0s"
    milliseconds = seconds * 1000
    if round(milliseconds, 1) < 10:
        return f"{milliseconds:.1f}ms"
    if round(milliseconds) < 1000:
        return f"{milliseconds:.0f}ms"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    days = whole // 86400
    return f"{days}d{whole % 86400 // 3600:02}h" if days < 100 else f"{days}d"


def ago(seconds: float) -> str:
    """Return the time since an event, in whole seconds: ``3s``, ``12m05s``."""
    return f"{max(0, int(seconds))}s" if seconds < 60 else duration(seconds)


def clock(epoch_seconds: float) -> str:
    """Return a time of day in UTC: ``12:04:31``."""
    return time.strftime("%H:%M:%S", time.gmtime(epoch_seconds))


def memory(size_bytes: int | None) -> str:
    """Return an amount of memory in whole megabytes."""
    return UNKNOWN if size_bytes is None else f"{size_bytes / 1e6:,.0f}MB"


def share(part: float | None) -> str:
    """Return a fraction in whole percent."""
    return UNKNOWN if part is None else f"{part:.0%}"


def trouble_words(trouble: Trouble) -> str:
    """Return the trouble of a relay in words, with the codes of its reply, if any."""
    if trouble.reply is None:
        return _TROUBLES[trouble.how]
    # A relay that answers can be reached, but may refuse the session at MAIL.
    words = "refuses the session" if trouble.how is FailureKind.CONNECT else _TROUBLES[trouble.how]
    return f"{words} with {trouble.reply.codes}"


def trouble_quoted(trouble: Trouble) -> str:
    """Return the trouble of a relay in words, and its own text in brackets."""
    return f"{trouble_words(trouble)}{quoted(trouble)}"


def quoted(trouble: Trouble) -> str:
    """Return the text of a relay in brackets, or an empty string."""
    text = trouble.reply.text if trouble.reply is not None else trouble.reason
    return f" ({mask_text(text)})" if text else ""


def suspended_words(suspended: Suspended, most: int, now: float) -> str:
    """Return the number of suspended connections, for how long, and why; ``now`` in epoch seconds."""
    left = suspended.until - now
    span = f"for {duration(left)} more" if left > 0 else "until one can be opened"
    return f"{suspended.count:,} of {most:,} connections {span}: {mask_text(suspended.why)}"


def busy_of(busy: int | None, consumers: int, room: int = 26) -> str:
    """Return the busy consumers and all consumers; older versions do not send the first."""
    return UNKNOWN if busy is None else f"{count(busy, room)}/{count(consumers, room)}"


def work_words(snapshot: Snapshot) -> tuple[str, str]:
    """Return the texts about busy consumers and about mails in flight."""
    busy = busy_of(snapshot.busy_consumers, snapshot.number_workers)
    mails = snapshot.mails_in_flight
    in_flight = f"{UNKNOWN} mails" if mails is None else counted(mails, "mail")
    return f"consumers busy {busy}", f"{in_flight} in flight"


def breaker_words(breaker: Breaker) -> str:
    """Return the state of the circuit breaker, in the usual words."""
    match breaker:
        case Closed():
            return "breaker closed"
        case Open():
            return "breaker OPEN"
        case HalfOpen():
            return "breaker HALF-OPEN"
        case _:
            assert_never(breaker)


def recipients_words(settled: SettledJob) -> str:
    """Return the masked recipient, or the number of recipients."""
    match settled.recipients:
        case ():
            return UNKNOWN
        case (only,):
            return only
        case several:
            return f"{len(several):,} recipients"


def reason_words(settled: SettledJob) -> str:
    """Return the reason of an outcome: reply codes, cause, time of the next attempt, and the text of the reply."""
    cause = settled.cause
    word = "" if cause is None or cause.word == "accepted" else cause.word.replace("_", " ")
    codes = "" if cause is None else cause.codes
    again = f"again in {duration(settled.delay_seconds)}" if settled.delay_seconds > 0 else ""
    kind = " ".join(filter(None, ("uncertain" if settled.is_uncertain else "", codes, word)))
    head = ", ".join(filter(None, (kind, again)))
    text = "" if cause is None else mask_text(cause.text)
    return ": ".join(filter(None, (head, text))) or UNKNOWN
