"""What is remembered of a job, as bytes and back."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.record import (
    SAID_CHARACTERS,
    SAID_LIMIT,
    TIMELINE_LIMIT,
    Attempt,
    Cause,
    Failed,
    Record,
    Said,
    read_record,
    write_record,
)

TEXT = st.text(max_size=20)
RECORDS = st.builds(
    Record,
    born=st.floats(0, 4e9),
    email_type=TEXT,
    attempts=st.integers(0, 99),
    losses=st.integers(0, 99),
    uncertain=st.integers(0, 99),
    due=st.none() | st.lists(TEXT, max_size=3).map(tuple),
    failed=st.lists(st.builds(Failed, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    cause=st.none() | st.builds(Cause, TEXT, TEXT, TEXT, TEXT),
    timeline=st.lists(st.builds(Attempt, st.floats(0, 4e9), TEXT, TEXT, TEXT), max_size=3).map(tuple),
    pushed_at=st.none() | st.floats(0, 4e9),
    said=st.lists(
        st.builds(Said, st.floats(0, 4e9), TEXT, st.none() | st.integers(0, 99), st.none() | st.floats(0, 9)),
        max_size=3,
    ).map(tuple),
)


@given(RECORDS)
def test_a_record_survives_being_stored(record: Record) -> None:
    """Any record, any words of a relay in it."""
    assert read_record(write_record(record), 0.0) == record


@given(st.binary(max_size=100))
def test_unreadable_bytes_give_a_fresh_record(wire: bytes) -> None:
    """A record never keeps a job from being tried."""
    assert isinstance(read_record(wire, 7.0), Record)


def test_a_record_of_another_shape_gives_a_fresh_one() -> None:
    """Valid JSON with other fields is no reason to raise."""
    for wire in (b"[]", b"3", b'{"due": 5}', b'{"cause": {"nonsense": 1}}', b'{"failed": [3]}', b'{"born": "x"}'):
        assert read_record(wire, 7.0) == Record(7.0)


def test_the_timeline_keeps_the_latest_attempts() -> None:
    """It is bounded for any number of attempts."""
    record = Record(0.0)
    for number in range(TIMELINE_LIMIT + 5):
        record = record.noting(Attempt(number, "deferred"))

    assert [attempt.at for attempt in record.timeline] == list(range(5, TIMELINE_LIMIT + 5))


def test_what_was_said_is_kept_of_the_last_attempts_and_cut() -> None:
    """For any length of replies and any number of attempts; the connection is that of the last noted attempt."""
    record = Record(0.0)
    for number in range(SAID_LIMIT + 3):
        record = record.noting(Attempt(number, "deferred"), f"{number} " + "x" * 1000).tried_on(number, 7, 0.0884)

    assert [said.at for said in record.said] == list(range(3, SAID_LIMIT + 3))
    assert all(len(said.text) == SAID_CHARACTERS for said in record.said)
    assert {(said.connection, said.seconds) for said in record.said} == {(7, 0.088)}
    assert record.tried_on(99.0, 8, 1.0) == record


def test_a_version_that_knows_no_words_of_attempts_reads_the_rest() -> None:
    """They are a key of their own: each line of the timeline keeps its shape."""
    wire = json.loads(write_record(Record(1.0, attempts=1).noting(Attempt(2.0, "deferred", "451", "rcpt"), "later")))

    assert wire["timeline"] == [{"at": 2.0, "what": "deferred", "codes": "451", "stage": "rcpt"}]
    del wire["said"]
    assert read_record(json.dumps(wire), 0.0).attempts == 1


def test_a_record_that_does_not_say_who_has_the_mail_may_hide_somebody() -> None:
    """If only some are due, a version that did not count is assumed to have delivered to one."""
    assert read_record(b'{"born":1.0,"due":["b@example.com"]}', 0.0).delivered == 1
    assert read_record(b'{"born":1.0}', 0.0).delivered == 0
    nobody = Record(1.0, due=("b@example.com",))
    assert read_record(write_record(nobody), 0.0) == nobody
