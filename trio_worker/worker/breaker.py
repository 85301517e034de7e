"""Pure. When claiming stops because the relay is in trouble, and when one mail may probe whether it still is."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve

from trio_worker.records import frozen
from trio_worker.smtp.backoff import (
    DOUBTFUL_BACKOFF,
    LOGIN_BACKOFF,
    OTHER_BACKOFF,
    STANDING_BACKOFF,
    BackOff,
)
from trio_worker.smtp.failure_kind import FailureKind

if TYPE_CHECKING:
    from trio_worker.smtp.outcome import Trouble

# The longest time named by a relay that is believed: no limit is counted over more than a day.
MAX_NAMED_SECONDS = 86_400.0


@frozen
class Closed:
    """The relay works, as far as we know: claim freely. Any mail answered for itself, even refused, closes."""


@frozen
class Open:
    """The relay is in trouble: claim nothing before ``probe_at`` (local clock, seconds)."""

    trouble: Trouble
    since: float
    probe_at: float
    failures: int


@frozen
class HalfOpen:
    """One real mail is out as a probe; its outcome closes or opens the breaker."""

    before: Open


Breaker: TypeAlias = Closed | Open | HalfOpen


def after_trouble(breaker: Breaker, trouble: Trouble, now: float, dice: float) -> Breaker:
    """Return the breaker after trouble.

    While it is open, the trouble of mails that were already under way changes nothing: they are no new evidence.
    """
    match breaker:
        case Closed():
            return _opened(trouble, now, now, 1, dice)
        case HalfOpen(before):
            return _opened(trouble, before.since, now, before.failures + 1, dice)
        case Open():
            return breaker


def after_wait(breaker: Breaker, now: float) -> Breaker:
    """Return the breaker at ``now``: an open one whose back-off has passed lets one probe out."""
    if isinstance(breaker, Open) and now >= breaker.probe_at:
        return HalfOpen(breaker)
    return breaker


def after_idle_probe(breaker: Breaker, now: float) -> Breaker:
    """Return the breaker when the probe found no mail to send, or could not be judged: open, and due for a probe."""
    if isinstance(breaker, HalfOpen):
        return evolve(breaker.before, probe_at=now)
    return breaker


def _opened(trouble: Trouble, since: float, now: float, failures: int, dice: float) -> Open:
    backoff = _backoff_of(trouble)
    wait = min(backoff.cap_seconds, backoff.first_seconds * 2.0 ** min(failures - 1, 20))
    if trouble.again_seconds is not None:
        wait = min(max(trouble.again_seconds, OTHER_BACKOFF.first_seconds), MAX_NAMED_SECONDS)
    # Up to a quarter more, never less: processes that failed together must not probe together.
    return Open(trouble, since, now + wait * (1.0 + 0.25 * dice), failures)


def _backoff_of(trouble: Trouble) -> BackOff:
    if trouble.is_doubtful:
        return DOUBTFUL_BACKOFF
    match trouble.how:
        case FailureKind.LOGIN | FailureKind.US | FailureKind.GUARD:
            return LOGIN_BACKOFF
        case FailureKind.STANDING:
            return STANDING_BACKOFF
        case _:
            return OTHER_BACKOFF
