"""Trio. One open connection to the relay: it drives a conversation over a transport and owns its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import trio
from attrs import define, field, frozen

from trio_worker.bridge import unsent_bytes, waiting_bytes
from trio_worker.events import ConnectionView
from trio_worker.exchange import Exchange, exchange_of
from trio_worker.opening import Opened, Timeouts
from trio_worker.outcome import Accepted, How, Outcome, Refused
from trio_worker.privacy import mask_text
from trio_worker.reply import Reply, Stage
from trio_worker.smtp import Conversation, Envelope, Transaction

# QUIT is a courtesy: a relay that does not answer it in this time is left without.
QUIT_SECONDS = 1.0
# A message of that size is worth more writes, which cost some microseconds each, for fewer copies.
LARGE_BYTES = 262_144


# Told what became of a message.
TellDelivery: TypeAlias = Callable[["Delivery"], object]
# Told of each command and its reply while somebody traces.
TellExchange: TypeAlias = Callable[[Exchange], object]


@frozen
class Delivery:
    """One attempt over one connection: what became of it and how long it took, from MAIL to the deciding reply."""

    outcome: Outcome
    seconds: float
    connection_id: int


class _Wire(asyncio.Protocol):
    """What asyncio tells of the transport, handed straight on: its callbacks run in the trio thread."""

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[How, str], None]) -> None:
        self._received, self._ended = received, ended

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def eof_received(self) -> None:
        self._ended(How.EOF, "the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._ended(How.EOF, "the connection is closed")
        else:
            self._ended(How.RESET, type(exc).__name__)


def _let_go(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


@define(eq=False)
class Connection:
    """One connection; several messages may be in flight on it at once.

    ``window`` is how many it has earned: one at first, one more for each message that was accepted, and one again when
    the relay refuses something for now.

    `close` or `abort` ends it and is the owner's to call; after either, or once `end` is set, it is never used again.
    `watch` must run beside it: without it a relay that falls silent is waited for without an end.
    """

    connection_id: int
    opened: Opened
    timeouts: Timeouts
    conversation: Conversation = field(init=False)
    lent: int = 0  # messages that the pool has let onto it
    is_old: bool = False  # the pool gives it no further message
    opened_at: float = field(factory=trio.current_time)
    used_at: float = field(factory=trio.current_time)
    window: int = 1
    _waiting: dict[Transaction, tuple[float, TellDelivery]] = field(factory=dict)  # since when, and whom to tell
    _writing: trio.lowlevel.Task | None = None  # sleeps until messages have begun, or is about to write them
    _has_gathered: bool = False
    _over: trio.Event = field(factory=trio.Event)
    _quiet: trio.Event = field(factory=trio.Event)
    _taken_bytes: int = 0  # of all that was written, by the kernel, when the connection was last looked at
    _progress_at: float = field(factory=trio.current_time)
    _state_since: float = field(factory=trio.current_time)
    _tell_exchange: TellExchange | None = None

    def __attrs_post_init__(self) -> None:
        self.conversation = Conversation(self.opened.capabilities)
        self.opened.transport.set_protocol(_Wire(self._receive, self.lose))

    @property
    def end(self) -> str:
        """Why the connection is over; empty while it can be used."""
        return "" if self.conversation.end is None else str(self.conversation.end)

    @property
    def delivered(self) -> int:
        return self.conversation.delivered

    @property
    def room(self) -> int:
        """How many messages at once are of use: what was earned, and what the relay's extensions allow."""
        capabilities = self.opened.capabilities
        if not capabilities.pipelining:
            return 1
        # With DATA the envelope of the next message rides with the content of the one before, and nothing further.
        return self.window if capabilities.chunking else min(self.window, 2)

    def begin(self, envelope: Envelope, tell: TellDelivery) -> Transaction:
        """Send one message, and ``tell`` what became of it: at once if that is known, else when it is. Never awaits.

        Only a final reply, `watch` and `abort` decide it. Messages that begin while others are in flight are written
        together, in the next round of the scheduler.
        """
        began = trio.current_time()
        is_alone = not self.conversation.in_flight
        if is_alone:
            self._progress_at = began
        transaction = self.conversation.begin(envelope)
        if transaction.outcome is not None:
            tell(self._delivery(transaction.outcome, began, began))
            return transaction
        self._waiting[transaction] = began, tell
        if is_alone or self._writing is None:
            self._flush(began)
        else:
            self._wake_writer()
        return transaction

    async def deliver(self, envelope: Envelope) -> Delivery:
        """Send one message and return what became of it.

        A cancel before the last byte of the message is out aborts the connection: nothing was accepted, Cancelled is
        raised. From the last byte to the final reply a cancel waits: only `abort` or the deadline ends that.
        """
        task = trio.lowlevel.current_task()
        told: list[Delivery] = []
        sleeps = False

        def note(delivery: Delivery) -> None:
            told.append(delivery)
            if sleeps:
                trio.lowlevel.reschedule(task)

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            if self._is_out(transaction):
                return trio.lowlevel.Abort.FAILED
            del self._waiting[transaction]
            self.lose(How.CANCELLED, "given up before the message was out")
            return trio.lowlevel.Abort.SUCCEEDED

        transaction = self.begin(envelope, note)
        if not told:
            sleeps = True
            await trio.lowlevel.wait_task_rescheduled(give_up)
        return told[0]

    async def write(self) -> None:
        """Write together what messages begin in one round of the scheduler; return when the connection is over.

        A message that begins while none is in flight does not wait for that. Without this each is written by itself.
        """
        while not self.end:
            self._writing, self._has_gathered = trio.lowlevel.current_task(), False
            try:
                await trio.lowlevel.wait_task_rescheduled(_let_go)
            finally:
                self._writing = None
            self._flush(trio.current_time())

    async def watch(self) -> None:
        """End the connection when the relay, owing us something, is silent for too long; return when it is over.

        A complete reply is a sign of life, and so is a kernel that goes on taking what we wrote.
        """
        # A message that begins while this sleeps has at least that much time.
        soonest = min(self.timeouts.command_seconds, self.timeouts.final_reply_seconds)
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
                self.lose(How.TIMEOUT, f"no answer within {self._patience_seconds():g} s")

    async def close(self) -> None:
        """Say QUIT, wait for its answer a moment, and end the connection, whatever happens."""
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
        """End the connection at once; what it had not handed to the kernel is dropped. Never awaits."""
        self.lose(How.CANCELLED, "we ended it")

    def lose(self, how: How, what: str) -> None:
        """Note the end of the connection and make sure of it."""
        self.conversation.lose(how, what, unsent_bytes(self.opened.transport))
        self._tell_decided()

    def trace(self, tell: TellExchange | None) -> None:
        """Tell each command and its reply from now on; None ends it."""
        self._tell_exchange = tell
        self.conversation.tell_reply = None if tell is None else self._note_reply

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
            tls=self.opened.tls,
            last_reply="" if last is None else last.codes,
        )

    def _note_reply(self, stage: Stage, transaction: Transaction | None, reply: Reply) -> None:
        seconds = trio.current_time() - self._state_since
        if self._tell_exchange is not None:
            self._tell_exchange(exchange_of(stage, transaction, reply, seconds, self.connection_id))

    def _delivery(self, outcome: Outcome, began: float, now: float) -> Delivery:
        self._adjust_window(outcome)
        self.used_at = now
        return Delivery(outcome, now - began, self.connection_id)

    def _adjust_window(self, outcome: Outcome) -> None:
        match outcome:
            case Accepted():
                self.window += 1
            case Refused(reply) if reply.code // 100 == 4:
                self.window = 1
            case _:
                pass

    def _is_out(self, transaction: Transaction) -> bool:
        """Whether the last byte of the message may have left: from here only the relay knows what became of it."""
        return self.conversation.is_complete(transaction, unsent_bytes(self.opened.transport))

    def _note_taken(self, now: float) -> None:
        waiting = waiting_bytes(self.opened.transport)
        taken = self.conversation.written_bytes - waiting
        if waiting and taken > self._taken_bytes:
            self._progress_at = now
        self._taken_bytes = taken

    def _patience_seconds(self) -> float:
        if self.conversation.awaited is Stage.FINAL and not unsent_bytes(self.opened.transport):
            return self.timeouts.final_reply_seconds
        return self.timeouts.command_seconds

    def _receive(self, received: bytes) -> None:
        before = self.conversation.replies
        self.conversation.receive(received)
        if self.conversation.replies != before:
            self._progress_at = trio.current_time()
        if self.conversation.end is None:
            self._flush(self._progress_at)
        self._tell_decided()

    def _flush(self, now: float) -> None:
        pieces = self.conversation.take_outgoing()
        if not pieces or self.conversation.end is not None:
            return
        self._state_since = now
        if max(map(len, pieces)) < LARGE_BYTES:
            self.opened.transport.write(b"".join(pieces))
            return
        for piece in pieces:
            # What the kernel does not take at once is copied by asyncio; a view keeps that from being done twice.
            self.opened.transport.write(memoryview(piece))

    def _tell_decided(self) -> None:
        """Tell what is decided now to whom it concerns; make sure of the connection's end once it is over."""
        now = trio.current_time()
        for transaction in self.conversation.take_decided():
            waiting = self._waiting.pop(transaction, None)
            if waiting is not None and transaction.outcome is not None:
                began, tell = waiting
                tell(self._delivery(transaction.outcome, began, now))
        self._quiet.set()
        if self.conversation.end is not None:
            if self._tell_exchange is not None and not self._over.is_set():
                seconds = trio.current_time() - self._state_since
                self._tell_exchange(Exchange("end", mask_text(self.end), seconds, self.connection_id))
            self.opened.transport.abort()
            self._over.set()
            self._wake_writer()

    def _wake_writer(self) -> None:
        """Have `write` run in the next round of the scheduler, if it sleeps."""
        if self._writing is not None and not self._has_gathered:
            self._has_gathered = True
            trio.lowlevel.reschedule(self._writing)
