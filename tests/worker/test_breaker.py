"""The breaker alone: when claiming stops, for how long, and when it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.backoff import LOGIN_BACKOFF, OTHER_BACKOFF
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Stage
from trio_worker.worker.breaker import Closed, HalfOpen, Open, after_idle_probe, after_trouble, after_wait

DOWN = Trouble(FailureKind.CONNECT, Stage.CONNECT, "refused")
LOGIN = Trouble(FailureKind.LOGIN, Stage.AUTH, "535")
dice = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("trouble", "backoff"), [(DOWN, OTHER_BACKOFF), (LOGIN, LOGIN_BACKOFF)])
def test_waits_double_up_to_their_cap(trouble: Trouble, backoff: object) -> None:
    """One second to a minute; a refused login a minute to a quarter of an hour."""
    now, waits = 100.0, []
    breaker = after_trouble(Closed(), trouble, now, 0.0)
    for _ in range(9):
        assert isinstance(breaker, Open)
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker = after_trouble(after_wait(breaker, now), trouble, now, 0.0)

    first, cap = waits[0], waits[-1]
    assert (first, cap) == ((1.0, 60.0) if trouble is DOWN else (60.0, 900.0))
    assert waits == [min(cap, first * 2**power) for power in range(9)]


@given(dice)
def test_a_wait_is_never_shorter_than_its_back_off(throw: float) -> None:
    """The dice add up to a quarter, so that processes which failed together do not probe together."""
    opened = after_trouble(Closed(), DOWN, 10.0, throw)
    assert isinstance(opened, Open)
    assert 11.0 <= opened.probe_at <= 11.25


def test_trouble_of_mails_that_were_under_way_is_no_new_evidence() -> None:
    """An open breaker stays as it is; only the probe counts."""
    opened = after_trouble(Closed(), DOWN, 10.0, 0.0)
    assert after_trouble(opened, LOGIN, 10.5, 0.0) == opened


@given(st.floats(0, 1e6), dice)
def test_the_probe_goes_when_the_wait_is_over_and_not_before(now: float, throw: float) -> None:
    """Half open means that one mail may go."""
    opened = after_trouble(Closed(), DOWN, now, throw)
    assert isinstance(opened, Open)
    assert after_wait(opened, opened.probe_at - 0.001 * max(1.0, now)) == opened
    assert after_wait(opened, opened.probe_at) == HalfOpen(opened)


def test_a_probe_that_told_nothing_is_repeated_at_once() -> None:
    """The count of failures does not grow by it."""
    opened = after_trouble(Closed(), DOWN, 10.0, 0.0)
    probing = after_wait(opened, 12.0)
    again = after_idle_probe(probing, 13.0)
    assert isinstance(again, Open)
    assert (again.probe_at, again.failures) == (13.0, 1)
    assert after_idle_probe(Closed(), 13.0) == Closed()
