"""Pure. How figures are worded for people: counts, rates, durations, and trouble in plain words.

Everywhere: ``-`` is unknown, ``0`` is zero, ``~`` marks an estimate, and no duration is negative.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import Enum
from typing import assert_never

from attrs import frozen

from trio_worker.breaker import Breaker, Closed, HalfOpen, Open
from trio_worker.events import Phase, SettledJob
from trio_worker.heartbeat import Suspended
from trio_worker.outcome import How, Trouble
from trio_worker.privacy import mask_text
from trio_worker.snapshot import Scope, Snapshot

UNKNOWN = "-"
# A slope within one percent of what is sent is noise of the measurement, and so is a job every twenty seconds.
_LEVEL_SHARE = 0.01
_LEVEL_PER_SECOND = 0.05

# The longest duration that fits six characters; it is 273 years.
_LONGEST_SECONDS = 99_999 * 86_400.0

# What the relay does or is, to be read after the word RELAY.
_TROUBLES: Mapping[How, str] = {
    How.CLOSING: "closes its connections",
    How.EOF: "hangs up without a word",
    How.RESET: "the connection breaks",
    How.TIMEOUT: "does not answer in time",
    How.GARBLED: "sends replies that make no sense",
    How.CANCELLED: "the attempt was given up",
    How.RESOLVE: "its name has no address",
    How.CONNECT: "cannot be reached",
    How.TLS: "no encryption that can be trusted",
    How.GREETING: "greets with a refusal",
    How.LOGIN: "refuses the login",
    How.LOCAL: "this machine is out of file descriptors",
}


class Severity(Enum):
    """How loud a state or an alert is; the colour follows it, the word says it too."""

    CALM = "calm"
    CAUTION = "caution"
    TROUBLE = "trouble"


@frozen
class State:
    """What the worker is doing, in at most eight letters."""

    word: str
    severity: Severity


@frozen
class Alert:
    """One thing an operator should know now: a word to look up and a sentence."""

    word: str
    text: str
    severity: Severity


@frozen
class Outlook:
    """Where the waiting list is heading: a sign of one character and words."""

    sign: str
    words: str


def count(number: int | None, room: int = 26) -> str:
    """Return a count with thousands set apart; where it exceeds ``room``, in whole k, M, G or T."""
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
    """Return a count with its noun: ``1 job``, ``2 jobs``; ``many`` where an s is not enough."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def paused_words(reason: str, at: float, seconds_left: float | None) -> str:
    """Return why a queue is paused, by whom, and until when; ``at`` is the time of the look in epoch seconds."""
    if seconds_left is None:
        return f"{reason}, until it is resumed"
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at + seconds_left))
    return f"{reason}, until {ends} ({duration(seconds_left)} more)"


def per_second(rate: float, room: int = 26) -> str:
    """Return a rate: one decimal below ten, whole above."""
    if round(rate, 1) < 10:
        return f"{max(0.0, rate):.1f}"
    return count(round(rate), room)


def duration(seconds: float | None, *, is_estimate: bool = False) -> str:
    """Return a duration in at most six characters, seven with the ``~`` of an estimate; two units at the most."""
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
    """Return how long ago something was, in whole seconds: ``3s``, ``12m05s``."""
    return f"{max(0, int(seconds))}s" if seconds < 60 else duration(seconds)


def clock(epoch_seconds: float) -> str:
    """Return a time of day in UTC: ``12:04:31``."""
    return time.strftime("%H:%M:%S", time.gmtime(epoch_seconds))


def is_stale(snapshot: Snapshot) -> bool:
    """Whether the figures of the queue are older than they should be."""
    is_old = snapshot.queue_seen_seconds is not None and snapshot.queue_seen_seconds > snapshot.stale_after_seconds
    return snapshot.redis_down_seconds is not None or is_old


def state(snapshot: Snapshot) -> State:
    """Return the word for what the worker is doing; a running worker that cannot work says what keeps it."""
    match snapshot.phase:
        case Phase.STARTING:
            return State("STARTING", Severity.CAUTION)
        case Phase.DRAINING:
            return State("DRAINING", Severity.CAUTION)
        case Phase.STOPPED:
            return State("STOPPED", Severity.CAUTION)
        case Phase.RUNNING:
            return _running_state(snapshot)
        case _:
            assert_never(snapshot.phase)


def _running_state(snapshot: Snapshot) -> State:
    if is_stale(snapshot):
        return State("STALE", Severity.TROUBLE)
    if not isinstance(snapshot.breaker, Closed) or _no_worker_has_relay(snapshot):
        return State("NO RELAY", Severity.TROUBLE)
    if snapshot.queue is not None and snapshot.queue.paused:
        return State("PAUSED", Severity.CAUTION)
    if snapshot.is_quiet:
        return State("QUIET", Severity.CAUTION)
    return State("RUNNING", Severity.CALM)


def _no_worker_has_relay(snapshot: Snapshot) -> bool:
    """Whether all workers that are shown together have trouble with the relay."""
    live = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    return snapshot.scope is Scope.FLEET and bool(live) and all(beat.trouble for beat in live)


