"""What is wanted of a worker, on its way through Redis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.fleet.orders import (
    MOST_SECONDS,
    Drain,
    Order,
    OrderMessage,
    Quiet,
    Resume,
    SetLogLevel,
    ShowTasks,
    Trace,
    read_order_messages,
    write_order_message,
)

SECONDS = st.integers(1, int(MOST_SECONDS)).map(float)
ORDERS: st.SearchStrategy[Order] = st.one_of(
    st.sampled_from([Quiet(), Resume(), Drain(), ShowTasks()]),
    st.builds(SetLogLevel, st.sampled_from(["debug", "info", "warning", "error"]), SECONDS),
    st.builds(Trace, SECONDS),
)
LETTERS = st.builds(OrderMessage, ORDERS, st.text("0123456789abcdef", min_size=8, max_size=8))


@given(st.lists(LETTERS))
def test_orders_arrive_as_they_were_given(letters: list[OrderMessage]) -> None:
    """Each order comes back as it was written, one a line, in the same order."""
    assert read_order_messages("\n".join(map(write_order_message, letters)).encode()) == letters


@given(LETTERS, st.binary().filter(lambda noise: not read_order_messages(noise)))
def test_unknown_order_hides_no_other(letter: OrderMessage, noise: bytes) -> None:
    """What another version wrote is passed over, whatever it is; what stands beside it is heard."""
    assert read_order_messages(noise + b"\n" + write_order_message(letter).encode() + b"\n" + noise) == [letter]


def test_order_without_an_end_is_none() -> None:
    """A trace or a log level for longer than a day, or for no time that can be read, is no order."""
    for seconds in ("86401", "999999", "-5", "1.5", "nan", "", "٣"):
        assert read_order_messages(f"a trace {seconds}".encode()) == []
        assert read_order_messages(f"a log-level debug {seconds}".encode()) == []
