"""RSET: only where the relay may have an open transaction; one that refuses it is closing, and nothing is in doubt."""

from __future__ import annotations

import pytest

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.conversation import EXTRA_RESETS_LIMIT, Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, NotSent, Refused, Uncertain
from trio_worker.smtp.reply import Stage
from trio_worker.smtp.transaction import Transaction

CHUNKED = Capabilities(pipelining=True, chunking=True)
PIPELINED = Capabilities(pipelining=True)
LOCKSTEP = Capabilities()
LOCKSTEP_CHUNKED = Capabilities(chunking=True)
MODES = [CHUNKED, PIPELINED, LOCKSTEP, LOCKSTEP_CHUNKED]
MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")
AWAITING = Envelope("us@example.com", ("a@example.org",), b"x\r\n", awaits_recipients=True)
EXIM_HAS_ENOUGH = "554 Too many nonmail commands"


def begin(conversation: Conversation, envelope: Envelope = MAIL) -> tuple[Transaction, bytes]:
    transaction = conversation.begin(envelope)
    return transaction, b"".join(conversation.take_outgoing())


def answer(conversation: Conversation, *replies: str) -> bytes:
    conversation.receive("".join(f"{reply}\r\n" for reply in replies).encode())
    return b"".join(conversation.take_outgoing())


def accept(conversation: Conversation, wire: bytes) -> None:
    """Answer each command of the writes that follow, until the relay has taken the mail."""
    while wire:
        is_dot = wire.endswith(b"\r\n.\r\n")
        verbs = [] if is_dot else [line.split(b" ")[0] for line in wire.split(b"\r\n")]
        count = 1 if is_dot else sum(verb in {b"RSET", b"MAIL", b"RCPT", b"BDAT"} for verb in verbs)
        wire = answer(conversation, *["250 ok"] * count, *["354 go"] * (b"DATA" in verbs))


@pytest.mark.parametrize("capabilities", MODES)
@pytest.mark.parametrize("reply", ["550 5.7.1 not you", "451 later"])
def test_no_rset_after_a_refused_sender(capabilities: Capabilities, reply: str) -> None:
    """MAIL was refused, so no transaction began; only what a refused BDAT leaves is unknown (RFC 3030, 2)."""
    conversation = Conversation(capabilities)
    refused, wire = begin(conversation)
    answer(conversation, reply, *["503 bad sequence"] * (wire.count(b"\r\n") - 1 - (b"BDAT" in wire)))
    assert isinstance(refused.outcome, Refused)

    after, wire = begin(conversation)
    accept(conversation, wire)

    assert (b"RSET" in wire) == (capabilities is CHUNKED)
    assert isinstance(after.outcome, Accepted)


def test_no_rset_after_a_refused_sender_whose_content_had_waited() -> None:
    """Of such a mail no BDAT was written."""
    conversation = Conversation(CHUNKED)
    refused, _ = begin(conversation, AWAITING)
    answer(conversation, "550 not you", "503 bad sequence")
    assert isinstance(refused.outcome, Refused)

    assert b"RSET" not in begin(conversation)[1]


@pytest.mark.parametrize(("capabilities", "replies"), [
    (PIPELINED, ["250 ok", "250 ok", "354 go", "550 content"]),
    (LOCKSTEP, ["250 ok", "250 ok", "354 go", "550 content"]),
    (PIPELINED, ["250 ok", "550 no such user", "354 go", "554 nobody"]),
    (PIPELINED, ["550 not you", "503 no", "354 go", "554 nobody"]),
])  # fmt: skip
def test_no_rset_after_a_final_dot(capabilities: Capabilities, replies: list[str]) -> None:
    """It ends a transaction, whatever the reply (RFC 5321 4.1.1.4)."""
    conversation = Conversation(capabilities)
    refused, _ = begin(conversation)
    for reply in replies:
        answer(conversation, reply)
    assert isinstance(refused.outcome, Refused)

    assert b"RSET" not in begin(conversation)[1]


