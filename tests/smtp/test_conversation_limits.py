"""A limit on the mails of one connection: what it refuses was not sent, and another connection takes it."""

from __future__ import annotations

import pytest

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.conversation import Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, NotSent, Refused
from trio_worker.smtp.transaction import Transaction

MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")
MODES = [Capabilities(pipelining=True, chunking=True), Capabilities(pipelining=True), Capabilities()]
ENOUGH = "452 4.5.3 Too many recipients: Too many messages sent"


def begin(conversation: Conversation) -> tuple[Transaction, bytes]:
    transaction = conversation.begin(MAIL)
    return transaction, b"".join(conversation.take_outgoing())


def answer(conversation: Conversation, *replies: str) -> bytes:
    conversation.receive("".join(f"{reply}\r\n" for reply in replies).encode())
    return b"".join(conversation.take_outgoing())


def send(conversation: Conversation) -> Transaction:
    """Send one mail; the relay takes it, whatever is written together."""
    transaction, wire = begin(conversation)
    while transaction.outcome is None:
        verbs = [line.split(b" ")[0] for line in wire.splitlines()]
        known = [verb for verb in verbs if verb in {b"RSET", b"MAIL", b"RCPT", b"DATA", b"BDAT"}]
        wire = answer(conversation, *["354 go" if verb == b"DATA" else "250 ok" for verb in known or [b"."]])
    return transaction


@pytest.mark.parametrize("capabilities", MODES)
def test_the_limit_of_a_connection_ends_it_and_nothing_is_refused(capabilities: Capabilities) -> None:
    """OpenSMTPD says so after 100 mails; the connection has worked, so the mail costs nothing and goes over another."""
    conversation = Conversation(capabilities)
    assert isinstance(send(conversation).outcome, Accepted)
    over, _ = begin(conversation)
    answer(conversation, *["250 ok"] * (conversation.awaited == "rset"), ENOUGH)

    assert isinstance(over.outcome, NotSent)
    assert over.outcome.loss.how is FailureKind.CLOSING
    assert over.outcome.loss.had_delivered
    assert conversation.end is not None


@pytest.mark.parametrize(("sent", "reply"), [(0, ENOUGH), (1, "452 4.3.1 no room"), (1, "550 5.5.3 no")])
def test_any_other_refusal_at_mail_is_one(sent: int, reply: str) -> None:
    """The first mail of a connection meets no limit of it, and other codes say something else."""
    conversation = Conversation(Capabilities())
    for _ in range(sent):
        send(conversation)
    refused, _ = begin(conversation)
    answer(conversation, *["250 ok"] * (conversation.awaited == "rset"), reply)

    assert isinstance(refused.outcome, Refused)
    assert conversation.end is None
