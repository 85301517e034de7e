"""What is wanted of a worker, on its way through Redis; and what is shown of a traced connection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.fleet.orders import (
    MOST_SECONDS,
    Drain,
    Letter,
    Order,
    Quiet,
    Resume,
    SetLogLevel,
    ShowTasks,
    Trace,
    read_letters,
    write_letter,
)
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.conversation import Conversation, Envelope, Transaction
from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.smtp.trace import TraceLine, trace_line_of
from trio_worker.telemetry.feed import ExchangeLine, read_exchange, write_exchange

SECONDS = st.integers(1, int(MOST_SECONDS)).map(float)
ORDERS: st.SearchStrategy[Order] = st.one_of(
    st.sampled_from([Quiet(), Resume(), Drain(), ShowTasks()]),
    st.builds(SetLogLevel, st.sampled_from(["debug", "info", "warning", "error"]), SECONDS),
    st.builds(Trace, SECONDS),
)
LETTERS = st.builds(Letter, ORDERS, st.text("0123456789abcdef", min_size=8, max_size=8))


@given(st.lists(LETTERS))
def test_orders_arrive_as_they_were_given(letters: list[Letter]) -> None:
    """Each order comes back as it was written, one a line, in the same order."""
    assert read_letters("\n".join(map(write_letter, letters)).encode()) == letters


@given(LETTERS, st.binary().filter(lambda noise: not read_letters(noise)))
def test_unknown_order_hides_no_other(letter: Letter, noise: bytes) -> None:
    """What another version wrote is passed over, whatever it is; what stands beside it is heard."""
    assert read_letters(noise + b"\n" + write_letter(letter).encode() + b"\n" + noise) == [letter]


def test_order_without_an_end_is_none() -> None:
    """A trace or a log level for longer than a day, or for no time that can be read, is no order."""
    for seconds in ("86401", "999999", "-5", "1.5", "nan", "", "٣"):
        assert read_letters(f"a trace {seconds}".encode()) == []
        assert read_letters(f"a log-level debug {seconds}".encode()) == []


def traced(received: list[bytes], envelope: Envelope) -> list[TraceLine]:
    """Return what is shown of a conversation with these answers."""
    shown: list[TraceLine] = []
    conversation = Conversation(Capabilities(pipelining=True, chunking=True))

    def tell(stage: Stage, transaction: Transaction | None, reply: Reply) -> None:
        shown.append(trace_line_of(stage, transaction, reply, 0.25, 7))

    conversation.on_reply = tell
    conversation.begin(envelope)
    conversation.take_outgoing()
    for each in received:
        conversation.receive(each)
    return shown


def test_exchange_shows_commands_and_replies_masked() -> None:
    """Each command with its reply; the addresses in both are masked, and of the content there is the size alone."""
    content = b"Subject: token-4711\r\n\r\nsecret words\r\n"
    envelope = Envelope("sender.long@example.com", ("ann.secret@example.org", "bob.secret@example.net"), content)

    shown = traced([b"250 ok\r\n250 2.1.5 ok\r\n550 5.1.1 <bob.secret@example.net> unknown\r\n250 done\r\n"], envelope)

    assert [each.said for each in shown] == [
        "MAIL FROM:<s…g@example.com>",
        "RCPT TO:<a…t@example.org>",
        "RCPT TO:<b…t@example.net>",
        f"message of {len(content)} bytes",
    ]
    assert [each.reply.split()[0] for each in shown] == ["250", "250", "550", "250"]
    assert {(each.seconds, each.connection_id) for each in shown} == {(0.25, 7)}
    told = " ".join(write_exchange(ExchangeLine(1.0, "a:1", each)) for each in shown)
    assert not any(word in told for word in ("secret", "token", "sender.long"))


def test_empty_sender_is_shown_as_such() -> None:
    """A bounce has no sender, and nothing stands for it."""
    assert traced([b"250 ok\r\n"], Envelope("", ("ann@example.org",), b"x\r\n"))[0].said == "MAIL FROM:<>"


@given(
    st.builds(
        ExchangeLine,
        st.floats(0, 2e9),
        st.text(),
        st.builds(TraceLine, st.text(), st.text(), st.floats(0, 1e6), st.none() | st.integers(0, 10**6)),
    )
)
def test_exchange_comes_back_as_written(line: ExchangeLine) -> None:
    """What a worker tells is what a watcher reads."""
    assert read_exchange(write_exchange(line).encode()) == line


@given(st.binary())
def test_unreadable_exchange_is_none(noise: bytes) -> None:
    """What another version wrote is passed over, and never raised."""
    read = read_exchange(noise)

    assert read is None or isinstance(read, ExchangeLine)


def test_reply_to_no_message_is_named_by_its_stage() -> None:
    """RSET and QUIT belong to no message."""
    exchange = trace_line_of(Stage.RSET, None, reply_from(250, "ok", Stage.RSET), 0.1, 3)

    assert (exchange.said, exchange.reply) == ("RSET", "250 ok")
