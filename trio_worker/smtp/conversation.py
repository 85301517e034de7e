"""Pure. The client's side of an SMTP session after the handshake: mails and reply bytes in, bytes and outcomes out.

How a transaction is written depends on what EHLO offered:

=====================  ==================================================  ===========
offered                written together                                    round trips
=====================  ==================================================  ===========
PIPELINING, CHUNKING   ``MAIL RCPT... BDAT n LAST <content>``              1
the same, awaiting     ``MAIL RCPT...``, then ``BDAT n LAST <content>``    2
PIPELINING             ``MAIL RCPT... DATA``, then ``<content> .``         2
CHUNKING               one command at a time, BDAT with its content        3 or more
neither                one command at a time                               4 or more
=====================  ==================================================  ===========

The rules that make this safe:

* Success is decided by the final reply alone.
* Number and class of the replies are invariants. One reply too many, or one of a class that the command cannot have,
  ends the conversation: there is no guessing which reply belongs to which command.
* A MAIL that is written while an earlier outcome is open, or while the relay may still have an earlier transaction, has
  RSET before it in the same write: after a refused BDAT the old sender may remain, and the next message would go out
  under it.
* The content is one single ``BDAT n LAST`` (RFC 3030): known relays delay or mishandle other chunks.
* QUIT is never written together with anything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from attrs import define, field

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.envelope import Envelope, dot_stuffed, mail_command, why_unsendable
from trio_worker.smtp.outcome import Accepted, FailureKind, Loss, NotSent, Outcome, Refusal, Uncertain, Unsendable
from trio_worker.smtp.reply import Garbled, RawReply, Reply, ReplyReader, Stage
from trio_worker.smtp.transaction import Transaction, WireStep

# The first digits that a reply to each command can have (RFC 5321 4.3.2). Only DATA has 3xx, and it never has 2xx.
_CLASSES: dict[Stage, frozenset[int]] = {
    Stage.MAIL: frozenset({2, 4, 5}),
    Stage.RCPT: frozenset({2, 4, 5}),
    Stage.DATA: frozenset({3, 4, 5}),
    Stage.FINAL: frozenset({2, 4, 5}),
    Stage.RSET: frozenset({2}),
    Stage.QUIT: frozenset({2, 4, 5}),
}
_CLOSING_CODE = 421


@define
class Conversation:
    """The SMTP dialogue with one relay, from the first MAIL to QUIT; it has no socket and no clock.

    ``begin`` and ``quit`` queue commands, ``receive`` takes replies; after one or more such calls ``take_outgoing``
    returns the bytes to write now, and the transactions have the outcomes that were decided. Call ``lose`` when the
    connection ended. Once ``end`` is set the connection must be aborted and never used again.
    """

    capabilities: Capabilities
    delivered: int = 0
    end: Loss | None = None
    replies: int = 0  # complete ones so far; the connection's timeout starts again with each
    written_bytes: int = 0
    last_reply: Reply | None = None
    # Called with each reply before it is processed, while the connection is traced.
    on_reply: Callable[[Stage, Transaction | None, Reply], object] | None = None
    _todo: deque[WireStep] = field(factory=deque)
    _expected: deque[WireStep] = field(factory=deque)  # written, and not all of their replies have come
    _answered: int = 0  # number of replies to the first of them so far
    _open: dict[Transaction, None] = field(factory=dict)  # in the order in which they began
    _decided: list[Transaction] = field(factory=list)
    _reader: ReplyReader = field(factory=ReplyReader)
    _outgoing: list[bytes] = field(factory=list)
    _awaits_go_ahead: bool = False  # DATA is written: nothing may follow before its reply (RFC 2920 3.1)
    _may_be_open: bool = False  # the relay may have an open transaction when the next MAIL arrives

    @property
    def in_flight(self) -> int:
        """Messages whose outcome is not known yet."""
        return len(self._open)

    @property
    def awaited(self) -> Stage | None:
        """The stage of the next reply; None while no reply is due."""
        return self._expected[0].stages[self._answered] if self._expected else None

    def begin(self, envelope: Envelope) -> Transaction:
        """Queue one message; a mail that this relay cannot take is decided at once, and nothing is written."""
        transaction = Transaction(envelope)
        if self.end is not None:
            transaction.outcome = NotSent(self.end)
            return transaction
        why = why_unsendable(envelope, self.capabilities)
        if why:
            transaction.outcome = Unsendable(why)
            return transaction
        self._todo.extend(self._steps(transaction))
        self._open[transaction] = None
        return transaction

    def quit(self) -> None:
        """Queue QUIT; only if no message is in flight."""
        self._todo.append(WireStep((Stage.QUIT,), None, b"QUIT\r\n", waits=True))

    def is_complete(self, transaction: Transaction, unsent_bytes: int) -> bool:
        """Whether a message was written in full and may have been sent; the last ``unsent_bytes`` were surely not."""
        sent_bytes = self.written_bytes - sum(map(len, self._outgoing)) - unsent_bytes
        return transaction.end_offset_bytes is not None and transaction.end_offset_bytes <= sent_bytes

    def take_decided(self) -> list[Transaction]:
        """Return the messages that were decided since the last call, without those that `begin` decided."""
        decided, self._decided = self._decided, []
        return decided

    def take_outgoing(self) -> list[bytes]:
        """Return the bytes to write now; the caller must write them or end the connection.

        They are in pieces, so that a large content is not copied.
        """
        self._pump()
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, received: bytes) -> None:
        """Take bytes from the relay, in whatever pieces they arrive."""
        self._reader.put(received)
        while self.end is None:
            if self._accept_at_once():
                continue
            match self._reader.read():
                case None:
                    return
                case RawReply() as read:
                    self._answer(read)
                case Garbled(what):
                    self._finish(FailureKind.GARBLED, what)

    def lose(self, how: FailureKind, what: str, unsent_bytes: int = 0) -> None:
        """End the conversation because the connection ended; the last ``unsent_bytes`` written were never sent."""
        if self.end is None:
            self._finish(how, what, unsent_bytes=unsent_bytes)

    # The methods below decide the outcomes; none of them awaits.

    def _steps(self, transaction: Transaction) -> list[WireStep]:
        """Return MAIL, every RCPT, and DATA or BDAT with the content, as steps between which replies are awaited."""
        envelope, offers = transaction.envelope, self.capabilities
        commands = [mail_command(envelope, offers), "RCPT TO:<" + ">\r\nRCPT TO:<".join(envelope.recipients) + ">\r\n"]
        content, last = b"", Stage.DATA
        if offers.chunking:
            content, last = envelope.content, Stage.FINAL
            commands.append(f"BDAT {len(content)} LAST\r\n")
        else:
            commands.append("DATA\r\n")
        stages = (Stage.MAIL, *(Stage.RCPT,) * len(envelope.recipients), last)
        encoding = "utf-8" if envelope.needs_smtputf8 else "ascii"
        if offers.pipelining and not (offers.chunking and envelope.awaits_recipients):
            return [WireStep(stages, transaction, "".join(commands).encode(encoding), content=content)]
        lines = "".join(commands).encode(encoding).splitlines(keepends=True)
        begins: Sequence[int] = (0, len(lines) - 1) if offers.pipelining else range(len(lines))
        steps = [
            WireStep(
                stages[first:end], transaction, b"".join(lines[first:end]), waits=not offers.pipelining or first > 0
            )
            for first, end in pairwise((*begins, len(lines)))
        ]
        steps[-1].content = content
        return steps

    def _pump(self) -> None:
        """Write all steps that need not wait for a reply."""
        while self._todo and not self._awaits_go_ahead:
            if self._todo[0].waits and self._expected:
                return
            self._write(self._todo.popleft())

    def _write(self, step: WireStep) -> None:
        if step.stages[0] is Stage.MAIL:
            if self._may_be_open:
                step.stages, step.wire = (Stage.RSET, *step.stages), b"RSET\r\n" + step.wire
            self._may_be_open = True
        self._expected.append(step)
        self._outgoing.append(step.wire)
        if step.content:
            self._outgoing.append(step.content)
        self.written_bytes += len(step.wire) + len(step.content)
        last = step.stages[-1]
        self._awaits_go_ahead = last is Stage.DATA
        if last is Stage.FINAL and step.transaction is not None:
            step.transaction.end_offset_bytes = self.written_bytes
            # The final dot ends a transaction whatever the reply is (RFC 5321 4.1.1.4); a refused BDAT may not.
            self._may_be_open = self.capabilities.chunking

    def _accept_at_once(self) -> bool:
        """Process all replies to a message that was written in one step at once, if all have come and are 2xx."""
        step = self._expected[0] if self._expected and not self._answered else None
        if step is None or step.transaction is None or len(step.stages) < 3 or step.stages[-1] is not Stage.FINAL:
            return False
        # A trace needs each reply by itself.
        raw = self._reader.read_acceptances(len(step.stages)) if self.on_reply is None else None
        if raw is None:
            return False
        self._expected.popleft()
        self.replies += len(step.stages)
        transaction = step.transaction
        transaction.mail_accepted, transaction.rcpts_answered = True, len(transaction.envelope.recipients)
        reply = self.last_reply = raw.answering(Stage.FINAL)
        self.delivered += 1
        self._may_be_open = bool(self._expected) and self._may_be_open
        self._decide(transaction, Accepted(reply))
        return True

    def _answer(self, raw: RawReply) -> None:
        self.replies += 1
        if not self._expected:
            how = FailureKind.CLOSING if raw.code == _CLOSING_CODE else FailureKind.GARBLED
            self._finish(how, "a reply that no command asked for", raw.answering(Stage.CONNECT))
            return
        step = self._expected[0]
        stage = step.stages[self._answered]
        transaction = None if stage is Stage.RSET else step.transaction
        reply = self.last_reply = raw.answering(stage)
        if self.on_reply is not None:
            self.on_reply(stage, transaction, reply)
        if raw.code == _CLOSING_CODE:
            self._finish(FailureKind.CLOSING, "the relay is closing", reply)
            return
        if raw.code // 100 not in _CLASSES[stage]:
            self._finish(FailureKind.GARBLED, f"{raw.code} is not a possible reply to {stage.upper()}", reply)
            return
        self._answered += 1
        if self._answered == len(step.stages):
            self._expected.popleft()
            self._answered = 0
        if transaction is not None:
            self._advance(transaction, stage, reply)

    def _advance(self, transaction: Transaction, stage: Stage, reply: Reply) -> None:
        match stage:
            case Stage.MAIL:
                transaction.mail_accepted = reply.is_positive
                if not transaction.mail_accepted:
                    transaction.sender_refusal = reply
                    self._drop_if_refused(transaction)
            case Stage.RCPT:
                self._note_recipient(transaction, reply)
                if transaction.refusals or transaction.sender_refusal is not None:
                    self._drop_if_refused(transaction)
            case Stage.DATA:
                self._note_data(transaction, reply)
            case Stage.FINAL:
                self._note_final(transaction, reply)
            case _:
                raise AssertionError(f"no transaction waits at {stage}")

    def _note_recipient(self, transaction: Transaction, reply: Reply) -> None:
        recipient = transaction.envelope.recipients[transaction.rcpts_answered]
        transaction.rcpts_answered += 1
        if not reply.is_positive:
            transaction.refusals.append(Refusal(recipient, reply))

    def _drop_if_refused(self, transaction: Transaction) -> None:
        """Decide a refused transaction early, if none of its written commands waits for a reply."""
        refused = transaction.refused_so_far
        if refused is None or any(step.transaction is transaction for step in self._expected):
            return
        self._todo = deque(step for step in self._todo if step.transaction is not transaction)
        self._decide(transaction, refused)

    def _note_data(self, transaction: Transaction, reply: Reply) -> None:
        self._awaits_go_ahead = False
        if reply.code // 100 != 3:
            self._decide(transaction, transaction.refused(reply))
            return
        # If no recipient was accepted, send only the dot: the relay must then refuse (RFC 2920 3.1).
        content = b"" if transaction.accepted_recipients == 0 else dot_stuffed(transaction.envelope.content)
        self._todo.appendleft(WireStep((Stage.FINAL,), transaction, content, content=b".\r\n"))

    def _note_final(self, transaction: Transaction, reply: Reply) -> None:
        is_lone_dot = not self.capabilities.chunking and transaction.accepted_recipients == 0
        if is_lone_dot or not reply.is_positive:
            # A 2xx to the lone dot of a message without recipients does not mean that a mail was accepted.
            self._decide(transaction, transaction.refused(reply))
            return
        self.delivered += 1
        self._may_be_open = bool(self._expected) and self._may_be_open
        self._decide(transaction, Accepted(reply, tuple(transaction.refusals)))
        if transaction.refused_so_far is not None:
            # Accepted for whom? The relay's state differs from ours: believe the final reply, trust nothing after it.
            self._finish(FailureKind.GARBLED, "a message was accepted whose sender or recipients were refused", reply)

    def _decide(self, transaction: Transaction, outcome: Outcome) -> None:
        transaction.outcome = outcome
        del self._open[transaction]
        self._decided.append(transaction)

    def _finish(self, how: FailureKind, what: str, reply: Reply | None = None, *, unsent_bytes: int = 0) -> None:
        """End the conversation, and decide for each open message whether it may have been accepted."""
        stage = self.awaited or Stage.CONNECT
        had_delivered = self.delivered > 0
        self.end = Loss(how, stage, what, reply, had_delivered=had_delivered)
        for transaction in self._open:
            loss = Loss(how, stage, what, reply, had_delivered, transaction.mail_accepted)
            transaction.outcome = self._at_loss(transaction, loss, unsent_bytes)
        self._decided.extend(self._open)
        self._open.clear()
        self._todo.clear()
        self._expected.clear()
        self._answered = 0

    def _at_loss(self, transaction: Transaction, loss: Loss, unsent_bytes: int) -> Outcome:
        refused = transaction.refused_so_far
        if refused is not None and loss.how is not FailureKind.GARBLED:
            return refused
        # After 421 the relay reads no further command: a message without a reply was not accepted (RFC 5321 3.8).
        if loss.how is FailureKind.CLOSING or not self.is_complete(transaction, unsent_bytes):
            return NotSent(loss)
        return Uncertain(loss)
