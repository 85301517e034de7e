"""Relays that offer PIPELINING and drop what is written ahead of their answer: found out, and nothing is in doubt."""

from __future__ import annotations

import pytest

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.conversation import Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, NotSent, Refused, Uncertain
from trio_worker.smtp.reply import Stage
from trio_worker.smtp.transaction import Transaction

CHUNKED = Capabilities(pipelining=True, chunking=True)
PIPELINED = Capabilities(pipelining=True)
MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")
OUT_OF_ORDER = "503 5.5.1 Bad sequence of commands"


def answer(conversation: Conversation, *replies: str) -> bytes:
    conversation.receive("".join(f"{reply}\r\n" for reply in replies).encode())
    return b"".join(conversation.take_outgoing())


def two_mails(conversation: Conversation) -> tuple[Transaction, Transaction]:
    """Two mails of which the second is written ahead of the final reply to the first."""
    first, second = conversation.begin(MAIL), conversation.begin(MAIL)
    wire = b"".join(conversation.take_outgoing())
    if not conversation.capabilities.chunking:
        wire = answer(conversation, "250 ok", "250 ok", "354 go")
    assert wire.endswith(b"RCPT TO:<a@example.org>\r\nDATA\r\n") or wire.count(b"BDAT") == 2
    return first, second


@pytest.mark.parametrize("final", ["250 taken", "550 content", "451 later"])
def test_503_to_a_mail_ahead_ends_the_conversation_at_once(final: str) -> None:
    """Its content was never written, so it was not sent, and replies that may never come are not waited for."""
    conversation = Conversation(PIPELINED)
    first, second = two_mails(conversation)
    answer(conversation, final, OUT_OF_ORDER)

    assert isinstance(first.outcome, Accepted | Refused)
    assert isinstance(second.outcome, NotSent)
    loss = second.outcome.loss
    assert (loss.how, loss.stage, loss.had_delivered) == (FailureKind.AHEAD, Stage.MAIL, True)
    assert conversation.ahead is not None
    assert conversation.end is not None


def test_503_to_a_mail_of_its_own_turn_is_a_refusal() -> None:
    """Nothing was open when it was written, so the relay means it."""
    conversation = Conversation(PIPELINED)
    alone = conversation.begin(MAIL)
    conversation.take_outgoing()
    answer(conversation, "503 5.5.1 authenticate first", OUT_OF_ORDER, OUT_OF_ORDER)

    assert isinstance(alone.outcome, Refused)
    assert (conversation.ahead, conversation.end) == (None, None)


@pytest.mark.parametrize("reply", ["550 5.7.1 not you", "451 later"])
def test_another_refusal_of_a_mail_ahead_is_a_refusal(reply: str) -> None:
    """Only 503 speaks of the order of commands."""
    conversation = Conversation(PIPELINED)
    first, second = two_mails(conversation)
    answer(conversation, "250 taken", reply, OUT_OF_ORDER, OUT_OF_ORDER)

    assert isinstance(first.outcome, Accepted)
    assert isinstance(second.outcome, Refused)
    assert conversation.ahead is None


@pytest.mark.parametrize("how", [FailureKind.TIMEOUT, FailureKind.AHEAD])
def test_silence_at_a_mail_ahead_says_the_same(how: FailureKind) -> None:
    """Some relays drop it without a word."""
    conversation = Conversation(PIPELINED)
    _, second = two_mails(conversation)
    answer(conversation, "250 taken")
    assert conversation.awaits_ahead
    conversation.lose(how, "silent")

    assert isinstance(second.outcome, NotSent)
    assert conversation.ahead is not None


@pytest.mark.parametrize("replies", [[], ["250 taken", "250 ok"]])
def test_silence_elsewhere_says_nothing_of_the_order(replies: list[str]) -> None:
    """At the final reply to the first mail, and at RCPT of the second, the relay is just slow."""
    conversation = Conversation(PIPELINED)
    two_mails(conversation)
    answer(conversation, *replies)
    assert not conversation.awaits_ahead
    conversation.lose(FailureKind.TIMEOUT, "silent")

    assert conversation.ahead is None


def test_with_chunking_the_replies_to_a_dropped_mail_are_awaited() -> None:
    """Its content is out: only when all is refused was it surely not sent."""
    conversation = Conversation(CHUNKED)
    first, second = two_mails(conversation)
    answer(conversation, "250 ok", "250 ok", "250 taken", "250 reset", OUT_OF_ORDER)
    assert isinstance(first.outcome, Accepted)
    assert second.outcome is None
    assert (conversation.end, bool(conversation.spent)) == (None, True)
    answer(conversation, OUT_OF_ORDER, OUT_OF_ORDER)

    assert isinstance(second.outcome, NotSent)
    assert second.outcome.loss.how is FailureKind.AHEAD


def test_with_chunking_a_relay_that_closes_after_503_sent_nothing() -> None:
    """MAIL was refused, and what follows it belongs to that mail."""
    conversation = Conversation(CHUNKED)
    _, second = two_mails(conversation)
    answer(conversation, "250 ok", "250 ok", "250 taken", "250 reset", OUT_OF_ORDER)
    conversation.lose(FailureKind.EOF, "gone")

    assert isinstance(second.outcome, NotSent)


def test_with_chunking_silence_leaves_complete_mails_uncertain() -> None:
    """Their contents are out, and the relay may have taken them without a word."""
    conversation = Conversation(CHUNKED)
    _, second = two_mails(conversation)
    answer(conversation, "250 ok", "250 ok", "250 taken")
    conversation.lose(FailureKind.TIMEOUT, "silent")

    assert isinstance(second.outcome, Uncertain)
    assert conversation.ahead is not None


def test_503_to_a_reset_ahead_says_the_same() -> None:
    """The relay drops that too, and goes on; all of it is refused."""
    conversation = Conversation(CHUNKED)
    _, second = two_mails(conversation)
    answer(conversation, "250 ok", "250 ok", "250 taken", OUT_OF_ORDER, OUT_OF_ORDER, OUT_OF_ORDER, OUT_OF_ORDER)

    assert isinstance(second.outcome, NotSent)
    assert conversation.ahead is not None
