"""Windows of mails against a correct relay that refuses at random: our outcomes are those of the relay.

Whether the replies to a whole message are read in one look or one by one (as they are for a wire log), and however they
are cut, must not show.
"""

from __future__ import annotations

import re
from itertools import count, pairwise
from typing import TYPE_CHECKING, Literal

from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.conversation import Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Outcome, Uncertain
from trio_worker.smtp.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from trio_worker.smtp.reply import Reply, Stage

YES = ["250 ok", "250", "250 2.0.0 " + "long " * 30, "250-two\r\n250 lines", "251 forwards", "250 2.1.5 Ok\r"]
NO = ["450 later", "550 5.1.1 no", "552 full", "550-two\r\n550 lines"]
AGAINST_THE_RULES = ["220 hi", "354 go", "x", "250-unfinished"]
# Longer than any stream of replies here.
EVERY_BYTE = frozenset(range(3000))

Watch = Literal["never", "always", "at times"]


@define
class PlayedRelay:
    """A relay that answers each command as its dice say and notes what it took, and for whom.

    Of a hundred sides, the first seventy say yes, the next twenty-nine no, and the last ends the connection. No to RSET
    ends it too.
    """

    dice: tuple[int, ...]
    breaks_rules: bool
    taken: dict[bytes, list[str]] = field(factory=dict)
    _sender: bytes | None = None
    _recipients: list[str] = field(factory=list)
    _unread: bytes = b""
    _in_content: bool = False
    _is_over: bool = False
    _rolls: Iterator[int] = field(factory=count)

    def hear(self, wire: bytes) -> list[str]:
        """Return the replies to all commands that are whole by now."""
        self._unread += wire
        replies: list[str] = []
        while not self._is_over and (reply := self._next_reply()) is not None:
            replies.append(reply)
        return replies

    def _next_reply(self) -> str | None:
        if self._in_content:
            return self._end_of_content()
        line, found, rest = self._unread.partition(b"\r\n")
        if not found:
            return None
        verb, *words = line.split()
        content = b""
        if verb == b"BDAT":
            size = int(words[0])
            if len(rest) < size:
                return None
            content, rest = rest[:size], rest[size:]
        self._unread = rest
        return self._answer(verb, line, content)

    def _answer(self, verb: bytes, line: bytes, content: bytes) -> str:
        match verb:
            case b"RSET":
                self._sender, self._recipients = None, []
                reply = self._roll(yes="250 reset")
                self._is_over = self._is_over or reply.startswith(("4", "5"))
                return reply
            case b"MAIL" if self._sender is None:
                reply = self._roll()
                self._sender = line if reply.startswith("2") else None
                return reply
            case b"RCPT" if self._sender is not None:
                reply = self._roll()
                if reply.startswith("2"):
                    self._recipients += re.findall(r"<(.*)>", line.decode())
                return reply
            case b"BDAT" if self._recipients:
                return self._take(content)
            case b"DATA" if self._recipients:
                reply = self._roll(yes="354 go")
                self._in_content = reply.startswith("354")
                return reply
            case b"MAIL" | b"RCPT":
                return "503 out of order"
            case b"BDAT" | b"DATA":
                return "554 nobody"
            case _:
                raise AssertionError(line)

    def _end_of_content(self) -> str | None:
        stuffed, found, rest = (b"\r\n" + self._unread).partition(b"\r\n.\r\n")
        if not found:
            return None
        self._unread, self._in_content = rest, False
        reply = self._take((stuffed + b"\r\n")[2:].replace(b"\r\n..", b"\r\n."))
        self._sender, self._recipients = None, []
        return reply

    def _take(self, content: bytes) -> str:
        reply = self._roll()
        if reply.startswith("2"):
            assert content not in self.taken
            self.taken[content] = list(self._recipients)
            self._sender, self._recipients = None, []
        return reply

    def _roll(self, yes: str | None = None) -> str:
        side = self.dice[next(self._rolls) % len(self.dice)]
        if side == 99:
            self._is_over = True
            return "421 closing"
        if self.breaks_rules and side >= 90:
            return AGAINST_THE_RULES[side % len(AGAINST_THE_RULES)]
        if side < 70:
            return yes or YES[side % len(YES)]
        return NO[side % len(NO)]


@frozen
class Play:
    """Mails, how many of them may be under way, what the relay rolls, and how many of its replies come together."""

    capabilities: Capabilities
    envelopes: tuple[Envelope, ...]
    window: int
    groups: tuple[int, ...]
    dice: tuple[int, ...]
    breaks_rules: bool


