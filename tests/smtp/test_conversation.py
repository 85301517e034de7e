"""The conversation: what is written together, what replies decide, and that no split of them changes anything."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_worker.capture.server_profile import EXTENSIONS
from trio_worker.smtp.capabilities import Capabilities, read_ehlo
from trio_worker.smtp.conversation import Conversation
from trio_worker.smtp.envelope import Envelope, dot_stuffed
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, NotSent, Outcome, Refused, Uncertain, Unsendable
from trio_worker.smtp.reply import Stage
from trio_worker.smtp.transaction import Transaction

CHUNKED = Capabilities(pipelining=True, chunking=True, eight_bit=True, has_size=True, size_limit_bytes=1000)
PIPELINED = Capabilities(pipelining=True)
LOCKSTEP = Capabilities()
LOCKSTEP_CHUNKED = Capabilities(chunking=True)
MODES = [CHUNKED, PIPELINED, LOCKSTEP, LOCKSTEP_CHUNKED]
MAIL = Envelope("us@example.com", ("a@example.org",), b"Subject: x\r\n\r\n.dot\r\n")
TWO = Envelope("us@example.com", ("a@example.org", "b@example.org"), MAIL.content)


def begin(conversation: Conversation, envelope: Envelope = MAIL) -> tuple[Transaction, bytes]:
    transaction = conversation.begin(envelope)
    return transaction, b"".join(conversation.take_outgoing())


def answer(conversation: Conversation, *replies: str) -> bytes:
    conversation.receive("".join(f"{reply}\r\n" for reply in replies).encode())
    return b"".join(conversation.take_outgoing())


class Relay:
    """Answers each command of a conversation as scripted, also if several were written together."""

    def __init__(self, conversation: Conversation, *, final: str = "250 ok", rcpts: tuple[str, ...] = ()) -> None:
        self.conversation, self.final, self.rcpts = conversation, final, list(rcpts)
        self.in_content, self.writes = False, 0

    def serve(self, wire: bytes) -> None:
        while wire:
            self.writes += 1
            wire = answer(self.conversation, *self._replies(wire))

    def _replies(self, wire: bytes) -> list[str]:
        replies: list[str] = []
        while wire:
            if self.in_content:
                assert wire.endswith(b".\r\n")
                self.in_content = False
                return [*replies, self.final]
            line, _, wire = wire.partition(b"\r\n")
            verb, *words = line.split()
            if verb == b"BDAT":
                wire = wire[int(words[0]) :]
                replies.append(self.final)
            elif verb == b"DATA":
                self.in_content = True
                replies.append("354 go")
            elif verb == b"RCPT":
                replies.append(self.rcpts.pop(0) if self.rcpts else "250 ok")
            else:
                replies.append("250 ok")
        return replies


def test_with_chunking_and_pipelining_a_mail_is_one_write() -> None:
    """MAIL, RCPT and the content travel together; the reply to the last byte decides."""
    conversation = Conversation(CHUNKED)

    transaction, wire = begin(conversation)

    content = MAIL.content
    assert wire == (
        b"MAIL FROM:<us@example.com> SIZE=%d BODY=7BIT\r\nRCPT TO:<a@example.org>\r\nBDAT %d LAST\r\n%b"
        % (len(content), len(content), content)
    )
    assert answer(conversation, "250 ok", "250 ok") == b""
    assert transaction.outcome is None
    answer(conversation, "250 2.0.0 queued")
    assert isinstance(transaction.outcome, Accepted)
    assert transaction.outcome.reply.enhanced == "2.0.0"


def test_with_pipelining_the_envelope_is_one_write_and_the_content_another() -> None:
    """DATA ends the first group; the content follows 354, its dots doubled."""
    conversation = Conversation(PIPELINED)
    transaction, wire = begin(conversation)
    assert wire == b"MAIL FROM:<us@example.com>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n"

    wire = answer(conversation, "250 ok", "250 ok", "354 go")

    assert wire == b"Subject: x\r\n\r\n..dot\r\n.\r\n"
    answer(conversation, "250 ok")
    assert isinstance(transaction.outcome, Accepted)


def test_without_pipelining_every_command_waits() -> None:
    """One command, one reply."""
    conversation = Conversation(LOCKSTEP)
    transaction, wire = begin(conversation)
    written = [wire, *(answer(conversation, reply) for reply in ("250 ok", "250 ok", "354 go"))]
    answer(conversation, "250 ok")

    assert [part.split(b"\r\n")[0] for part in written] == [
        b"MAIL FROM:<us@example.com>",
        b"RCPT TO:<a@example.org>",
        b"DATA",
        b"Subject: x",
    ]
    assert isinstance(transaction.outcome, Accepted)


def test_a_cautious_mail_keeps_its_content_until_the_recipients_are_answered() -> None:
    """So a connection that dies before proves that nothing was accepted."""
    conversation = Conversation(CHUNKED)
    envelope = Envelope(MAIL.sender, MAIL.recipients, MAIL.content, awaits_recipients=True)
    transaction, wire = begin(conversation, envelope)
    assert b"BDAT" not in wire
    conversation.lose(FailureKind.EOF, "gone")

    assert isinstance(transaction.outcome, NotSent)


@pytest.mark.parametrize("capabilities", MODES)
def test_many_mails_in_a_row_are_accepted_in_every_mode(capabilities: Capabilities) -> None:
    """A good session needs no RSET."""
    conversation = Conversation(capabilities)
    relay = Relay(conversation)
    for _ in range(5):
        transaction, wire = begin(conversation)
        assert b"RSET" not in wire
        relay.serve(wire)
        assert isinstance(transaction.outcome, Accepted)

    assert conversation.delivered == 5


@pytest.mark.parametrize("capabilities", MODES)
def test_the_mail_after_a_refused_one_begins_with_rset_where_a_sender_may_stand(capabilities: Capabilities) -> None:
    """A refused BDAT, or a MAIL whose recipients were all refused, can leave the old sender standing."""
    conversation = Conversation(capabilities)
    refused, wire = begin(conversation)
    Relay(conversation, rcpts=("550 5.1.1 no such user",), final="503 no recipients").serve(wire)
    assert isinstance(refused.outcome, Refused)
    assert refused.outcome.reply.stage is Stage.RCPT

    after, wire = begin(conversation)
    Relay(conversation).serve(wire)

    # In DATA mode with pipelining the lone dot has cleared the transaction already.
    assert wire.startswith(b"RSET\r\n") or capabilities is PIPELINED
    assert isinstance(after.outcome, Accepted)


@pytest.mark.parametrize("capabilities", MODES)
def test_each_recipient_has_its_own_fate(capabilities: Capabilities) -> None:
    """One refused recipient does not keep the mail from the other."""
    conversation = Conversation(capabilities)
    transaction, wire = begin(conversation, TWO)
    Relay(conversation, rcpts=("452 4.2.2 full", "250 ok")).serve(wire)

    assert isinstance(transaction.outcome, Accepted)
    assert [(each.recipient, each.reply.code) for each in transaction.outcome.refusals] == [("a@example.org", 452)]


@pytest.mark.parametrize("capabilities", MODES)
def test_a_refused_sender_is_reported_as_such(capabilities: Capabilities) -> None:
    """The errors that follow from it are not."""
    conversation = Conversation(capabilities)
    transaction, wire = begin(conversation)
    replies = ["550 5.7.1 not you"] + ["503 bad sequence"] * (len(wire.split(b"\r\n")) > 3) * 2
    answer(conversation, *replies)

    assert isinstance(transaction.outcome, Refused)
    assert (transaction.outcome.reply.code, transaction.outcome.reply.stage) == (550, Stage.MAIL)


def test_go_ahead_with_nobody_accepted_gets_a_lone_dot() -> None:
    """The content of a mail without an accepted recipient is never sent."""
    conversation = Conversation(PIPELINED)
    transaction, _ = begin(conversation)

    assert answer(conversation, "250 ok", "550 no", "354 go") == b".\r\n"
    answer(conversation, "250 ok, an empty one")
    assert isinstance(transaction.outcome, Refused)
    assert transaction.outcome.reply.code == 550


@pytest.mark.case("C14")
@pytest.mark.parametrize("capabilities", MODES)
def test_421_proves_that_nothing_was_accepted(capabilities: Capabilities) -> None:
    """Wherever it comes, the mail was not sent and the conversation is over."""
    conversation = Conversation(capabilities)
    transaction, _ = begin(conversation)
    answer(conversation, "421 4.3.2 closing")

    assert isinstance(transaction.outcome, NotSent)
    assert transaction.outcome.loss.how is FailureKind.CLOSING
    assert conversation.end is not None


@pytest.mark.case("C12")
@pytest.mark.parametrize(("capabilities", "replies", "kind"), [
    (CHUNKED, [], Uncertain),
    (CHUNKED, ["250 ok"], Uncertain),
    (CHUNKED, ["250 ok", "550 no such user"], Refused),
    (CHUNKED, ["550 not you"], Refused),
    (PIPELINED, [], NotSent),
    (PIPELINED, ["250 ok", "250 ok"], NotSent),
    (PIPELINED, ["250 ok", "250 ok", "354 go"], Uncertain),
    (LOCKSTEP, ["250 ok", "250 ok"], NotSent),
    (LOCKSTEP, ["250 ok", "250 ok", "354 go"], Uncertain),
])  # fmt: skip
def test_a_lost_connection_is_uncertain_only_once_the_last_byte_is_out(
    capabilities: Capabilities, replies: list[str], kind: type[Outcome]
) -> None:
    """What was refused before stays refused; what was not complete was not sent."""
    conversation = Conversation(capabilities)
    transaction, _ = begin(conversation)
    for reply in replies:
        answer(conversation, reply)
    conversation.lose(FailureKind.EOF, "gone")

    assert type(transaction.outcome) is kind


def test_bytes_that_never_left_us_prove_that_the_mail_was_not_sent() -> None:
    """An abort drops what the kernel had not taken."""
    conversation = Conversation(CHUNKED)
    transaction, _ = begin(conversation)
    conversation.lose(FailureKind.RESET, "gone", unsent_bytes=1)

    assert isinstance(transaction.outcome, NotSent)


@pytest.mark.case("C6")
@pytest.mark.parametrize("reply", ["354 what?", "250", "220 hello", "199 no", "2x0 no", "", "x" * 5000])
def test_a_reply_that_no_command_can_earn_ends_the_conversation(reply: str) -> None:
    """A surplus, an impossible class, a malformed line: never resynchronised by guessing."""
    conversation = Conversation(CHUNKED)
    transaction, wire = begin(conversation)
    Relay(conversation).serve(wire)
    answer(conversation, reply)

    assert conversation.end is not None
    assert conversation.end.how is FailureKind.GARBLED
    assert isinstance(conversation.begin(MAIL).outcome, NotSent)
    assert isinstance(transaction.outcome, Accepted)


@pytest.mark.case("C6")
def test_a_relay_that_answers_the_content_before_it_came_is_out_of_step() -> None:
    """354 and 250 in one write: nothing was sent, and the loss names the command that has one answer too many."""
    conversation = Conversation(PIPELINED)
    transaction, _ = begin(conversation)
    wire = answer(conversation, "250 ok", "250 ok", "354 go", "250 taken")

    assert wire == b""
    assert isinstance(transaction.outcome, NotSent)
    loss = transaction.outcome.loss
    assert (loss.how, loss.stage, loss.had_delivered) == (FailureKind.GARBLED, Stage.DATA, False)


@pytest.mark.case("C8")
@pytest.mark.parametrize("capabilities", MODES)
def test_a_final_reply_that_is_too_long_has_told_the_outcome(capabilities: Capabilities) -> None:
    """The mail is sent, and the connection is dropped."""
    conversation = Conversation(capabilities)
    transaction, wire = begin(conversation)
    Relay(conversation, final="250-taken\r\n" * 50_000 + "250 taken").serve(wire)

    assert isinstance(transaction.outcome, Accepted)
    assert conversation.end is not None


@pytest.mark.parametrize("capabilities", MODES)
def test_one_reply_with_two_codes_costs_neither_the_connection_nor_the_other_recipient(
    capabilities: Capabilities,
) -> None:
    """Its last line decides."""
    conversation = Conversation(capabilities)
    transaction, wire = begin(conversation, TWO)
    Relay(conversation, rcpts=("250-ok\r\n550 5.1.1 no such user", "550-odd\r\n250 ok")).serve(wire)

    assert isinstance(transaction.outcome, Accepted)
    assert [(each.recipient, each.reply.code) for each in transaction.outcome.refusals] == [("a@example.org", 550)]
    assert conversation.end is None


def test_data_answered_by_250_is_not_believed() -> None:
    """Off by one would report the wrong mail as sent."""
    conversation = Conversation(PIPELINED)
    transaction, _ = begin(conversation)
    answer(conversation, "250 ok", "250 ok", "250 ok")

    assert isinstance(transaction.outcome, NotSent)


def test_a_mail_accepted_against_its_own_refusals_is_accepted_and_the_conversation_ends() -> None:
    """Success is decided by the final reply alone; what follows on such a connection is not trusted."""
    conversation = Conversation(CHUNKED)
    transaction, _ = begin(conversation)
    answer(conversation, "503 nested MAIL", "250 ok", "250 ok")

    assert isinstance(transaction.outcome, Accepted)
    assert conversation.end is not None


@pytest.mark.case("C29", "C30")
@pytest.mark.parametrize(("envelope", "capabilities", "word"), [
    (Envelope("us@example.com", ("a@example.org",), b"x" * 1001 + b"\r\n"), CHUNKED, "1003 bytes"),
    (Envelope("us@example.com", ("ä@example.org",), b"x\r\n", needs_smtputf8=True), CHUNKED, "SMTPUTF8"),
    (Envelope("us@example.com", ("a@example.org",), b"\xe4\r\n", is_eight_bit=True), PIPELINED, "8BITMIME"),
    (Envelope("us@example.com", ("a@b>\r\nDATA",), b"x\r\n"), CHUNKED, "address"),
    (Envelope("us@example.com", (), b"x\r\n"), CHUNKED, "address"),
    (Envelope("us@example.com", ("a@example.org",), b"a\n.\r\n"), PIPELINED, "CRLF"),
    (Envelope("us@example.com", ("a@example.org",), b"a\r.\r\n"), PIPELINED, "CRLF"),
    (Envelope("us@example.com", ("a@example.org",), b"a\rb\n\r\n"), PIPELINED, "CRLF"),
    (Envelope("us@example.com", ("a@example.org",), b"a"), PIPELINED, "CRLF"),
])  # fmt: skip
def test_a_mail_that_the_relay_cannot_take_never_reaches_the_wire(
    envelope: Envelope, capabilities: Capabilities, word: str
) -> None:
    """It is unfit, with the reason, and the conversation goes on."""
    conversation = Conversation(capabilities)
    transaction, wire = begin(conversation, envelope)

    assert isinstance(transaction.outcome, Unsendable)
    assert word in transaction.outcome.why
    assert wire == b""
    assert conversation.end is None


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\xe4\x00"]), max_size=12).map(b"".join),
    st.integers(1, 5),
    st.booleans(),
)
def test_content_has_no_line_end_but_crlf(before: bytes, at_once: int, chunking: bool) -> None:  # noqa: FBT001
    """A lone CR or LF is found at any position, also in a large content that is checked in slices; and nothing else is.

    Also with BDAT, where no line end ends a message: the relay may forward it with DATA.
    """
    content = before + b"\r\n"
    conversation = Conversation(Capabilities(pipelining=True, eight_bit=True, chunking=chunking))
    envelope = Envelope("us@example.com", ("a@example.org",), content)
    is_sound = re.fullmatch(rb"(?:[^\r\n]|\r\n)*", content) is not None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trio_worker.smtp.envelope._CHECKED_OCTETS", at_once)
        transaction = conversation.begin(envelope)

    assert (transaction.outcome is None) == is_sound


def test_a_mail_that_cannot_be_put_into_words_leaves_nothing_behind() -> None:
    """That an address goes beyond ASCII is the composer's to say: a slip there must not spoil the connection."""
    conversation = Conversation(CHUNKED)

    with pytest.raises(UnicodeEncodeError):
        conversation.begin(evolve(MAIL, recipients=("ä@example.org",)))

    assert conversation.in_flight == 0
    assert conversation.take_outgoing() == []


