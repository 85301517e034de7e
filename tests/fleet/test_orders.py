"""Orders to workers, on their way through Redis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.fleet import KEYS, tell
from trio_worker.fleet.orders import (
    MAX_SECONDS,
    Drain,
    Order,
    OrderMessage,
    OrderSent,
    Probe,
    Quiet,
    Resume,
    SetLogLevel,
    ShowTasks,
    Trace,
    read_answers,
    read_order_messages,
    send_order,
    write_order_message,
)
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient

SECONDS = st.integers(1, int(MAX_SECONDS)).map(float)
ORDERS: st.SearchStrategy[Order] = st.one_of(
    st.sampled_from([Quiet(), Resume(), Drain(), Probe(), ShowTasks()]),
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
    """Any order of another version that is not understood is ignored; the orders next to it are carried out."""
    assert read_order_messages(noise + b"\n" + write_order_message(letter).encode() + b"\n" + noise) == [letter]


def test_order_without_an_end_is_none() -> None:
    """A trace or a log level for longer than a day, or for no time that can be read, is no order."""
    for seconds in ("86401", "999999", "-5", "1.5", "nan", "", "٣"):
        assert read_order_messages(f"a trace {seconds}".encode()) == []
        assert read_order_messages(f"a log-level debug {seconds}".encode()) == []


async def test_order_is_heard_once(redis: RedisClient) -> None:
    """A worker gets an order with its next heartbeat, and only once."""
    await tell(redis, "a:1")

    told = await send_order(redis, "jobs", Drain(), ["a:1", "nobody:9"])

    assert isinstance(told, OrderSent)
    assert told.worker_names == frozenset({"a:1"})
    assert await tell(redis, "a:1") == (f"{told.answer_id} drain", False)
    assert await tell(redis, "a:1") == ("", False)


async def test_no_order_drives_out_another(redis: RedisClient) -> None:
    """All orders between two heartbeats arrive, in their order; a worker that takes none gets no more."""
    await tell(redis, "a:1")
    for order in (Quiet(), Resume(), Quiet()):
        await send_order(redis, "jobs", order, ["a:1"])

    unheard = (await tell(redis, "a:1"))[0]

    assert [letter.order for letter in read_order_messages(unheard.encode())] == [Quiet(), Resume(), Quiet()]
    while (told := await send_order(redis, "jobs", Quiet(), ["a:1"])).worker_names:  # type: ignore[union-attr]
        pass
    assert isinstance(told, OrderSent)
    assert 4096 <= len((await tell(redis, "a:1"))[0]) < 8192


async def test_answers_are_those_of_one_order(redis: RedisClient) -> None:
    """The sender of an order reads the answer of each worker that got it, once, and no answers to other orders."""
    await tell(redis, "a:1")
    await tell(redis, "b:2")
    first = await send_order(redis, "jobs", Quiet(), ["a:1", "b:2"])
    other = await send_order(redis, "jobs", Drain(), ["a:1"])
    assert isinstance(first, OrderSent)
    assert isinstance(other, OrderSent)
    await redis.run_script("answer", KEYS, first.answer_id, "b:2", "quiet")
    await redis.run_script("answer", KEYS, other.answer_id, "a:1", "draining")

    lives_ms = await redis.command("PTTL", KEYS.answers)
    assert not isinstance(lives_ms, Unavailable)
    assert 0 < lives_ms <= 60_000

    assert await read_answers(redis, "jobs", first) == {"b:2": "quiet"}
    assert await read_answers(redis, "jobs", first) == {}
    assert await read_answers(redis, "jobs", other) == {"a:1": "draining"}
    assert await redis.command("EXISTS", KEYS.answers) == 0
    assert await read_answers(redis, "jobs", OrderSent(frozenset(), "none")) == {}
