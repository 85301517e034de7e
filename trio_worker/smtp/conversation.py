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
  RSET before it: after a refused BDAT the old sender may remain, and the next message would go out under it. Nowhere
  else is RSET written: relays count it (Exim's ``smtp_accept_max_nonmail``, Postfix' ``smtpd_junk_command_limit``).
* A relay that refuses RSET is closing. What follows was not sent, unless the relay goes on and accepts it.
* 503 to a MAIL that was written while an earlier outcome was open says that the relay drops what comes ahead of its
  answer, against RFC 2920 3.1: that mail was not sent, and nothing should be written ahead to this relay.
* The content is one single ``BDAT n LAST`` (RFC 3030): known relays delay or mishandle other chunks.
* QUIT is never written together with anything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from attrs import field

from trio_worker.records import define
from trio_worker.secret_mask import NO_SECRETS, SecretMask
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.envelope import Envelope, dot_stuffed, mail_command, why_unsendable
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Loss, NotSent, Outcome, Refusal, Refused, Uncertain, Unsendable
from trio_worker.smtp.reply import Garbled, RawReply, Reply, ReplyReader, Stage
from trio_worker.smtp.transaction import Transaction, WireStep

# The first digits that a reply to each command can have (RFC 5321 4.3.2). Only DATA has 3xx, and it never has 2xx. RSET
# has only 2xx in the RFC, but Exim and others refuse it when they have had enough of a session.
_CLASSES: dict[Stage, frozenset[int]] = {
    Stage.MAIL: frozenset({2, 4, 5}),
    Stage.RCPT: frozenset({2, 4, 5}),
    Stage.DATA: frozenset({3, 4, 5}),
    Stage.FINAL: frozenset({2, 4, 5}),
    Stage.RSET: frozenset({2, 4, 5}),
    Stage.QUIT: frozenset({2, 4, 5}),
}
_CLOSING_CODE = 421
# "Too many recipients" (RFC 3463, 3.6) at MAIL, where there is none yet, tells of a limit of the connection: OpenSMTPD
# says so after 100 mails. It leaves the connection open and repeats this from then on.
_LIMIT_CODE, _LIMIT_ENHANCED = 452, "4.5.3"
_BAD_SEQUENCE_CODE = 503
_DROPS_AHEAD = "the relay drops what is written ahead of its answer to an earlier mail"
# Exim ends a session at the eleventh extra RSET (smtp_accept_max_nonmail = 10); one is left for what else it may count.
EXTRA_RESETS_LIMIT = 9


