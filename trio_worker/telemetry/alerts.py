"""Pure. The state and the alerts of a snapshot: what is wrong now, and how severe it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from typing import assert_never

from trio_worker.privacy import mask_text
from trio_worker.queue.losses import LOSS_WORDS, LostData
from trio_worker.records import frozen
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.telemetry.heartbeat import Heartbeat
from trio_worker.telemetry.notice import REFUSED_WORD, Notice
from trio_worker.telemetry.number_words import counted, duration
from trio_worker.telemetry.snapshot import Scope, Snapshot
from trio_worker.telemetry.words import depth_limit_words, quoted, suspended_words, trouble_words
from trio_worker.worker.breaker import Closed, HalfOpen, Open
from trio_worker.worker.phase import Phase

# Heartbeats call Redis every two seconds; if two in a row get no answer, Redis is in trouble.
ANSWERED_SECONDS = 5.0
# So long a loss of data stands before all that may come after it.
FRESH_LOSS_SECONDS = 600.0


class Severity(Enum):
    """Severity of a state or an alert; the colour follows it, and the word says it too."""

    CALM = "calm"
    CAUTION = "caution"
    TROUBLE = "trouble"


@frozen
class State:
    """The state of a worker in one word of at most eight letters."""

    word: str
    severity: Severity


@frozen
class Alert:
    """One alert for the operator: a word to look up, and a sentence."""

    word: str
    text: str
    severity: Severity


def is_stale(snapshot: Snapshot) -> bool:
    """Return whether the figures of the queue are too old."""
    is_old = snapshot.queue_seen_seconds is not None and snapshot.queue_seen_seconds > snapshot.stale_after_seconds
    return (snapshot.redis_down_seconds is not None and not snapshot.redis_refuses) or is_old


def state(snapshot: Snapshot) -> State:
    """Return the state of the worker; of a running worker that cannot work the state is the reason."""
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
    if snapshot.redis_refuses:
        return State(REFUSED_WORD, Severity.TROUBLE)
    if not isinstance(snapshot.breaker, Closed) or _no_worker_has_relay(snapshot):
        return State("NO RELAY", Severity.TROUBLE)
    if snapshot.queue is not None and snapshot.queue.paused:
        return State("PAUSED", Severity.CAUTION)
    if snapshot.is_at_dead_limit:
        return State("LIMIT", Severity.TROUBLE)
    if snapshot.is_quiet:
        return State("QUIET", Severity.CAUTION)
    return State("RUNNING", Severity.CALM)


def _no_worker_has_relay(snapshot: Snapshot) -> bool:
    """Return whether all live workers of a fleet have trouble with the relay."""
    live = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    return snapshot.scope is Scope.FLEET and bool(live) and all(beat.trouble for beat in live)


def alerts(snapshot: Snapshot) -> list[Alert]:
    """Return the alerts, the most urgent first; empty if all is well."""
    lost = _loss_alerts(snapshot)
    is_fresh = _is_freshly_lost(snapshot)
    found = [
        _redis_alert(snapshot),
        _refusal_alert(snapshot),
        *(lost if is_fresh else ()),
        *_notice_alerts(snapshot),
        _journal_alert(snapshot),
        _relay_alert(snapshot),
        _suspended_alert(snapshot),
        _depth_alert(snapshot),
        _phase_alert(snapshot),
        _paused_alert(snapshot),
        _dead_limit_alert(snapshot),
        _quiet_alert(snapshot),
        *_worker_alerts(snapshot),
        *(() if is_fresh else lost),
    ]
    return [alert for alert in found if alert is not None]


def _redis_alert(snapshot: Snapshot) -> Alert | None:
    down, seen = snapshot.redis_down_seconds, snapshot.queue_seen_seconds
    if down is not None and snapshot.redis_refuses:
        text = f"for {duration(down)} Redis refuses what a worker needs: {mask_text(snapshot.redis_trouble)}"
        return Alert(REFUSED_WORD, text, Severity.TROUBLE)
    if not is_stale(snapshot):
        return None
    age = f"queue figures are {duration(seen)} old" if seen is not None else "the queue was never read"
    if down is None:
        return Alert("STALE", age, Severity.TROUBLE)
    reason = f" ({mask_text(snapshot.redis_trouble)})" if snapshot.redis_trouble else ""
    return Alert("REDIS", f"no answer for {duration(down)}; {age}{reason}", Severity.TROUBLE)


def _refusal_alert(snapshot: Snapshot) -> Alert | None:
    if snapshot.login_refusal:
        what = "this login may not write what workers write; if theirs is the same, none is heard"
        return Alert("LOGIN", f"{what}: {mask_text(snapshot.login_refusal)}", Severity.CAUTION)
    if not snapshot.write_refusal:
        return None
    text = f"Redis refuses what workers write, so it is not known whether one runs: {mask_text(snapshot.write_refusal)}"
    return Alert(REFUSED_WORD, text, Severity.TROUBLE)


def _loss_alerts(snapshot: Snapshot) -> list[Alert]:
    """Return what Redis has lost within a day: nobody can tell whether it was repaired, so it is shown that long."""
    found = () if snapshot.queue is None else snapshot.queue.losses
    return [
        Alert("LOSS", f"Redis lost data, last seen {_when(loss.at)}: {_loss_words(loss)}", Severity.TROUBLE)
        for loss in found
    ]


def _is_freshly_lost(snapshot: Snapshot) -> bool:
    """Return whether Redis lost data just now. Later in the day, what is wrong now is more urgent."""
    found = () if snapshot.queue is None else snapshot.queue.losses
    return any(snapshot.at - loss.at < FRESH_LOSS_SECONDS for loss in found)


def _loss_words(loss: LostData) -> str:
    return f"{LOSS_WORDS[loss.sign]} ({loss.count:,}); shown for a day"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def _notice_alerts(snapshot: Snapshot) -> list[Alert]:
    """Return the notices: of this worker, or of all that are alive, equal words together."""
    if snapshot.scope is Scope.WORKER:
        return [_notice_alert(notice, notice.text) for notice in snapshot.notices]
    live = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    by_word: dict[str, list[Notice]] = {}
    for beat in live:
        for word, notice in {notice.word: notice for notice in beat.notices}.items():
            by_word.setdefault(word, []).append(notice)
    return [
        _notice_alert(found[0], f"{len(found):,} of {counted(len(live), 'worker')}: {found[0].text}")
        for found in by_word.values()
    ]


def _notice_alert(notice: Notice, text: str) -> Alert:
    return Alert(notice.word, text, Severity.TROUBLE if notice.is_severe else Severity.CAUTION)


def _journal_alert(snapshot: Snapshot) -> Alert | None:
    if not snapshot.journal_trouble:
        return None
    text = f"cannot be written ({snapshot.journal_trouble}): no mail is sent until Redis answers"
    return Alert("JOURNAL", text, Severity.TROUBLE)


def _relay_alert(snapshot: Snapshot) -> Alert | None:
    match snapshot.breaker:
        case Closed():
            return None
        case Open(trouble=trouble, failures=failures):
            probe = f"next probe in {duration(snapshot.breaker_seconds)}, {_times(failures)} failed"
            return Alert("RELAY", f"{trouble_words(trouble)}; {probe}{quoted(trouble)}", Severity.TROUBLE)
        case HalfOpen(before):
            probe = f"probing with one mail, {_times(before.failures)} failed"
            return Alert("RELAY", f"{trouble_words(before.trouble)}; {probe}{quoted(before.trouble)}", Severity.TROUBLE)
        case _:
            assert_never(snapshot.breaker)


def _suspended_alert(snapshot: Snapshot) -> Alert | None:
    suspended = snapshot.suspended
    if suspended is None:
        return None
    severity = Severity.TROUBLE if suspended.how == FailureKind.LOGIN else Severity.CAUTION
    return Alert("SUSPENDED", suspended_words(suspended, snapshot.max_connections, snapshot.at), severity)


def _depth_alert(snapshot: Snapshot) -> Alert | None:
    limit = snapshot.depth_limit
    return None if limit is None else Alert("DEPTH", depth_limit_words(limit, snapshot.at), Severity.CAUTION)


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
    # The end stands before the reason, which may be long: it is visible even if the line is cut.
    span = "" if left is None else f" for {duration(left - age)} more"
    return Alert("PAUSED", f"no job is claimed{span}: {mask_text(snapshot.queue.paused)}", Severity.CAUTION)


def _dead_limit_alert(snapshot: Snapshot) -> Alert | None:
    if not snapshot.is_at_dead_limit:
        return None
    dead = "" if snapshot.queue is None else f": {snapshot.queue.dead:,} dead letters"
    return Alert("LIMIT", f"no job is claimed, queue.dead_limit is reached{dead}", Severity.TROUBLE)


def _quiet_alert(snapshot: Snapshot) -> Alert | None:
    if not snapshot.is_quiet:
        return None
    whose = "this worker claims" if snapshot.scope is Scope.WORKER else "all workers claim"
    return Alert("QUIET", f"{whose} no jobs until resumed", Severity.CAUTION)


def _worker_alerts(snapshot: Snapshot) -> list[Alert]:
    """Return the alerts about single workers, and about differences between workers."""
    found = []
    lost = [worker.beat.worker for worker in snapshot.workers if worker.is_lost]
    live = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    if lost and not snapshot.write_refusal:
        whose = "its" if len(lost) == 1 else "their"
        found.append(Alert("LOST", f"no heartbeat from {_names(lost)}: {whose} leases will expire", Severity.TROUBLE))
    troubled = [beat for beat in live if beat.trouble]
    if troubled and snapshot.scope is Scope.FLEET:
        found.append(Alert("RELAY", _fleet_relay_words(troubled, len(live), snapshot.at), Severity.TROUBLE))
    versions = sorted({beat.version for beat in live})
    if len(versions) > 1:
        found.append(Alert("VERSIONS", f"workers run different versions: {', '.join(versions)}", Severity.CAUTION))
    configs = {beat.config for beat in live if beat.config}
    if len(configs) > 1:
        found.append(Alert("SETTINGS", f"workers run with {len(configs):,} different configurations", Severity.CAUTION))
    return found


def _fleet_relay_words(troubled: Sequence[Heartbeat], live: int, now: float) -> str:
    """Return which relay is in trouble, at how many workers, since when it is probed in vain, and its own words.

    The relay's words stand at the end: they may be long.
    """
    first = next((beat for beat in troubled if beat.relay_down is not None), troubled[0])
    relay = f"{first.relay} " if first.relay else ""
    text = f"{relay}{first.trouble}; {len(troubled):,} of {counted(live, 'worker')}"
    down = first.relay_down
    if down is None:
        return text
    probe = "probing now" if down.probe_at is None else f"next probe in {duration(down.probe_at - now)}"
    quote = down.why.removeprefix(first.trouble).strip()
    return f"{text}, {probe}, {_times(down.failures)} failed{f' {quote}' if quote else ''}"


def _names(names: list[str]) -> str:
    more = len(names) - 2
    return ", ".join(names[:2]) + (f" and {more:,} more" if more > 0 else "")


def readiness(snapshot: Snapshot, answered_seconds: float) -> tuple[bool, dict[str, object]]:
    """Return whether the worker can claim jobs, and the document of the page /readyz.

    ``answered_seconds`` is how long ago Redis answered anything.
    A worker stays ready if the queue is paused, the relay is in trouble, or it is quiet: a restart would not help.
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


def _times(failures: int) -> str:
    return f"{failures:,} {'try' if failures == 1 else 'tries'}"