def test_quit_goes_alone() -> None:
    """Some relays run only the QUIT of a group that ends with it."""
    conversation = Conversation(CHUNKED)
    conversation.quit()

    assert conversation.take_outgoing() == [b"QUIT\r\n"]
    assert conversation.awaited is Stage.QUIT
    answer(conversation, "221 bye")
    assert conversation.awaited is None


def _play(capabilities: Capabilities, replies: list[str], cuts: set[int]) -> list[object]:
    """Answer what was written, each group of replies cut at the given places; return all that came of it."""
    conversation = Conversation(capabilities)
    transaction, wire = begin(conversation, TWO)
    written, left = [wire], list(replies)
    while left and transaction.outcome is None:
        owed = len(conversation._expected)
        stream = "".join(f"{reply}\r\n" for reply in left[:owed]).encode()
        del left[:owed]
        places = sorted({cut for cut in cuts if cut < len(stream)} | {0, len(stream)})
        for start, end in pairwise(places):
            conversation.receive(stream[start:end])
            written.extend(conversation.take_outgoing())
    conversation.lose(FailureKind.EOF, "the end")
    return [transaction.outcome, b"".join(written), conversation.delivered]


REPLY = st.sampled_from(
    ["250 ok", "250-two\r\n250 lines", "354 go", "421 closing", "450 later", "550 5.1.1 no", "552 full", "220 hi", "x"]
)


