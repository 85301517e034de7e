"""What is shown of a traced connection: commands and replies, masked."""

from __future__ import annotations

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.conversation import Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.smtp.trace import TraceLine, trace_line_of
from trio_worker.smtp.transaction import Transaction
from trio_worker.telemetry.feed import FeedTrace, write_trace


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
    told = " ".join(write_trace(FeedTrace(1.0, "a:1", each)) for each in shown)
    assert not any(word in told for word in ("secret", "token", "sender.long"))


def test_empty_sender_is_shown_as_such() -> None:
    """A bounce has an empty sender."""
    assert traced([b"250 ok\r\n"], Envelope("", ("ann@example.org",), b"x\r\n"))[0].said == "MAIL FROM:<>"


def test_reply_to_no_message_is_named_by_its_stage() -> None:
    """RSET and QUIT belong to no message."""
    exchange = trace_line_of(Stage.RSET, None, reply_from(250, "ok", Stage.RSET), 0.1, 3)

    assert (exchange.said, exchange.reply) == ("RSET", "250 ok")
