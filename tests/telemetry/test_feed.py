"""Entries of the feed: written, read back, masked; and any other bytes."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.record import Cause
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.feed import (
    FeedOutcome,
    FeedTrace,
    read_outcome,
    read_trace,
    write_outcome,
    write_trace,
)
from trio_worker.worker.events import SettledJob
from trio_worker.worker.phase import Disposition


@given(
    st.builds(
        FeedTrace,
        st.floats(0, 2e9),
        st.text(),
        st.builds(TraceLine, st.text(), st.text(), st.floats(0, 1e6), st.none() | st.integers(0, 10**6)),
    )
)
def test_exchange_comes_back_as_written(line: FeedTrace) -> None:
    """A watcher reads what a worker has written."""
    assert read_trace(write_trace(line).encode()) == line


@given(st.binary())
def test_unreadable_exchange_is_none(noise: bytes) -> None:
    """What another version wrote is passed over, and never raised."""
    read = read_trace(noise)

    assert read is None or isinstance(read, FeedTrace)


def test_outcome_is_masked_before_it_leaves_the_worker() -> None:
    """A relay that repeats the address in its reply does not bring it into Redis' list of outcomes."""
    settled = SettledJob(
        "id1", Disposition.DEAD, "Registration", 1, Cause("refused", "550 5.1.1", "rcpt", "<ann.b@example.com> unknown")
    )

    wire = write_outcome(FeedOutcome(1.5, settled, "host:1"))
    read = read_outcome(wire.encode())

    assert "ann.b@example.com" not in wire
    assert read is not None
    assert evolve(read, settled=evolve(read.settled, cause=None)) == FeedOutcome(
        1.5, evolve(settled, cause=None), "host:1"
    )
    assert read.settled.cause is not None
    assert read.settled.cause.codes == "550 5.1.1"