@pytest.mark.parametrize(("capabilities", "envelope", "replies"), [
    (CHUNKED, MAIL, ["250 ok", "550 no such user", "503 nobody"]),
    (CHUNKED, MAIL, ["250 ok", "250 ok", "550 content"]),
    (CHUNKED, MAIL, ["550 not you", "503 no", "503 no"]),
    (CHUNKED, AWAITING, ["250 ok", "550 no such user"]),
    (PIPELINED, MAIL, ["250 ok", "550 no such user", "503 nobody"]),
    (PIPELINED, MAIL, ["250 ok", "250 ok", "451 not now"]),
    (PIPELINED, MAIL, ["550 not you", "250 ok", "503 nobody"]),
    (LOCKSTEP, MAIL, ["250 ok", "550 no such user"]),
    (LOCKSTEP, MAIL, ["250 ok", "250 ok", "451 not now"]),
    (LOCKSTEP_CHUNKED, MAIL, ["250 ok", "550 no such user"]),
    (LOCKSTEP_CHUNKED, MAIL, ["250 ok", "250 ok", "550 content"]),
])  # fmt: skip
def test_rset_where_a_transaction_may_stand(capabilities: Capabilities, envelope: Envelope, replies: list[str]) -> None:
    """MAIL was taken and no content ended it; or BDAT was refused; or the replies contradict each other."""
    conversation = Conversation(capabilities)
    refused, _ = begin(conversation, envelope)
    for reply in replies:
        answer(conversation, reply)
    assert isinstance(refused.outcome, Refused)

    after, wire = begin(conversation)
    assert wire.startswith(b"RSET\r\n")
    accept(conversation, wire)
    assert isinstance(after.outcome, Accepted)


@pytest.mark.parametrize("capabilities", [LOCKSTEP, LOCKSTEP_CHUNKED])
def test_without_pipelining_rset_goes_alone(capabilities: Capabilities) -> None:
    """Nothing is assumed that EHLO did not offer: MAIL waits for the reply to RSET."""
    conversation = Conversation(capabilities)
    begin(conversation)
    answer(conversation, "250 ok")
    answer(conversation, "550 no such user")

    after, wire = begin(conversation)

    assert wire == b"RSET\r\n"
    assert answer(conversation, "250 reset").startswith(b"MAIL FROM:")
    answer(conversation, "421 closing")
    assert isinstance(after.outcome, NotSent)


@pytest.mark.case("C34")
@pytest.mark.parametrize("capabilities", MODES)
@pytest.mark.parametrize("reply", [EXIM_HAS_ENOUGH, "450 4.7.0 too many errors", "502 what?"])
@pytest.mark.parametrize("how", [FailureKind.EOF, FailureKind.RESET])
def test_a_refused_rset_is_the_relay_closing(capabilities: Capabilities, reply: str, how: FailureKind) -> None:
    """What came behind it was not sent: no mail is uncertain, and none is refused for what the relay says."""
    conversation = Conversation(capabilities)
    refused, _ = begin(conversation)
    for said in ["250 ok", "550 no such user", "503 nobody"][: 3 if capabilities.pipelining else 2]:
        answer(conversation, said)
    after = [begin(conversation)[0] for _ in range(3)]

    answer(conversation, reply)
    conversation.lose(how, "gone")

    assert isinstance(refused.outcome, Refused)
    for each in after:
        assert isinstance(each.outcome, NotSent)
        assert (each.outcome.loss.how, each.outcome.loss.stage) == (FailureKind.CLOSING, Stage.RSET)
        assert each.outcome.loss.had_delivered
    assert isinstance(conversation.begin(MAIL).outcome, NotSent)
    assert conversation.take_outgoing() == []