@pytest.mark.case("C5")
@given(st.sampled_from(MODES), st.lists(REPLY, max_size=8), st.sets(st.integers(0, 200), max_size=40))
def test_replies_cut_anywhere_decide_the_same(capabilities: Capabilities, replies: list[str], cuts: set[int]) -> None:
    """Byte by byte, all at once, or anything between: same outcomes, same bytes written."""
    whole = _play(capabilities, replies, set())

    assert _play(capabilities, replies, cuts) == whole
    assert _play(capabilities, replies, set(range(500))) == whole


@pytest.mark.case("C7")
@given(st.sampled_from(MODES), st.binary(max_size=200))
@settings(max_examples=300)
def test_no_bytes_make_a_conversation_raise(capabilities: Capabilities, received: bytes) -> None:
    """With any input from the relay, every mail has an outcome when the connection ends."""
    conversation = Conversation(capabilities)
    transaction = conversation.begin(TWO)
    conversation.receive(received)
    conversation.lose(FailureKind.EOF, "the end")

    assert transaction.outcome is not None


@pytest.mark.case("C32")
@given(st.binary(max_size=200))
def test_doubled_dots_can_be_undone_and_hide_no_end(content: bytes) -> None:
    """No line of stuffed content is a lone dot, and removing one dot of each such line gives the content back."""
    canonical = content.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    stuffed = dot_stuffed(canonical)

    assert b"\r\n.\r\n" not in b"\r\n" + stuffed
    lines = [line.removeprefix(b".") for line in stuffed.split(b"\r\n")]
    assert b"\r\n".join(lines) == canonical