def outlook(snapshot: Snapshot) -> Outlook:
    """Return where the waiting list is heading, and when it will be empty if it shrinks."""
    slope, queue = snapshot.waiting_slope, snapshot.queue
    if slope is None or queue is None:
        return Outlook(" ", "")
    level = max(snapshot.rates.sent * _LEVEL_SHARE, _LEVEL_PER_SECOND)
    if not queue.waiting:
        return Outlook("=", "empty")
    if slope > level:
        return Outlook("▲", f"behind: growing +{per_second(slope)}/s")
    if slope < -level:
        return Outlook("▼", f"empty in {duration(queue.waiting / -slope)}")
    return Outlook("=", "keeping up")


def alerts(snapshot: Snapshot) -> list[Alert]:
    """Return what an operator should know now, most urgent first; empty when all is well."""
    found = [
        _redis_alert(snapshot),
        _journal_alert(snapshot),
        _relay_alert(snapshot),
        _suspended_alert(snapshot),
        _phase_alert(snapshot),
        _paused_alert(snapshot),
        _quiet_alert(snapshot),
        *_worker_alerts(snapshot),
    ]
    return [alert for alert in found if alert is not None]


def _redis_alert(snapshot: Snapshot) -> Alert | None:
    if not is_stale(snapshot):
        return None
    down, seen = snapshot.redis_down_seconds, snapshot.queue_seen_seconds
    age = f"queue figures are {duration(seen)} old" if seen is not None else "the queue was never seen"
    if down is None:
        return Alert("STALE", age, Severity.TROUBLE)
    what = f" ({mask_text(snapshot.redis_trouble)})" if snapshot.redis_trouble else ""
    return Alert("REDIS", f"no answer for {duration(down)}; {age}{what}", Severity.TROUBLE)


def _journal_alert(snapshot: Snapshot) -> Alert | None:
    if not snapshot.journal_trouble:
        return None
    what = f"cannot be written ({snapshot.journal_trouble}): nothing is sent until Redis answers"
    return Alert("JOURNAL", what, Severity.TROUBLE)


def _relay_alert(snapshot: Snapshot) -> Alert | None:
    match snapshot.breaker:
        case Closed():
            return None
        case Open(trouble=trouble, failures=failures):
            probe = f"next probe in {duration(snapshot.breaker_seconds)}, {_times(failures)} failed"
            return Alert("RELAY", f"{trouble_words(trouble)}; {probe}{_quote(trouble)}", Severity.TROUBLE)
        case HalfOpen(before):
            probe = f"probing with one mail, {_times(before.failures)} failed"
            return Alert("RELAY", f"{trouble_words(before.trouble)}; {probe}{_quote(before.trouble)}", Severity.TROUBLE)
        case _:
            assert_never(snapshot.breaker)


def _suspended_alert(snapshot: Snapshot) -> Alert | None:
    suspended = snapshot.suspended
    if suspended is None:
        return None
    severity = Severity.TROUBLE if suspended.how == How.LOGIN else Severity.CAUTION
    return Alert("SUSPENDED", suspended_words(suspended, snapshot.max_connections, snapshot.at), severity)


def _phase_alert(snapshot: Snapshot) -> Alert | None:
    why = snapshot.phase_why
    match snapshot.phase:
        case Phase.STARTING | Phase.RUNNING:
            return None
        case Phase.DRAINING:
            left = snapshot.grace_seconds_left
            grace = "" if left is None else f", {duration(left)} of grace left"
            return Alert("DRAIN", f"{why or 'stopping'}: {snapshot.in_hand:,} in hand{grace}", Severity.CAUTION)
        case Phase.STOPPED:
            return Alert("STOPPED", f"{why or 'done'}: {snapshot.in_hand:,} in hand", Severity.CAUTION)
        case _:
            assert_never(snapshot.phase)


def _paused_alert(snapshot: Snapshot) -> Alert | None:
    if snapshot.queue is None or not snapshot.queue.paused:
        return None
    left, age = snapshot.queue.pause_seconds_left, snapshot.queue_seen_seconds or 0.0
    # Before the reason, which may be long: a line that is cut still says when it ends.
    span = "" if left is None else f" for {duration(left - age)} more"
    return Alert("PAUSED", f"nothing is claimed{span}: {mask_text(snapshot.queue.paused)}", Severity.CAUTION)


def _quiet_alert(snapshot: Snapshot) -> Alert | None:
    if not snapshot.is_quiet:
        return None
    whose = "this worker claims" if snapshot.scope is Scope.WORKER else "all workers claim"
    return Alert("QUIET", f"{whose} nothing until it is resumed", Severity.CAUTION)


