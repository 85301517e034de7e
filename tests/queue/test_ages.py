"""The ages of the waiting jobs, as bars and as a table: each job is counted once, also where only some are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.ages import (
    BAR_BOUNDS,
    COLUMNS_SECONDS,
    MAX_ROWS,
    OTHER_TYPES,
    UNDATED,
    AgeTable,
    bars_of,
    column_of,
    sample_places,
)

ages = st.lists(st.tuples(st.none() | st.floats(0, 1e5), st.booleans()), min_size=1, max_size=200)


@given(ages, st.integers(0, 10**6))
def test_bars_add_up_to_what_waits(found: list[tuple[float | None, bool]], more: int) -> None:
    """At any scale no job is lost by rounding, and no bar is negative."""
    waiting = len(found) + more
    bars = bars_of(found, waiting)

    assert sum(bars.jobs) + bars.undated == waiting
    assert min(*bars.jobs, bars.undated) >= 0
    assert bars.looked_at == len(found)


@pytest.mark.parametrize(("age", "place"), [(0.0, 0), (0.99, 0), (1.0, 1), (29.9, 2), (59.9, 3), (60.0, 4), (1e9, 4)])
def test_age_falls_under_its_bound(age: float, place: int) -> None:
    """Each bar holds what is younger than its bound."""
    bars = bars_of([(age, False)], 1)

    assert bars.jobs[place] == 1
    assert len(bars.jobs) == len(BAR_BOUNDS) + 1


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.none() | st.floats(0, 2000)), max_size=60))
def test_ages_add_up(jobs: list[tuple[str, float | None]]) -> None:
    """The columns of each row add up to its total, and all rows to the first, with any number of names."""
    table = AgeTable(len(jobs))
    for name, age_seconds in jobs:
        table.add([name], age_seconds)

    total, *rows = table.rows()

    assert total.total == len(jobs)
    assert all(sum(row.by_age) == row.total for row in (total, *rows))
    assert sum(row.total for row in rows) == len(jobs)
    assert len(rows) <= MAX_ROWS + 1
    assert not any(row.name == OTHER_TYPES for row in rows[:MAX_ROWS])


def test_sampled_ages_are_scaled() -> None:
    """With twenty samples of a thousand jobs, each counts for fifty."""
    table = AgeTable(1000)
    for _ in range(20):
        table.add(["a.example"], 7.0)

    (total, row) = table.rows()
    assert table.is_sampled
    assert total.total == row.total == row.by_age[1] == 1000


def test_delayed_jobs_are_counted_and_scaled_by_themselves() -> None:
    """They are read otherwise than the list, so a sample of them stands for another number."""
    table = AgeTable(1000, delayed=60)
    for _ in range(20):
        table.add(["a.example"], 7.0)
        table.add(["b.example"], 700.0, is_delayed=True)

    (total, a_row, b_row) = table.rows()
    assert (total.total, total.delayed) == (1060, 60)
    assert (a_row.name, a_row.total, a_row.delayed) == ("a.example", 1000, 0)
    assert (b_row.name, b_row.total, b_row.delayed) == ("b.example", 60, 60)
    assert b_row.by_age[column_of(700.0)] == 60


@given(st.floats(0, 1e9))
def test_every_age_has_its_column(age_seconds: float) -> None:
    """A column's bound is above the ages in it, and the bound before is not."""
    column = column_of(age_seconds)

    assert column < UNDATED
    assert column == len(COLUMNS_SECONDS) or age_seconds < COLUMNS_SECONDS[column]
    assert column == 0 or age_seconds >= COLUMNS_SECONDS[column - 1]


@given(st.integers(0, 100_000), st.integers(2, 300))
def test_sampled_places_are_in_the_list(waiting: int, wanted: int) -> None:
    """Places are spread from the head to the end, none twice, none outside."""
    places = sample_places(waiting, wanted)

    assert len(places) == len(set(places)) == min(waiting, wanted)
    assert not places or (places[0] == 0 and places[-1] == waiting - 1)