def test_a_relay_that_goes_on_after_refusing_rset_is_believed() -> None:
    """An acceptance counts, or the mail would go twice; a refusal there may come from the sender that stood."""
    conversation = Conversation(CHUNKED)
    begin(conversation)
    answer(conversation, "250 ok", "550 no such user", "503 nobody")
    first, second, third = [conversation.begin(MAIL) for _ in range(3)]
    conversation.take_outgoing()

    answer(conversation, "502 what?", "250 ok", "250 ok", "250 taken")
    assert isinstance(first.outcome, Accepted)
    assert (conversation.end, bool(conversation.spent)) == (None, True)
    answer(conversation, "502 what?", "503 nested", "250 ok", "550 content")
    assert isinstance(second.outcome, NotSent)
    answer(conversation, "250 ok", "250 ok", "250 ok", "250 taken")

    assert isinstance(third.outcome, Accepted)
    assert conversation.end is not None
    assert conversation.end.how is FailureKind.CLOSING


def test_a_relay_that_refuses_rset_and_then_says_nothing_leaves_what_is_complete_uncertain() -> None:
    """It did not close, so it may have taken the mail."""
    conversation = Conversation(CHUNKED)
    begin(conversation)
    answer(conversation, "250 ok", "550 no such user", "503 nobody")
    complete, incomplete = conversation.begin(MAIL), conversation.begin(AWAITING)
    conversation.take_outgoing()

    answer(conversation, "502 what?")
    conversation.lose(FailureKind.TIMEOUT, "silent")

    assert isinstance(complete.outcome, Uncertain)
    assert isinstance(incomplete.outcome, NotSent)


def test_mails_whose_content_had_waited_are_given_up_with_the_last_reply() -> None:
    """After a refused RSET no content is written any more."""
    conversation = Conversation(CHUNKED)
    begin(conversation)
    answer(conversation, "250 ok", "550 no such user", "503 nobody")
    complete, waiting = conversation.begin(MAIL), conversation.begin(AWAITING)
    conversation.take_outgoing()

    assert answer(conversation, "502 what?", "250 ok", "250 ok", "250 taken", "250 ok", "250 ok", "250 ok") == b""

    assert isinstance(complete.outcome, Accepted)
    assert isinstance(waiting.outcome, NotSent)


@pytest.mark.case("C34")
@pytest.mark.parametrize("capabilities", MODES)
def test_a_connection_is_spent_before_exim_counts_too_many_rsets(capabilities: Capabilities) -> None:
    """Ten are allowed by default; an accepted mail between takes none of them back."""
    conversation = Conversation(capabilities)
    accepted = refused = resets = 0
    while not conversation.spent:
        transaction, wire = begin(conversation)
        if (accepted + refused) % 5:
            accept(conversation, wire)
            accepted += isinstance(transaction.outcome, Accepted)
            continue
        if wire == b"RSET\r\n":
            resets += 1
            wire = answer(conversation, "250 ok")
        elif wire.startswith(b"RSET"):
            resets += 1
            answer(conversation, "250 ok")
        answer(conversation, "250 ok")
        answer(conversation, "550 no such user")
        if transaction.outcome is None:
            answer(conversation, "503 nobody")
        refused += isinstance(transaction.outcome, Refused)

    assert (refused, conversation.spent) == (EXTRA_RESETS_LIMIT, "resets")
    assert accepted == 4 * (EXTRA_RESETS_LIMIT - 1)


def test_accepted_mails_and_refused_contents_use_up_no_resets() -> None:
    """Exim lets one RSET go for each message, and so every mail behind an open outcome may have one."""
    conversation = Conversation(CHUNKED)
    mails = [conversation.begin(MAIL) for _ in range(40)]
    wire = b"".join(conversation.take_outgoing())
    assert wire.count(b"RSET") == 39
    answer(conversation, "250 ok", "250 ok", "250 ok")
    for number in range(39):
        answer(conversation, "250 ok", "250 ok", "250 ok", "550 content" if number % 2 else "250 ok")

    assert {type(each.outcome) for each in mails} == {Accepted, Refused}
    assert (conversation.extra_resets, conversation.spent) == (0, "")
