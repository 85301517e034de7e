"""Trio. An envelope tried and taken back: MAIL, RCPT and RSET on a fresh session, and never a content."""

from __future__ import annotations

import asyncio

import trio
from attrs import define, field

from trio_worker.smtp.outcome import FailureKind, Trouble
from trio_worker.smtp.relay import Timeouts
from trio_worker.smtp.reply import Garbled, RawReply, Reply, ReplyReader, Stage
from trio_worker.smtp.session import Opened, Tell


class _Ear(asyncio.Protocol):
    """What asyncio hears from the relay, cut into replies; its callbacks run in the trio thread."""

    def __init__(self) -> None:
        self._reader = ReplyReader()
        self._heard, self.replies = trio.open_memory_channel[RawReply | Garbled](float("inf"))

    def data_received(self, data: bytes) -> None:
        for read in self._reader.feed(data):
            self._heard.send_nowait(read)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._heard.close()


@define(eq=False)
class _Dialog:
    """One command at a time over a session that nobody else uses."""

    opened: Opened
    timeouts: Timeouts
    tell: Tell
    ear: _Ear = field(factory=_Ear)

    def __attrs_post_init__(self) -> None:
        self.opened.transport.set_protocol(self.ear)

    async def ask(self, stage: Stage, command: str) -> Reply | Trouble:
        """Say one command and return its reply, whatever that is."""
        seconds = self.timeouts.command_seconds
        self.opened.transport.write(f"{command}\r\n".encode())
        try:
            with trio.fail_after(seconds):
                heard = await self.ear.replies.receive()
        except trio.TooSlowError:
            return Trouble(FailureKind.TIMEOUT, stage, f"no answer within {seconds:g} s")
        except trio.EndOfChannel:
            return Trouble(FailureKind.EOF, stage, "the relay closed the connection")
        if isinstance(heard, Garbled):
            return Trouble(FailureKind.GARBLED, stage, heard.what)
        reply = heard.answering(stage)
        self.tell(stage, str(reply))
        return reply


async def try_envelope(
    opened: Opened, timeouts: Timeouts, sender: str, recipient: str | None, *, needs_smtputf8: bool, tell: Tell
) -> Reply | Trouble:
    """Ask whether the relay would take a mail, then take the question back; return what decided.

    The addresses are bare and canonical (`parse_mailbox`); without a recipient the sender alone is tried. The session
    takes a new transaction afterwards, but for a `Trouble`; closing it is the caller's.
    """
    dialog = _Dialog(opened, timeouts, tell)
    words = f"MAIL FROM:<{sender}>" + (" SMTPUTF8" if needs_smtputf8 else "")
    answer = await dialog.ask(Stage.MAIL, words)
    if isinstance(answer, Reply) and answer.is_positive and recipient is not None:
        answer = await dialog.ask(Stage.RCPT, f"RCPT TO:<{recipient}>")
    if isinstance(answer, Trouble):
        return answer
    undone = await dialog.ask(Stage.RSET, "RSET")
    is_undone = isinstance(undone, Reply) and undone.is_positive
    return answer if is_undone or not answer.is_positive else undone