def _worker_alerts(snapshot: Snapshot) -> list[Alert]:
    """Return what is wrong with single workers, or among them."""
    found = []
    lost = [worker.beat.worker for worker in snapshot.workers if worker.is_lost]
    live = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    if lost:
        found.append(Alert("LOST", f"no heartbeat from {_names(lost)}: its leases run out", Severity.TROUBLE))
    troubled = [beat for beat in live if beat.trouble]
    if troubled and snapshot.scope is Scope.FLEET:
        what = f"{len(troubled):,} of {len(live):,} workers: {troubled[0].trouble}"
        found.append(Alert("RELAY", what, Severity.TROUBLE))
    versions = sorted({beat.version for beat in live})
    if len(versions) > 1:
        found.append(Alert("VERSIONS", f"workers differ: {', '.join(versions)}", Severity.CAUTION))
    configs = {beat.config for beat in live if beat.config}
    if len(configs) > 1:
        found.append(Alert("SETTINGS", f"workers have {len(configs):,} different ones", Severity.CAUTION))
    return found


def _names(names: list[str]) -> str:
    more = len(names) - 2
    return ", ".join(names[:2]) + (f" and {more:,} more" if more > 0 else "")


# Heartbeats ask Redis every two seconds; two in a row that get no answer are its trouble, not chance.
ANSWERED_SECONDS = 5.0


def readiness(snapshot: Snapshot, answered_seconds: float) -> tuple[bool, dict[str, object]]:
    """Return whether the worker can take jobs, and what else somebody who asks should know.

    ``answered_seconds`` is how long ago Redis answered anything.
    A paused queue, a relay in trouble and a worker that is told to be quiet leave it ready: restarting mends none.
    """
    is_ready = (
        snapshot.phase is Phase.RUNNING and answered_seconds <= ANSWERED_SECONDS and snapshot.redis_down_seconds is None
    )
    troubles = [f"{alert.word.lower()}: {alert.text}" for alert in alerts(snapshot)]
    return is_ready, {
        "ready": is_ready,
        "degraded": bool(troubles),
        "state": state(snapshot).word.lower(),
        "alerts": troubles,
        "in_hand": snapshot.in_hand,
    }


def memory(size_bytes: int | None) -> str:
    """Return an amount of memory in whole megabytes."""
    return UNKNOWN if size_bytes is None else f"{size_bytes / 1e6:,.0f}MB"


def share(part: float | None) -> str:
    """Return a part of one in whole percent."""
    return UNKNOWN if part is None else f"{part:.0%}"


def trouble_words(trouble: Trouble) -> str:
    """Return a relay's trouble in plain words, with the codes of its reply if it gave one."""
    if trouble.reply is None:
        return _TROUBLES[trouble.how]
    # A relay that answers can be reached: at MAIL it may still refuse whoever we are.
    words = "refuses the session" if trouble.how is How.CONNECT else _TROUBLES[trouble.how]
    return f"{words} with {trouble.reply.codes}"


def trouble_said(trouble: Trouble) -> str:
    """Return a relay's trouble in plain words, and its own words."""
    return f"{trouble_words(trouble)}{_quote(trouble)}"


def _quote(trouble: Trouble) -> str:
    said = trouble.reply.text if trouble.reply is not None else trouble.what
    return f" ({mask_text(said)})" if said else ""


def _times(failures: int) -> str:
    return f"{failures:,} {'try' if failures == 1 else 'tries'}"


def suspended_words(suspended: Suspended, most: int, now: float) -> str:
    """Return how many of the ``most`` connections are done without, for how long, and why; ``now`` in epoch seconds."""
    left = suspended.until - now
    span = f"for {duration(left)} more" if left > 0 else "until one can be opened"
    return f"{suspended.count:,} of {most:,} connections {span}: {mask_text(suspended.why)}"


def busy_of(busy: int | None, consumers: int, room: int = 26) -> str:
    """Return how many consumers have a job, of how many; a version that does not tell had none."""
    return UNKNOWN if busy is None else f"{count(busy, room)}/{count(consumers, room)}"


def work_words(snapshot: Snapshot) -> tuple[str, str]:
    """Return how many consumers have a job, and how many mails they have on their way."""
    busy = busy_of(snapshot.busy_consumers, snapshot.number_workers)
    mails = snapshot.mails_in_flight
    in_flight = f"{UNKNOWN} mails" if mails is None else counted(mails, "mail")
    return f"consumers busy {busy}", f"{in_flight} in flight"


def breaker_words(breaker: Breaker) -> str:
    """Return the breaker's state as the field names it."""
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
    """Return the masked recipient, or how many there are."""
    match settled.recipients:
        case ():
            return UNKNOWN
        case (only,):
            return only
        case several:
            return f"{len(several):,} recipients"


def reason_words(settled: SettledJob) -> str:
    """Return why a job left as it did: codes, word, when it comes again, and what was said."""
    cause = settled.cause
    words = "" if cause is None or cause.word == "accepted" else cause.word.replace("_", " ")
    codes = "" if cause is None else cause.codes
    again = f"again in {duration(settled.delay_seconds)}" if settled.delay_seconds > 0 else ""
    what = " ".join(filter(None, ("uncertain" if settled.is_uncertain else "", codes, words)))
    head = ", ".join(filter(None, (what, again)))
    text = "" if cause is None else mask_text(cause.text)
    return ": ".join(filter(None, (head, text))) or UNKNOWN