def test_an_ehlo_reply_is_read_with_what_is_to_be_ignored() -> None:
    """Keywords in any case, parameters, the old AUTH= form; an ignored extension is as if not offered."""
    text = "mx.example.org hello\nPIPELINING\nsize 52428800\nAUTH LOGIN PLAIN\nAUTH=CRAM-MD5\nCHUNKING\n8BITMIME\n"

    found = read_ehlo(text, ["chunking"])

    assert (found.pipelining, found.chunking, found.eight_bit, found.smtputf8) == (True, False, True, False)
    assert (found.has_size, found.size_limit_bytes) == (True, 52428800)
    assert found.auth == {"LOGIN", "PLAIN", "CRAM-MD5"}


@given(st.text(max_size=300))
def test_no_ehlo_reply_makes_reading_raise(text: str) -> None:
    """An EHLO reply is the relay's text: anything."""
    assert read_ehlo(text, EXTENSIONS).pipelining is False


@pytest.mark.parametrize(("argument", "limit"), [
    ("52428800", 52428800),
    ("64000", 64000),
    ("", 0),
    ("0", 0),
    ("1", 0),
    ("35", 0),
    ("10240", 0),
    ("-5", 0),
    ("9" * 19, int("9" * 19)),
    ("9" * 5000, 0),
    ("\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668", 0),
])  # fmt: skip
def test_a_size_that_cannot_be_meant_is_no_limit(argument: str, limit: int) -> None:
    """Below what every relay must take it counts other units; the relay may refuse a mail itself."""
    found = read_ehlo(f"relay\nSIZE {argument}")

    assert (found.has_size, found.size_limit_bytes) == (True, limit)
