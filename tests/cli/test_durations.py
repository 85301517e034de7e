"""Spans of time on the command line: read as people type them, written as they are read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.cli.durations import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), ("1.5h", 5400), ("forever", math.inf)],
)
def test_spans_are_read_as_people_type_them(text: str, seconds: float) -> None:
    """Units are written, and may follow each other."""
    assert parse_duration(text) == seconds


@given(st.floats(0, 999_999_999).map(lambda seconds: round(seconds, 3)) | st.just(math.inf))
def test_spans_are_written_as_they_are_read(seconds: float) -> None:
    """What a help shows as a default can be typed."""
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, abs=0.002)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (900, "15m"), (5400, "1h30m"), (60, "1m"), (0.5, "0.5s"), (math.inf, "forever")]
)
def test_spans_are_short(seconds: float, text: str) -> None:
    """A unit that is nothing is left out."""
    assert duration_text(seconds) == text


@given(st.text(max_size=10) | st.sampled_from(["", "15", "-5m", "5 m", "m", "1e3s", "infs", "5y"]))
def test_what_is_no_span_is_none(text: str) -> None:
    """No text raises; a number without a unit is not guessed at."""
    seconds = parse_duration(text)

    assert seconds is None or seconds >= 0
    assert not text.strip().isdigit() or seconds is None
