"""The rate that a relay's refusals teach, against relays that count in different ways."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from attrs import define, field

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Stage
from trio_worker.worker.pace import (
    FIRST_PAUSE_SECONDS,
    FORGOTTEN_SECONDS,
    Credit,
    RelayPace,
    is_forgotten,
    slowed,
)

TOO_FAST = Trouble(FailureKind.RATE, Stage.FINAL, "refused")


@define
class Window:
    """A relay that takes a number of mails in any time of a length."""

    mails: int
    seconds: float
    _taken: deque[float] = field(factory=deque)

    def takes(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - self.seconds:
            self._taken.popleft()
        if len(self._taken) >= self.mails:
            return False
        self._taken.append(now)
        return True


@define
class Second:
    """A relay that begins to count anew with each second."""

    mails: int
    _second: int = -1
    _taken: int = 0

    def takes(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._taken = int(now), 0
        self._taken += 1
        return self._taken <= self.mails


def send(takes: Callable[[float], bool], seconds: float, unlimited_per_second: float = 1000.0) -> tuple[int, int]:
    """Send as fast as the pace allows; return how many mails were accepted and refused."""
    pace, credit, now, accepted, refused = None, Credit(1.0, 0.0), 0.25, 0, 0
    taken: deque[float] = deque()
    while now < seconds:
        if pace is None:
            now += 1 / unlimited_per_second
        else:
            credit = credit.grown(pace, now)
            if now < pace.since or credit.mails < 1:
                now = max(pace.since, now + (1 - credit.mails + 1e-6) / pace.per_second(now))
                continue
            credit = credit.spent(1)
        if takes(now):
            accepted += 1
            taken.append(now)
            continue
        refused += 1
        while taken and taken[0] < now - 1:
            taken.popleft()
        found = slowed(pace, TOO_FAST, now, len(taken), accepted)
        if found is not pace:
            pace, credit = found, Credit(1.0, found.since)
    return accepted, refused


@pytest.mark.parametrize("relay", [Window(14, 1.0), Second(14)], ids=["any second", "each second"])
def test_a_limit_by_the_second_is_used_and_rarely_passed(relay: Window | Second) -> None:
    """At least nine tenths of what the relay takes, with under a twentieth refused."""
    accepted, refused = send(relay.takes, 300)

    assert accepted >= 0.9 * 14 * 300
    assert refused <= 0.05 * accepted


def test_a_limit_by_the_minute_is_found_too() -> None:
    """Thirty go in a moment, then none for a minute: half of what is possible is used even in the first half hour."""
    accepted, refused = send(Window(30, 60.0).takes, 1800)

    assert accepted >= 0.5 * 900
    assert refused <= 0.2 * accepted


def test_a_named_time_is_waited_for() -> None:
    """And no longer than an hour."""
    named = Trouble(FailureKind.RATE, Stage.FINAL, "refused", again_seconds=92)
    assert slowed(None, named, 10.0, 5.0, 1).since == 102
    forever = Trouble(FailureKind.RATE, Stage.FINAL, "refused", again_seconds=1e6)
    assert slowed(None, forever, 0.0, 5.0, 1).since == 3600


def test_mails_that_were_under_way_are_no_new_evidence() -> None:
    """Ten refusals that come together slow us down once."""
    pace = slowed(None, TOO_FAST, 10.0, 14.0, 14)
    assert slowed(pace, TOO_FAST, 10.5, 14.0, 14) is pace


def test_a_pause_doubles_while_nothing_is_taken() -> None:
    """Up to a minute; the rate halves with it."""
    pace, now, pauses = slowed(None, TOO_FAST, 0.0, 16.0, 16), 0.0, []
    for _ in range(8):
        now = pace.since + 2
        pace = slowed(pace, TOO_FAST, now, 0.0, 16)
        pauses.append(pace.since - now)

    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert pace.per_second(pace.since) < 20 / 2**7


def test_the_rate_recovers_slowly_and_then_fast() -> None:
    """A little below at first, the old one after half a minute, and no limit in the end."""
    pace = RelayPace(TOO_FAST, 100.0, since=FIRST_PAUSE_SECONDS, accepted=0)

    assert [round(pace.per_second(1.0 + seconds)) for seconds in (0, 30, 60, 90, 180)] == [95, 100, 105, 140, 725]
    assert not is_forgotten(pace, FORGOTTEN_SECONDS)
    assert is_forgotten(pace, FORGOTTEN_SECONDS + 2)