@frozen
class Played:
    """What came of it, as far as it must not depend on how replies are cut and read."""

    outcomes: list[Outcome | None]
    wire: bytes
    delivered: int
    replies: int
    end: str


@st.composite
def plays(draw: st.DrawFn) -> Play:
    """Up to eight mails of one to four recipients, in every mode."""
    pipelining, chunking = draw(st.booleans()), draw(st.booleans())
    capabilities = Capabilities(pipelining=pipelining, chunking=chunking, eight_bit=draw(st.booleans()), smtputf8=True)
    envelopes = []
    for number in range(draw(st.integers(1, 8))):
        is_utf8 = draw(st.integers(0, 4)) == 0
        letter = "ü" if is_utf8 else "u"
        recipients = [f"{letter}{number}-{each}@example.org" for each in range(draw(st.integers(1, 4)))]
        envelopes.append(
            Envelope(
                f"s{number}@example.com",
                tuple(recipients),
                b"number %d\r\n.a dot\r\n" % number,
                needs_smtputf8=is_utf8,
                awaits_recipients=draw(st.booleans()),
            )
        )
    most = 6 if pipelining and chunking else 2 if pipelining else 1
    side = st.one_of(st.integers(0, 69), st.integers(0, 99))
    return Play(
        capabilities,
        tuple(envelopes),
        window=draw(st.integers(1, most)),
        groups=tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))),
        dice=tuple(draw(st.lists(side, min_size=1, max_size=40))),
        breaks_rules=draw(st.integers(0, 3)) == 0,
    )


def _hear_nothing(_stage: Stage, _transaction: Transaction | None, _reply: Reply) -> None:
    """Take each reply, and do nothing with it."""


def _run(play: Play, cuts: AbstractSet[int], watch: Watch) -> tuple[Played, PlayedRelay, list[Transaction]]:
    conversation = Conversation(play.capabilities)
    relay = PlayedRelay(play.dice, play.breaks_rules)
    todo, transactions = list(play.envelopes), []
    pending: list[str] = []
    wire = bytearray()

    def write() -> None:
        written = b"".join(conversation.take_outgoing())
        wire.extend(written)
        pending.extend(relay.hear(written))

    for turn in count():
        is_watched = watch == "always" or (watch == "at times" and turn % 3 == 1)
        conversation.on_reply = _hear_nothing if is_watched else None
        while todo and conversation.in_flight < play.window and not (conversation.end or conversation.spent):
            transactions.append(conversation.begin(todo.pop(0)))
        write()
        if not pending or conversation.end is not None:
            break
        size = play.groups[turn % len(play.groups)]
        stream = "".join(f"{reply}\r\n" for reply in pending[:size]).encode()
        del pending[:size]
        for start, end in pairwise(sorted({0, len(stream)} | {cut for cut in cuts if cut < len(stream)})):
            conversation.receive(stream[start:end])
            if conversation.end is None:
                write()
    conversation.lose(FailureKind.EOF, "the end")
    decided = conversation.take_decided()
    assert len({id(each) for each in decided}) == len(decided) == len(transactions)
    played = Played(
        [each.outcome for each in transactions],
        bytes(wire),
        conversation.delivered,
        conversation.replies,
        str(conversation.end),
    )
    return played, relay, transactions


@given(plays(), st.frozensets(st.integers(0, 200), max_size=30))
@settings(deadline=None)
def test_how_replies_are_cut_and_read_does_not_show(play: Play, cuts: frozenset[int]) -> None:
    """Same outcomes, same bytes, same counts: at once, byte by byte, and with a callback for each reply."""
    played, _, _ = _run(play, frozenset(), "never")

    watches: list[Watch] = ["never", "always", "at times"]
    for where in (frozenset[int](), cuts, EVERY_BYTE):
        for watch in watches:
            assert _run(play, where, watch)[0] == played


@given(plays())
@settings(deadline=None)
def test_what_is_believed_is_what_the_relay_took(play: Play) -> None:
    """An accepted mail was taken for those whom no refusal names; any other was not taken, or is uncertain."""
    _, relay, transactions = _run(play, frozenset(), "never")
    if play.breaks_rules:
        return

    believed = {}
    for transaction in transactions:
        envelope = transaction.envelope
        if isinstance(transaction.outcome, Accepted):
            refused = {each.recipient for each in transaction.outcome.refusals}
            believed[envelope.content] = [each for each in envelope.recipients if each not in refused]
        elif isinstance(transaction.outcome, Uncertain):
            relay.taken.pop(envelope.content, None)
    assert believed == relay.taken
