"""History: samples of the ring buffer, the events between them, and the age of jobs without a push time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import astuple, evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.history import (
    SAMPLES_KEPT,
    MinuteSample,
    PushHistory,
    PushMark,
    figures_of,
    marks_of,
    pushed_at,
    read_mark,
    read_sample,
    waiting_growth,
)

numbers = st.integers(0, 10**9)
samples = st.builds(MinuteSample, *[numbers] * 11)
# A queue's life: what is added to the totals from one minute seen to the next.
steps = st.lists(st.tuples(st.integers(1, 5), *[st.integers(0, 50)] * 4), min_size=1, max_size=8)


def life(steps: list[tuple[int, int, int, int, int]]) -> list[MinuteSample]:
    found = [MinuteSample(100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for minutes, pushed, popped, sent, died in steps:
        last = found[-1]
        taken = min(popped, last.waiting + pushed)
        found.append(
            evolve(
                last,
                minute=last.minute + minutes,
                popped=last.popped + taken,
                waiting=last.waiting + pushed - taken,
                sent=last.sent + sent,
                deaths=last.deaths + died,
            )
        )
    return found


@given(samples)
def test_sample_is_read_as_it_was_written(sample: MinuteSample) -> None:
    """The numbers stand in the order of the fields, with spaces between, as the script ``beat`` writes them."""
    assert read_sample(" ".join(map(str, astuple(sample))).encode()) == sample


@given(st.binary(max_size=40))
def test_other_bytes_are_no_sample(wire: bytes) -> None:
    """Any bytes in the ring buffer are read without an exception."""
    assert read_sample(wire) is None


@given(steps)
def test_minutes_add_up_to_the_totals(steps: list[tuple[int, int, int, int, int]]) -> None:
    """What the minutes brought is what the last total says, and no minute is left out."""
    seen = life(steps)
    figures = figures_of(seen)

    assert sum(each.sent for each in figures) == seen[-1].sent
    assert sum(each.pushed for each in figures) == seen[-1].pushed
    assert sum(each.deaths for each in figures) == seen[-1].deaths
    assert sum(each.minutes for each in figures) == seen[-1].minute - seen[0].minute


def test_deleted_queue_begins_anew() -> None:
    """Totals that went back are those of a new queue: nothing is negative."""
    before = MinuteSample(10, 500, 400, 9, 9, 9, 9, 9, 9, 9, 9)
    after = MinuteSample(11, 3, 2, 0, 0, 0, 1, 0, 4, 0, 1)

    (figures,) = figures_of([before, after])

    assert (figures.pushed, figures.sent, figures.deaths, figures.uncertain) == (7, 2, 1, 0)


@given(steps, st.integers(0, 200))
def test_job_is_dated_within_the_minutes_in_which_it_came(
    steps: list[tuple[int, int, int, int, int]], popped: int
) -> None:
    """The date of a job is between the two samples of which only the later one counts it."""
    seen = life(steps)
    found = pushed_at(marks_of(seen, (), PushMark(1e9, seen[-1].pushed)), popped + 1)
    around = [(a, b) for a, b in pairwise(seen) if a.pushed < popped + 1 <= b.pushed]

    assert (found is None) is (not around)
    if found is not None:
        before, after = around[-1]
        assert (before.minute + 1) * 60 <= found <= (after.minute + 1) * 60


def test_job_pushed_in_the_running_minute_is_not_of_the_future() -> None:
    """The running minute ends now."""
    seen = [MinuteSample(100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), MinuteSample(101, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0)]
    now = 101 * 60 + 10.0

    assert pushed_at(marks_of(seen, (), PushMark(now, 4)), 4) == pytest.approx(now)


def test_fresh_job_is_dated_to_the_seconds_between_two_marks() -> None:
    """One pushed three seconds ago is not as old as its minute; one that no heartbeat has counted yet is younger."""
    seen = [MinuteSample(100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), MinuteSample(101, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)]
    now = 101 * 60 + 49.0
    fine = [PushMark(now - ago, int(ago <= 2)) for ago in (2.0, 4.0, 6.0, 8.0)]
    marks = marks_of(seen, fine, PushMark(now, 2))

    assert now - 4 <= (pushed_at(marks, 1) or 0.0) <= now - 2
    assert now - 2 <= (pushed_at(marks, 2) or 0.0) <= now


def test_marks_of_a_day_ago_date_nothing() -> None:
    """Where no worker writes over them, they stand in the ring still."""
    marks = marks_of([], [PushMark(1000.0, 0), PushMark(1002.0, 5)], PushMark(90_000.0, 5))

    assert pushed_at(marks, 3) is None
    assert read_mark(b"1002000 5") == PushMark(1002.0, 5)
    assert read_mark(b"1 2 3") is None


def test_a_job_is_dated_by_the_first_sample_that_counts_it() -> None:
    """Between two samples it came with the later one, at the latest."""
    history = PushHistory()
    for at, pushed in ((100.0, 10), (110.0, 20), (120.0, 30)):
        history.note(at, pushed)

    assert history.pushed_at(11) == 110.0
    assert history.pushed_at(20) == 110.0
    assert history.pushed_at(21) == 120.0


def test_what_no_sample_brackets_has_no_date() -> None:
    """Older than the first sample, or not counted yet."""
    history = PushHistory()
    assert history.pushed_at(1) is None
    history.note(100.0, 10)
    assert history.pushed_at(5) is None
    assert history.pushed_at(11) is None


def test_a_list_that_was_deleted_begins_a_new_history() -> None:
    """A count that fell says that older samples mean nothing now."""
    history = PushHistory()
    history.note(100.0, 10)
    history.note(110.0, 20)
    history.note(120.0, 3)

    assert history.pushed_at(15) is None


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 5)), max_size=60), st.integers(0, 300))
def test_dates_never_run_backwards(steps: list[tuple[float, int]], place: int) -> None:
    """A job that was pushed later is not dated earlier."""
    history, at, pushed = PushHistory(), 0.0, 0
    for seconds, more in steps:
        at, pushed = at + seconds, pushed + more
        history.note(at, pushed)
    dates = [history.pushed_at(each) for each in (place, place + 1)]

    if None not in dates:
        assert dates == sorted(date for date in dates if date is not None)


def test_memory_is_bounded() -> None:
    """An hour of samples at most."""
    history = PushHistory()
    for second in range(SAMPLES_KEPT + 500):
        history.note(second * 2.0, second + 1)

    assert len(history._times) == SAMPLES_KEPT
    assert history.pushed_at(SAMPLES_KEPT + 400) is not None


def test_growth_of_the_waiting_list_is_that_since_a_sample_of_the_last_minute() -> None:
    """A younger sample would be dated too roughly, an older one says nothing of now."""
    at = 6_000.0
    samples = [evolve(MinuteSample(97, *(0,) * 10), minute=minute, waiting=10 * minute) for minute in (97, 98, 99)]

    assert waiting_growth(samples, at + 30, 1050) == (1050 - 990) / 30
    assert waiting_growth(samples, at + 5, 1050) == (1050 - 980) / 65
    assert waiting_growth(samples, at + 200, 1050) is None
    assert waiting_growth([], at, 1050) is None
