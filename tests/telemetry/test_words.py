"""Figures and troubles in words: short, never cut, and none left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.telemetry.number_words import ago, count, duration, per_second
from trio_worker.telemetry.words import trouble_words


@pytest.mark.parametrize("how", FailureKind)
def test_every_trouble_has_plain_words(how: FailureKind) -> None:
    """No way in which a connection can fail is without a sentence."""
    assert len(trouble_words(Trouble(how, Stage.CONNECT, ""))) > 10


def test_relay_that_refuses_the_session_is_not_unreachable() -> None:
    """A relay that refuses every sender has a different text from one that cannot be reached."""
    reply = Reply(530, "Authentication required", Stage.MAIL, "5.7.0")

    assert trouble_words(Trouble(FailureKind.CONNECT, Stage.CONNECT, "refused")) == "cannot be reached"
    assert trouble_words(Trouble(FailureKind.SESSION, Stage.MAIL, "", reply)) == "refuses the session with 530 5.7.0"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (-3.0, "0s"),
        (0.0004, "0.4ms"),
        (0.00999, "10ms"),
        (0.14, "140ms"),
        (0.9996, "1.0s"),
        (2.94, "2.9s"),
        (9.96, "9s"),
        (59.9, "59s"),
        (206, "3m26s"),
        (7500, "2h05m"),
        (183_600, "2d03h"),
        (10_000_000, "115d"),
    ],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    """A duration has the two units that matter, and the unknown one is a dash."""
    assert duration(seconds) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_duration_is_negative_or_long(seconds: float) -> None:
    """Skewed clocks give zero, and no duration needs more than six characters."""
    for text in (duration(seconds), ago(seconds)):
        assert not text.startswith("-")
        assert len(text) <= 6


@given(st.integers(0, 10**15), st.integers(6, 26))
def test_counts_fit_their_room(number: int, room: int) -> None:
    """A count that is too long for its column is written in thousands, millions and so on, never cut."""
    text = count(number, room)
    factor = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(text[-1], 1)

    assert len(text) <= room
    assert int(text.rstrip("kMGT").replace(",", "")) == number // factor


def test_rates_have_one_decimal_below_ten() -> None:
    """Small rates keep a decimal, great ones their thousands."""
    assert [per_second(rate) for rate in (0.0, 3.14, 9.96, 374.2, 12_345.0)] == ["0.0", "3.1", "10", "374", "12,345"]
