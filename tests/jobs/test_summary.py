"""What is said of jobs without showing whom they are for: summaries, ages, spans of time, and choosing by cause."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import job_bytes
from trio_worker.cli.durations import duration_text, parse_duration
from trio_worker.jobs.summary import JobSummary, summarize
from trio_worker.queue.ages import COLUMNS_SECONDS, MOST_ROWS, OTHER, UNDATED, AgeTable, column_of, sample_places
from trio_worker.queue.record import Cause, Record, ShelvedJob
from trio_worker.queue.selection import Grouping, Selection

words = st.text(max_size=12)
shelved = st.builds(
    ShelvedJob,
    job_id=st.uuids().map(str),
    at=st.floats(0, 1e9),
    record=st.builds(Record, born=st.just(0.0), email_type=st.sampled_from(["Registration", "Message"])),
    cause=st.builds(Cause, st.sampled_from(["refused", "malformed"]), st.sampled_from(["550 5.1.1", "554 5.7.1", ""])),
    body=st.just(b""),
    body_bytes=st.just(9),
)


@given(st.binary(max_size=80))
def test_any_bytes_can_be_summarized(raw: bytes) -> None:
    """Whatever was pushed, a summary says something and does not raise."""
    assert isinstance(summarize(raw), JobSummary)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | words,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["task_type", "data", "email_type", "id", "email", "to", "enqueued_at"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_json_can_be_summarized(value: object) -> None:
    """Shapes that no producer should send are looked at all the same."""
    assert isinstance(summarize(json.dumps(value).encode()), JobSummary)


def test_summary_has_the_type_and_the_domain() -> None:
    """A domain names nobody; the address is there for who compares, and not for who prints."""
    seen = summarize(job_bytes(1, "Ann <ann@Example.ORG>", id="order-7", enqueued_at="2026-01-02T03:04:05Z"))

    assert (seen.email_type, seen.domains, seen.producer_id) == ("Registration", ("example.org",), "order-7")
    assert seen.enqueued_at == pytest.approx(1_767_323_045)


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


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.none() | st.floats(0, 2000)), max_size=60))
def test_ages_add_up(jobs: list[tuple[str, float | None]]) -> None:
    """Each row's columns add up to its total, and all rows to the first, however many names there are."""
    table = AgeTable(len(jobs))
    for name, age_seconds in jobs:
        table.add([name], age_seconds)

    total, *rows = table.rows()

    assert total.total == len(jobs)
    assert all(sum(row.by_age) == row.total for row in (total, *rows))
    assert sum(row.total for row in rows) == len(jobs)
    assert len(rows) <= MOST_ROWS + 1
    assert not any(row.name == OTHER for row in rows[:MOST_ROWS])


def test_sampled_ages_are_scaled() -> None:
    """Twenty jobs looked at of a thousand stand for fifty each."""
    table = AgeTable(1000)
    for _ in range(20):
        table.add(["a.example"], 7.0)

    (total, row) = table.rows()
    assert table.is_sampled
    assert total.total == row.total == row.by_age[1] == 1000


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


@given(st.lists(shelved, max_size=30), st.integers(1, 7))
def test_groups_count_every_job_once(jobs: list[ShelvedJob], page: int) -> None:
    """However the pages fall, each job is in one group, and the newest one is its example."""
    grouping = Grouping()
    for start in range(0, len(jobs), page):
        grouping.add(jobs[start : start + page])

    assert sum(group.count for group in grouping.groups) == len(jobs)
    for group in grouping.groups:
        alike = [
            job
            for job in jobs
            if (job.cause.codes, job.cause.word, job.record.email_type) == (group.codes, group.word, group.email_type)
        ]
        assert group.count == len(alike)
        assert (group.first_at, group.last_at) == (min(job.at for job in alike), max(job.at for job in alike))
        assert group.example in {job.job_id for job in alike if job.at == group.last_at}


@given(st.lists(shelved, max_size=20), st.sampled_from(["", "5", "55", "550", "550 5.1.1", "4"]), st.floats(0, 1e9))
def test_selection_takes_what_it_says(jobs: list[ShelvedJob], code: str, since: float) -> None:
    """A code is taken from its first digit on, a time with its end."""
    taken = [job for job in jobs if Selection(code=code, since=since).takes(job)]

    assert taken == [job for job in jobs if job.cause.codes.startswith(code) and job.at >= since]
    assert all(Selection().takes(job) for job in jobs)
