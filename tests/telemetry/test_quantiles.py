"""Measured times: quantiles of sums of tallies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.telemetry.quantiles import WINDOW_SECONDS, Quantiles, Window, added

times = st.lists(st.floats(0.0005, 5000), min_size=1, max_size=60)


def window_of(measured: list[float], now: float = 0.0) -> Window:
    window = Window()
    for seconds in measured:
        window.note(now, [seconds])
    return window


@given(times, times)
def test_tallies_of_two_workers_add_up_to_that_of_one(first: list[float], second: list[float]) -> None:
    """It makes no difference to the quantiles of all who measured which time."""
    parts = added([window_of(first).histogram(0), window_of(second).histogram(0)])

    assert parts == window_of(first + second).histogram(0)


@given(times, times)
def test_times_may_come_together_or_one_by_one(first: list[float], second: list[float]) -> None:
    """They fall into the same buckets."""
    together = Window()
    for measured in (first, [], second):
        together.note(0, measured)

    assert together.histogram(0) == window_of(first + second).histogram(0)


@given(times)
def test_quantiles_are_near_the_truth(measured: list[float]) -> None:
    """A quantile is within the width of its bucket, 12 %, of the time at its rank, and none exceeds the longest."""
    ordered = sorted(measured)
    found = window_of(measured).histogram(0).quantiles()

    assert found.count == len(measured)
    assert found.most == ordered[-1]
    for quantile, part in ((found.p50, 0.5), (found.p95, 0.95), (found.p99, 0.99)):
        truth = ordered[max(0, -int(-len(ordered) * part // 1) - 1)]
        assert quantile is not None
        assert truth / 1.12 <= quantile <= truth * 1.12


@given(times)
def test_mean_is_near_the_truth(measured: list[float]) -> None:
    """The mean is within the width of a bucket."""
    mean = window_of(measured).histogram(0).mean_seconds()

    assert mean == pytest.approx(sum(measured) / len(measured), rel=0.12)


def test_what_is_older_than_five_minutes_is_forgotten() -> None:
    """A quiet worker shows no times of an hour ago."""
    window = window_of([1.0, 2.0])

    assert window.histogram(WINDOW_SECONDS - 1).quantiles().count == 2
    assert window.histogram(WINDOW_SECONDS + 10).quantiles() == Quantiles()
