"""Records that are frozen for the type checker alone: they are compared and hashed as attrs does it."""

from __future__ import annotations

from trio_worker.queue.claim import Claim, Source
from trio_worker.queue.record import Record
from trio_worker.smtp.envelope import Envelope


def test_records_are_compared_and_hashed_by_value() -> None:
    one, same = (Envelope("a@example.com", ("b@example.com",), b"x\r\n") for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Envelope("a@example.com", ("c@example.com",), b"x\r\n")


def test_a_record_without_equality_is_compared_by_identity() -> None:
    one, other = (Claim("1-1", b"", Record(1.0), "t", Source.FRESH, 1, claimed_at=1.0, began=1.0) for _ in range(2))
    assert one != other
    assert len({one, other, one}) == 2
