"""Trio. One open connection to the relay: runs the SMTP conversation over a transport, and closes it."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from typing import TypeAlias

import trio
from attrs import field

from trio_worker.bridge import hear_last_words, unsent_bytes, waiting_bytes
from trio_worker.privacy import mask_text
from trio_worker.records import define
from trio_worker.smtp.conversation import EXTRA_RESETS_LIMIT, Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.events import ConnectionView
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.options import Timeouts
from trio_worker.smtp.outcome import Accepted, Loss, NotSent, Outcome, Refused, Uncertain
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.smtp.session import Session
from trio_worker.smtp.trace import TraceLine, trace_line_of
from trio_worker.smtp.transaction import Transaction

# A connection that was idle for longer may be dead without our knowing: its next message waits for the replies to RCPT.
IDLE_SECONDS = 5.0
# How long to wait for the reply to QUIT, which is a courtesy. At the end of a drain this, and the settlements after it,
# must fit into the second that a worker may take beyond its grace.
QUIT_SECONDS = 0.5
# How long a relay may be silent at a MAIL that was written ahead of its answer to an earlier mail. Some relays drop
# such commands without a word; one that is only slow loses little if it gets one mail at a time from then on.
AHEAD_SECONDS = 5.0
# From this many refusals in a row the window is one. Relays close connections that bring too many of them, such as
# Postfix at smtpd_hard_error_limit, and what is in flight then may be lost.
REFUSED_IN_ROW = 3
# From this number of extra RSETs on no more mails are in flight than the relay may still refuse.
SPARED_RESETS = 5
_BREAKS = frozenset({FailureKind.EOF, FailureKind.RESET})
# From this size on a message is written in pieces: more writes, some microseconds each, but fewer copies.
LARGE_BYTES = 262_144
# Some hundred replies.
_READ_BYTES = 16_384


# Called with each command and its reply while the connection is traced.
OnTrace: TypeAlias = Callable[[TraceLine], object]


class _Wire(asyncio.BufferedProtocol):
    """The asyncio protocol of a connection; its callbacks run in the trio thread and are passed on at once.

    It reads into a buffer of its own: for an `asyncio.Protocol` each read would ask for 256 KB (`bridge.read_at_most`).
    A worker that also ran the mail catcher grew by 14 MB with every 100,000 mails.
    """

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[FailureKind, str], None]) -> None:
        self._received, self._ended = received, ended
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        self._ended(FailureKind.EOF, "the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._ended(FailureKind.EOF, "the connection is closed")
        else:
            self._ended(FailureKind.RESET, _words_of(exc))


def _words_of(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        # So does Exim with the reply that ends a connection for too many commands. It is no evidence of what became of
        # a mail: anybody on the way can write it.
        return "the relay wrote without TLS, as some do to say why they close"
    return type(error).__name__


@define(eq=False)
class Connection:
    """One connection, and the messages in flight on it; one task uses it at a time.

    That task begins messages, writes them with `flush`, and waits with `outcomes` for their outcomes. ``window`` is the
    number of messages that may be in flight: one at first, one more for each message that was accepted, half of them
    after a refusal, and one again after a transient one or after several in a row.

    The owner ends it with `close` or `abort`; after either, or once `end` is set, it is never used again. `watch` must
    run in the background: without it a silent relay would be waited for without a time limit.
    """

    connection_id: int
    session: Session
    timeouts: Timeouts
    conversation: Conversation = field(init=False)
    opened_at: float = field(factory=trio.current_time)
    used_at: float = field(factory=trio.current_time)
    window: int = 1
    # Called when the relay has shown that mails behind an open outcome are lost with it.
    on_deep_loss: Callable[[Loss], object] | None = None
    _refused_in_row: int = 0
    _socket: socket.socket | None = None  # where the kernel can be told to confirm at once what it received
    _is_broken: bool = False  # nothing that is written leaves any more; what the relay said before may still be read
    _decided: list[Transaction] = field(factory=list)
    _waiting: trio.lowlevel.Task | None = None  # for outcomes
    _over: trio.Event = field(factory=trio.Event)
    _quiet: trio.Event = field(factory=trio.Event)
    _taken_bytes: int = 0  # of the bytes written, how many the kernel had taken at the last check
    _progress_at: float = field(factory=trio.current_time)
    _state_since: float = field(factory=trio.current_time)
    _on_trace: OnTrace | None = None

    def __attrs_post_init__(self) -> None:
        self.conversation = Conversation(self.session.capabilities, self.session.secrets)
        self.session.transport.set_protocol(_Wire(self._receive, self.lose))
        hear_last_words(self.session.transport, self._note_break)
        # A relay without TCP_NODELAY, such as Postfix, holds its next replies until our kernel has confirmed these, for
        # up to 40 ms, and if it closes meanwhile they are never sent. The option holds until we write next.
        self._socket = self.session.transport.get_extra_info("socket") if hasattr(socket, "TCP_QUICKACK") else None

    @property
    def end(self) -> str:
        """Why the connection is over; empty while it can be used."""
        return "" if self.conversation.end is None else str(self.conversation.end)

    @property
    def delivered(self) -> int:
        return self.conversation.delivered

    @property
    def in_flight(self) -> int:
        """Messages whose outcome has not been returned to the owner yet."""
        return self.conversation.in_flight + len(self._decided)

    @property
    def was_idle(self) -> bool:
        """Whether the next message must wait for RCPT: the connection is new, or may have died unseen while idle."""
        return not self.delivered or trio.current_time() - self.used_at > IDLE_SECONDS

    def room(self, depth: int, in_flight: int) -> int:
        """Return how many more messages may be sent besides those ``in_flight``, at most ``depth`` in all.

        The limits are the connection's ``window`` and what the relay's extensions allow.
        """
        if self.conversation.end is not None:
            return 0
        capabilities = self.session.capabilities
        if not capabilities.pipelining:
            limit = 1
        elif capabilities.chunking:
            limit = min(self.window, depth)
        else:
            # With DATA only the envelope of the next message can be written together with the content of this one.
            limit = min(self.window, depth, 2)
        extra_resets = self.conversation.extra_resets
        if extra_resets >= SPARED_RESETS:
            limit = min(limit, EXTRA_RESETS_LIMIT - extra_resets)
        return max(0, limit - in_flight)

    def begin(self, envelope: Envelope, now: float) -> Transaction:
        """Begin one message; `flush` writes all messages that have begun, `outcomes` returns each. Never awaits.

        A message that this relay cannot take has its outcome at once. ``now`` is the local clock.
        """
        transaction = self.conversation.begin(envelope)
        transaction.began = now
        if transaction.outcome is not None:
            self._decided.append(transaction)
        return transaction

    def flush(self, now: float) -> None:
        """Write the messages that have begun, in as few writes as the relay's extensions allow. Never awaits."""
        if self.conversation.awaited is None:
            self._progress_at = now  # until now no reply was due
        self._flush(now)

    async def outcomes(self) -> list[Transaction]:
        """Wait until at least one outcome is known; return those messages, each once; none after a `nudge`.

        Outcomes come from final replies, `watch` and `abort`; at least one message must be in flight. If an outcome is
        known already there is no checkpoint. A cancel aborts the connection: a message that was not written in full is
        `NotSent`, one that waits for its final reply is `Uncertain`. Both are returned, and the caller must record them
        before its next checkpoint.
        """
        if not self._decided:
            self._waiting = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        return self.take_decided()

    def take_decided(self) -> list[Transaction]:
        """Return the messages whose outcome is known by now, each once."""
        decided, self._decided = self._decided, []
        return decided

    def nudge(self) -> None:
        """Wake the task that waits for outcomes, because there is something else to do. Never awaits."""
        if self._waiting is not None:
            trio.lowlevel.reschedule(self._waiting)
            self._waiting = None

    def nudge_if_silent(self, since: float) -> None:
        """Wake the task that waits for outcomes if the relay has not replied after ``since``. Never awaits."""
        if self._progress_at < since:
            self.nudge()

    async def deliver(self, envelope: Envelope) -> Outcome:
        """Send one message over a connection with none in flight, and return its outcome; see `outcomes`."""
        now = trio.current_time()
        transaction = self.begin(envelope, now)
        self.flush(now)
        while transaction.outcome is None or transaction in self._decided:
            await self.outcomes()
        return transaction.outcome

    async def watch(self) -> None:
        """End the connection if a reply is due and the relay is silent for too long; return when it is over.

        Signs of life are a complete reply, and a kernel that still takes bytes from our buffer.
        """
        # A message that is sent while this task sleeps has at least this long.
        soonest = min(self.timeouts.command_seconds, self.timeouts.final_reply_seconds, AHEAD_SECONDS)
        due = trio.current_time() + soonest
        while not self.end:
            with trio.move_on_at(due):
                await self._over.wait()
            now = trio.current_time()
            self._note_taken(now)
            silent_at = self._progress_at + self._patience_seconds()
            if self.conversation.awaited is None:
                due = now + soonest
            elif now < silent_at:
                due = min(silent_at, now + soonest)
            else:
                how = FailureKind.AHEAD if self._may_be_dropped else FailureKind.TIMEOUT
                self.lose(how, f"no answer within {self._patience_seconds():g} s")

    async def close(self) -> None:
        """Say QUIT, wait `QUIT_SECONDS` for its reply, and end the connection in any case."""
        try:
            if not self.end and not self.conversation.in_flight:
                self.conversation.quit()
                self._flush(trio.current_time())
                with trio.move_on_after(QUIT_SECONDS):
                    await self._until_quiet()
        finally:
            self.abort()

    async def _until_quiet(self) -> None:
        while self.conversation.awaited is not None:
            self._quiet = trio.Event()
            await self._quiet.wait()

    def abort(self) -> None:
        """End the connection at once; bytes that the kernel has not taken are dropped. Never awaits."""
        self.lose(FailureKind.CANCELLED, "we ended it")

    def lose(self, how: FailureKind, what: str) -> None:
        """Record why the connection ended, and abort the transport."""
        self.conversation.lose(how, what, unsent_bytes(self.session.transport))
        self._report_decided()

    def trace(self, on_trace: OnTrace | None) -> None:
        """Call ``on_trace`` with each command and its reply from now on; None ends it."""
        self._on_trace = on_trace
        self.conversation.on_reply = None if on_trace is None else self._note_reply

    def view(self) -> ConnectionView:
        now = trio.current_time()
        last = self.conversation.last_reply
        awaited = self.conversation.awaited
        state = str(awaited).upper() if awaited is not None else "closed" if self.end else "idle"
        return ConnectionView(
            connection_id=self.connection_id,
            state=state,
            state_seconds=max(0.0, now - self._state_since),
            delivered=self.delivered,
            age_seconds=max(0.0, now - self.opened_at),
            tls=self.session.tls,
            last_reply="" if last is None else last.codes,
        )

    def _note_reply(self, stage: Stage, transaction: Transaction | None, reply: Reply) -> None:
        seconds = trio.current_time() - self._state_since
        if self._on_trace is not None:
            self._on_trace(trace_line_of(stage, transaction, reply, seconds, self.connection_id))

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """Decide all outcomes at the moment of the cancel: after it no more bytes of a message may leave."""
        if self.conversation.end is None:
            self.lose(FailureKind.CANCELLED, "given up before the relay answered")
        return trio.lowlevel.Abort.FAILED

    def _note_taken(self, now: float) -> None:
        waiting = waiting_bytes(self.session.transport)
        taken = self.conversation.written_bytes - waiting
        if waiting and taken > self._taken_bytes:
            self._progress_at = now
        self._taken_bytes = taken

    def _patience_seconds(self) -> float:
        if self.conversation.awaited is Stage.FINAL and not unsent_bytes(self.session.transport):
            return self.timeouts.final_reply_seconds
        return min(self.timeouts.command_seconds, AHEAD_SECONDS if self._may_be_dropped else math.inf)

    @property
    def _may_be_dropped(self) -> bool:
        """Whether the relay may have dropped what came ahead; no content of it is out, so giving up loses nothing."""
        return self.conversation.awaits_ahead and not self.session.capabilities.chunking

    def _receive(self, received: bytes) -> None:
        before = self.conversation.replies
        if self.conversation.receive(received) and self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self.conversation.replies != before:
            self._progress_at = trio.current_time()
        if self.conversation.end is None and not self._is_broken:
            self._flush(self._progress_at)
        self._report_decided()

    def _tell_deep_loss(self, loss: Loss) -> None:
        if self.on_deep_loss is not None:
            self.on_deep_loss(loss)
            self.on_deep_loss = None

    def _note_break(self) -> None:
        self._is_broken = True

    def _flush(self, now: float) -> None:
        pieces = self.conversation.take_outgoing()
        if not pieces or self.conversation.end is not None:
            return
        self._state_since = now
        if max(map(len, pieces)) < LARGE_BYTES:
            self.session.transport.write(b"".join(pieces))
            return
        for piece in pieces:
            # asyncio copies what the kernel does not take at once; with a view it is copied once, not twice.
            self.session.transport.write(memoryview(piece))

    def _report_decided(self) -> None:
        """Wake the task that waits for outcomes, if there are any; abort the transport if the connection is over."""
        decided = self.conversation.take_decided()
        if decided:
            now = self.used_at = trio.current_time()
            for transaction in decided:
                transaction.seconds = now - transaction.began
                if isinstance(transaction.outcome, Accepted):
                    self.window += 1
                    self._refused_in_row = 0
                elif isinstance(transaction.outcome, Refused):
                    self._refused_in_row += 1
                    is_one = transaction.outcome.reply.is_transient or self._refused_in_row >= REFUSED_IN_ROW
                    self.window = 1 if is_one else max(1, self.window // 2)
            self._decided += decided
        if self._decided:
            self.nudge()
        self._quiet.set()
        if self.conversation.ahead is not None:
            self._tell_deep_loss(self.conversation.ahead)
        if self.conversation.end is not None:
            lost = [each for each in decided if isinstance(each.outcome, Uncertain | NotSent)]
            is_in_doubt = any(isinstance(each.outcome, Uncertain) for each in lost)
            if is_in_doubt and len(lost) > 1 and self.conversation.end.how in _BREAKS:
                self._tell_deep_loss(self.conversation.end)
            if self._on_trace is not None and not self._over.is_set():
                seconds = trio.current_time() - self._state_since
                self._on_trace(TraceLine("end", mask_text(self.end), seconds, self.connection_id))
            self.session.transport.abort()
            self._over.set()
