"""Pure. What workers and relays do, as text for people: trouble, work, outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_never

from trio_worker.privacy import mask_text
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.telemetry.heartbeat import DepthLimit, Suspended, WorkerSeen
from trio_worker.telemetry.number_words import UNKNOWN, busy_of, counted, duration
from trio_worker.worker.breaker import Breaker, Closed, HalfOpen, Open
from trio_worker.worker.phase import Phase

if TYPE_CHECKING:
    from trio_worker.smtp.outcome import Loss, Trouble
    from trio_worker.telemetry.snapshot import Snapshot
    from trio_worker.worker.events import SettledJob

# What the relay does, to be read after "RELAY" or "The relay".
_TROUBLES: Mapping[FailureKind, str] = {
    FailureKind.CLOSING: "closes its connections",
    FailureKind.EOF: "closes the connection without a reply",
    FailureKind.RESET: "breaks the connection",
    FailureKind.TIMEOUT: "does not answer in time",
    FailureKind.AHEAD: "takes one mail at a time",
    FailureKind.GARBLED: "sends invalid replies",
    FailureKind.CANCELLED: "did not answer before the attempt was cancelled",
    FailureKind.RESOLVE: "has no address in DNS",
    FailureKind.CONNECT: "cannot be reached",
    FailureKind.TLS: "has no TLS that can be trusted",
    FailureKind.GREETING: "refuses the connection",
    FailureKind.LOGIN: "refuses the login",
    FailureKind.EXTENSION: "does not offer SMTPUTF8, which the sender needs",
    FailureKind.LOCAL: "cannot be reached: this machine is out of file descriptors",
    FailureKind.SESSION: "refuses the session",
    FailureKind.US: "refuses us as a client",
    FailureKind.STANDING: "takes no more mail of our account",
    FailureKind.RATE: "says that we send too fast",
    FailureKind.CONCURRENCY: "says that we have too many connections",
    FailureKind.GUARD: "refuses every mail alike",
}


def trouble_words(trouble: Trouble) -> str:
    """Return the trouble of a relay in words, with the codes of its reply, if any."""
    if trouble.reply is None:
        return _TROUBLES[trouble.how]
    if trouble.how is FailureKind.GARBLED:
        # A reply by itself: what is wrong is where it came.
        return f"answers out of step, with {trouble.reply.codes} at {trouble.stage.upper()}"
    return f"{_TROUBLES[trouble.how]} with {trouble.reply.codes}"


def trouble_quoted(trouble: Trouble) -> str:
    """Return the trouble of a relay in words, and its own text in brackets."""
    return f"{trouble_words(trouble)}{quoted(trouble)}"


def quoted(trouble: Trouble) -> str:
    """Return the text of a relay in brackets, or an empty string."""
    text = trouble.reply.text if trouble.reply is not None else trouble.reason
    return f" ({mask_text(text)})" if text else ""


def depth_limit_words(limit: DepthLimit, now: float) -> str:
    """Return for how long connections carry one mail at a time, and why; ``now`` in epoch seconds."""
    left = limit.until - now
    span = f" for {duration(left)} more" if left > 0 else ""
    return f"one mail at a time on each connection{span}: {mask_text(limit.why)}"


def deep_loss_words(loss: Loss) -> str:
    """Return how a relay lost mails behind an open outcome, and its own words in brackets."""
    said = mask_text(str(loss.reply or loss.reason))
    if loss.how is FailureKind.AHEAD:
        return f"the relay drops what is sent ahead of its answer ({said})"
    return f"a connection broke with several mails in flight ({said})"


def suspended_words(suspended: Suspended, most: int, now: float) -> str:
    """Return the number of suspended connections, for how long, and why; ``now`` in epoch seconds."""
    left = suspended.until - now
    span = f"for {duration(left)} more" if left > 0 else "until one can be opened"
    return f"{suspended.count:,} of {most:,} connections {span}: {mask_text(suspended.why)}"


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
    word = "" if cause is None or cause.word == "accepted" else cause.word
    codes = "" if cause is None else cause.codes
    again = f"again in {duration(settled.delay_seconds)}" if settled.delay_seconds > 0 else ""
    kind = " ".join(filter(None, ("uncertain" if settled.is_uncertain else "", codes, word)))
    head = ", ".join(filter(None, (kind, again)))
    text = "" if cause is None else mask_text(cause.text)
    return ": ".join(filter(None, (head, text))) or UNKNOWN


def worker_state(worker: WorkerSeen) -> str:
    """Return the state of a worker, in one word."""
    beat = worker.beat
    if worker.is_lost:
        return "LOST"
    if beat.phase is not Phase.RUNNING:
        return str(beat.phase)
    if beat.trouble:
        return "NO RELAY"
    return "quiet" if beat.is_quiet else "running"
