"""Trio. Address verification: MAIL, RCPT and RSET on a fresh session, and no content."""

from __future__ import annotations

import asyncio

import trio
from attrs import field

from trio_worker.records import define
from trio_worker.secret_mask import SecretMask
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.options import Timeouts
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.reply import Garbled, RawReply, Reply, ReplyReader, Stage
from trio_worker.smtp.session import OnStep, Session


class _ReplyReceiver(asyncio.Protocol):
    """The asyncio protocol that cuts received bytes into replies; its callbacks run in the trio thread."""

    def __init__(self, secrets: SecretMask) -> None:
        self._reader = ReplyReader(secrets)
        self._send, self.replies = trio.open_memory_channel[RawReply | Garbled](float("inf"))

    def data_received(self, data: bytes) -> None:
        for read in self._reader.feed(data):
            self._send.send_nowait(read)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._send.close()


@define(eq=False)
class _Commands:
    """Sends commands one at a time over a session that nothing else uses."""

    session: Session
    timeouts: Timeouts
    on_step: OnStep
    receiver: _ReplyReceiver = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.receiver = _ReplyReceiver(self.session.secrets)
        self.session.transport.set_protocol(self.receiver)

    async def send(self, stage: Stage, command: str) -> Reply | Trouble:
        """Send one command and return its reply, positive or not."""
        seconds = self.timeouts.command_seconds
        self.session.transport.write(f"{command}\r\n".encode())
        try:
            with trio.fail_after(seconds):
                received = await self.receiver.replies.receive()
        except trio.TooSlowError:
            return Trouble(FailureKind.TIMEOUT, stage, f"no answer within {seconds:g} s")
        except trio.EndOfChannel:
            return Trouble(FailureKind.EOF, stage, "the relay closed the connection")
        if isinstance(received, Garbled):
            return Trouble(FailureKind.GARBLED, stage, received.reason)
        reply = received.answering(stage)
        self.on_step(stage, str(reply))
        return reply


async def verify_address(
    session: Session, timeouts: Timeouts, sender: str, recipient: str | None, *, needs_smtputf8: bool, on_step: OnStep
) -> Reply | Trouble:
    """Ask whether the relay would take a mail, then end the transaction with RSET; return the deciding reply.

    The addresses are bare and canonical (`parse_mailbox`); without a recipient only the sender is tried. Unless a
    `Trouble` is returned the session can take another transaction; the caller closes it.
    """
    commands = _Commands(session, timeouts, on_step)
    mail = f"MAIL FROM:<{sender}>" + (" SMTPUTF8" if needs_smtputf8 else "")
    answer = await commands.send(Stage.MAIL, mail)
    if isinstance(answer, Reply) and answer.is_positive and recipient is not None:
        answer = await commands.send(Stage.RCPT, f"RCPT TO:<{recipient}>")
    if isinstance(answer, Trouble):
        return answer
    reset = await commands.send(Stage.RSET, "RSET")
    is_reset = isinstance(reset, Reply) and reset.is_positive
    return answer if is_reset or not answer.is_positive else reset
