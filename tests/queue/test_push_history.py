"""How long a job waited when nobody said: dated by samples of how many had been pushed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.history import SAMPLES_KEPT, PushHistory


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
    """An hour of samples, however long it runs."""
    history = PushHistory()
    for second in range(SAMPLES_KEPT + 500):
        history.note(second * 2.0, second + 1)

    assert len(history._times) == SAMPLES_KEPT
    assert history.pushed_at(SAMPLES_KEPT + 400) is not None