@define
class Conversation:
    """The SMTP dialogue with one relay, from the first MAIL to QUIT; it has no socket and no clock.

    ``begin`` and ``quit`` queue commands, ``receive`` takes replies; after one or more such calls ``take_outgoing``
    returns the bytes to write now, and the transactions have the outcomes that were decided. Call ``lose`` when the
    connection ended. Once ``end`` is set the connection must be aborted and never used again.
    """

    capabilities: Capabilities
    secrets: SecretMask = NO_SECRETS  # masked in every reply
    delivered: int = 0
    end: Loss | None = None
    replies: int = 0  # complete ones so far; the connection's timeout starts again with each
    written_bytes: int = 0
    last_reply: Reply | None = None
    spent: str = ""  # why no further message should begin, although the connection works; empty if one may
    # RSETs behind a mail whose content the relay did not want: Exim counts them as commands that are no mail.
    extra_resets: int = 0
    # How the relay showed that it drops what is written ahead of its answer to an earlier mail.
    ahead: Loss | None = None
    # Called with each reply before it is processed, while the connection is traced.
    on_reply: Callable[[Stage, Transaction | None, Reply], object] | None = None
    _todo: deque[WireStep] = field(factory=deque)
    _expected: deque[WireStep] = field(factory=deque)  # written, and not all of their replies have come
    _answered: int = 0  # number of replies to the first of them so far
    _open: dict[Transaction, None] = field(factory=dict)  # in the order in which they began
    _decided: list[Transaction] = field(factory=list)
    _reader: ReplyReader = field(init=False)
    _outgoing: list[bytes] = field(factory=list)
    _awaits_go_ahead: bool = False  # DATA is written: nothing may follow before its reply (RFC 2920 3.1)
    _may_be_open: bool = False  # the relay may have an open transaction when the next MAIL arrives
    _closing: Loss | None = None  # the relay has refused RSET: it is about to close, and nothing more is written

    def __attrs_post_init__(self) -> None:
        self._reader = ReplyReader(self.secrets)

    @property
    def in_flight(self) -> int:
        """Messages whose outcome is not known yet."""
        return len(self._open)

    @property
    def awaited(self) -> Stage | None:
        """The stage of the next reply; None while no reply is due."""
        return self._expected[0].stages[self._answered] if self._expected else None

    @property
    def awaits_ahead(self) -> bool:
        """Whether the next reply is that to RSET or MAIL of a message written while an earlier outcome was open."""
        if not self._expected:
            return False
        step = self._expected[0]
        is_ahead = step.transaction is not None and step.transaction.is_ahead
        return is_ahead and step.stages[self._answered] in {Stage.RSET, Stage.MAIL}

    @property
    def _last_stage(self) -> Stage:
        """The command that the relay answered last: behind it comes a reply that no command asked for."""
        return Stage.CONNECT if self.last_reply is None else self.last_reply.stage

    def begin(self, envelope: Envelope) -> Transaction:
        """Queue one message; a mail that this relay cannot take is decided at once, and nothing is written."""
        transaction = Transaction(envelope)
        loss = self.end or self._closing
        if loss is not None:
            transaction.outcome = NotSent(loss)
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

    def receive(self, received: bytes) -> bool:
        """Take bytes from the relay, in whatever pieces they arrive; return whether more replies are due."""
        self._reader.put(received)
        while self.end is None:
            if self._accept_at_once():
                continue
            match self._reader.read():
                case None:
                    if self._closing is not None and not self._expected:
                        self._finish(FailureKind.CLOSING, self._closing.reason, self._closing.reply)
                    return bool(self._expected)
                case RawReply() as read:
                    self._answer(read)
                case Garbled(what):
                    self._finish(FailureKind.GARBLED, what)
        return False

    def lose(self, how: FailureKind, what: str, unsent_bytes: int = 0) -> None:
        """End the conversation because the connection ended; the last ``unsent_bytes`` written were never sent."""
        if self.end is not None:
            return
        if self._closing is not None and how in {FailureKind.EOF, FailureKind.RESET}:
            self._finish(FailureKind.CLOSING, self._closing.reason, self._closing.reply)
            return
        if self.awaits_ahead and how in {FailureKind.TIMEOUT, FailureKind.AHEAD}:
            self._note_ahead(Loss(FailureKind.AHEAD, self.awaited or Stage.MAIL, what, had_delivered=True))
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
            if self._may_be_open and not self.capabilities.pipelining:
                self._todo.appendleft(step)
                step = WireStep((Stage.RSET,), step.transaction, b"RSET\r\n")
            elif self._may_be_open:
                step.stages, step.wire = (Stage.RSET, *step.stages), b"RSET\r\n" + step.wire
            self._may_be_open = step.stages[-1] is not Stage.RSET
            if self._expected and step.transaction is not None:
                step.transaction.is_ahead = True
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
            self._finish(how, "a reply that no command asked for", raw.answering(self._last_stage))
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
        if stage is Stage.MAIL and self.delivered and reply.code == _LIMIT_CODE and reply.enhanced == _LIMIT_ENHANCED:
            self._finish(FailureKind.CLOSING, "the relay takes no more mails on this connection", reply)
            return
        if raw.code // 100 not in _CLASSES[stage]:
            self._finish(FailureKind.GARBLED, f"{raw.code} is not a possible reply to {stage.upper()}", reply)
            return
        if raw.code == _BAD_SEQUENCE_CODE and self.awaits_ahead:
            self._note_ahead(Loss(FailureKind.AHEAD, stage, _DROPS_AHEAD, reply, had_delivered=True))
            if not self.capabilities.chunking:
                # No content of it is written, so nothing is in doubt, and more replies may never come.
                self._finish(FailureKind.AHEAD, _DROPS_AHEAD, reply)
                return
        self._answered += 1
        if self._answered == len(step.stages):
            self._expected.popleft()
            self._answered = 0
        if transaction is not None:
            self._advance(transaction, stage, reply)
        elif stage is Stage.RSET and not reply.is_positive:
            self._note_closing(reply)

    def _note_ahead(self, loss: Loss) -> None:
        self.ahead = self.ahead or loss
        self.spent = self.spent or str(self.ahead)

    def _note_closing(self, reply: Reply) -> None:
        """Write nothing more; if messages are complete, wait for the relay to close, or to answer them after all."""
        what = "the relay refuses RSET: it is closing"
        # RSET comes after another mail, so the connection has worked.
        self._closing = self._closing or Loss(FailureKind.CLOSING, Stage.RSET, what, reply, had_delivered=True)
        self.spent = self.spent or str(self._closing)
        self._todo.clear()
        if all(transaction.end_offset_bytes is None for transaction in self._open):
            self._finish(FailureKind.CLOSING, what, reply)

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
        self._refuse(transaction, refused)

    def _note_data(self, transaction: Transaction, reply: Reply) -> None:
        self._awaits_go_ahead = False
        if reply.code // 100 != 3:
            self._refuse(transaction, transaction.refused(reply))
            return
        if self._closing is not None:
            return
        # If no recipient was accepted, send only the dot: the relay must then refuse (RFC 2920 3.1).
        content = b"" if transaction.accepted_recipients == 0 else dot_stuffed(transaction.envelope.content)
        self._todo.appendleft(WireStep((Stage.FINAL,), transaction, content, content=b".\r\n"))

    def _note_final(self, transaction: Transaction, reply: Reply) -> None:
        is_lone_dot = not self.capabilities.chunking and transaction.accepted_recipients == 0
        if is_lone_dot or not reply.is_positive:
            # A 2xx to the lone dot of a message without recipients does not mean that a mail was accepted.
            self._refuse(transaction, transaction.refused(reply))
            return
        self.delivered += 1
        self._may_be_open = bool(self._expected) and self._may_be_open
        self._decide(transaction, Accepted(reply, tuple(transaction.refusals)))
        if transaction.refused_so_far is not None:
            # Accepted for whom? The relay's state differs from ours: believe the final reply, trust nothing after it.
            self._finish(FailureKind.GARBLED, "a message was accepted whose sender or recipients were refused", reply)

    def _refuse(self, transaction: Transaction, refused: Refused) -> None:
        """Decide a message that the relay refused, and note what that leaves of its transaction at the relay."""
        if not self._expected and transaction.has_no_trace:
            self._may_be_open = False
        if refused.reply.stage is not Stage.FINAL and (self._expected or self._may_be_open):
            self.extra_resets += 1
            if self.extra_resets >= EXTRA_RESETS_LIMIT:
                self.spent = self.spent or "resets"
        self._decide(transaction, self._blame(transaction, refused))

    def _blame(self, transaction: Transaction, refused: Refused) -> Refused | NotSent:
        """Return the outcome of a refused message: not sent if the refusal only shows what the relay had dropped."""
        if self._closing is not None:
            return NotSent(self._closing)
        if transaction.is_ahead and self.ahead is not None and refused.reply.code == _BAD_SEQUENCE_CODE:
            return NotSent(self.ahead)
        return refused

    def _decide(self, transaction: Transaction, outcome: Outcome) -> None:
        transaction.outcome = outcome
        del self._open[transaction]
        self._decided.append(transaction)

    def _finish(self, how: FailureKind, what: str, reply: Reply | None = None, *, unsent_bytes: int = 0) -> None:
        """End the conversation, and decide for each open message whether it may have been accepted."""
        stage = reply.stage if reply is not None else self.awaited or self._last_stage
        # What ends at RSET or at a mail ahead ends after an earlier mail: the connection has worked.
        had_delivered = self.delivered > 0 or self._closing is not None or how is FailureKind.AHEAD
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
            return self._blame(transaction, refused)
        # After 421 the relay reads no further command: a message without a reply was not accepted (RFC 5321 3.8).
        if loss.how is FailureKind.CLOSING or not self.is_complete(transaction, unsent_bytes):
            return NotSent(loss)
        return Uncertain(loss)
