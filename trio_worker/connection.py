"""Trio. One open connection to the relay: it drives a conversation over a transport and owns its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import trio
from attrs import define, field, frozen

from trio_worker.bridge import unsent_bytes
from trio_worker.events import ConnectionView
from trio_worker.opening import Opened, Timeouts
from trio_worker.outcome import Accepted, How, Outcome, Refused
from trio_worker.reply import Stage
from trio_worker.smtp import Conversation, Envelope, Transaction

# QUIT is a courtesy: a relay that does not answer it in this time is left without.
QUIT_SECONDS = 1.0
# A message of that size is worth more writes, which cost some microseconds each, for fewer copies.
LARGE_BYTES = 262_144


@frozen
class Delivery:
    """One attempt over one connection: what became of it and how long it took, from MAIL to the deciding reply."""

    outcome: Outcome
    seconds: float
    connection_id: int


class _Wire(asyncio.Protocol):
    """What asyncio tells of the transport, handed straight on: its callbacks run in the trio thread."""

    def __init__(
        self, received: Callable[[bytes], None], drained: Callable[[], None], ended: Callable[[How, str], None]
    ) -> None:
        self._received, self._drained, self._ended = received, drained, ended

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def resume_writing(self) -> None:
        self._drained()

    def eof_received(self) -> None:
        self._ended(How.EOF, "the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._ended(How.EOF, "the connection is closed")
        else:
            self._ended(How.RESET, type(exc).__name__)


@define(eq=False)
class _Waiter:
    """Who waits for one message; ``is_out`` is what the wait was begun with."""

    event: trio.Event = field(factory=trio.Event)
    is_out: bool = False


@define(eq=False)
class Connection:
    """One connection; several messages may be in flight on it at once.

    ``window`` is how many it has earned: one at first, one more for each message that was accepted, and one again when
    the relay refuses something for now.

    `close` or `abort` ends it and is the owner's to call; after either, or once `end` is set, it is never used again.
    """

    connection_id: int
    opened: Opened
    timeouts: Timeouts
    conversation: Conversation = field(init=False)
    lent: int = 0  # messages that the pool has let onto it
    opened_at: float = field(factory=trio.current_time)
    used_at: float = field(factory=trio.current_time)
    window: int = 1
    _waiters: dict[Transaction, _Waiter] = field(factory=dict)
    _quiet: trio.Event = field(factory=trio.Event)
    _progress_at: float = field(factory=trio.current_time)
    _state_since: float = field(factory=trio.current_time)

    def __attrs_post_init__(self) -> None:
        self.conversation = Conversation(self.opened.capabilities)
        # Any write that the kernel does not take at once is told as drained, so that we know when a message is out.
        self.opened.transport.set_write_buffer_limits(high=0)
        self.opened.transport.set_protocol(_Wire(self._receive, self._wake, self.lose))

    @property
    def end(self) -> str:
        """Why the connection is over; empty while it can be used."""
        return "" if self.conversation.end is None else str(self.conversation.end)

    @property
    def in_flight(self) -> int:
        return self.conversation.in_flight

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

    async def deliver(self, envelope: Envelope) -> Delivery:
        """Send one message and return what became of it.

        A cancel before the last byte of the message is out aborts the connection: nothing was accepted, Cancelled is
        raised. From the last byte to the final reply a cancel waits: only `abort` or the deadline ends that.
        """
        began = trio.current_time()
        if not self.in_flight:
            self._progress_at = began
        transaction = self.conversation.begin(envelope)
        self._flush()
        if transaction.outcome is None:
            await self._wait_for(transaction)
        assert transaction.outcome is not None  # noqa: S101  the wait ends with nothing else
        self._adjust_window(transaction.outcome)
        self.used_at = trio.current_time()
        return Delivery(transaction.outcome, self.used_at - began, self.connection_id)

    async def close(self) -> None:
        """Say QUIT, wait for its answer a moment, and end the connection, whatever happens."""
        try:
            if not self.end and not self.in_flight:
                self.conversation.quit()
                self._flush()
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
        self._end_if_over()

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

    async def _wait_for(self, transaction: Transaction) -> None:
        """Wait until a message is decided; `_wake` ends the wait, also when the message has left meanwhile."""
        waiter = self._waiters[transaction] = _Waiter()
        try:
            while transaction.outcome is None:
                waiter.is_out = self._is_out(transaction)
                await self._wait_once(waiter)
                waiter.event = trio.Event()
        except trio.Cancelled:
            self.lose(How.CANCELLED, "given up before the message was out")
            raise
        finally:
            del self._waiters[transaction]

    async def _wait_once(self, waiter: _Waiter) -> None:
        """Wait for one change, or for the end of patience with the relay, which any complete reply renews."""
        unsent = unsent_bytes(self.opened.transport)
        soonest = min(self._patience_seconds(is_out=waiter.is_out), self.timeouts.command_seconds)
        with trio.CancelScope(shield=waiter.is_out, deadline=self._progress_at + soonest) as patience:
            await waiter.event.wait()
        if not patience.cancelled_caught:
            return
        seconds = self._patience_seconds(is_out=waiter.is_out)
        if 0 < unsent_bytes(self.opened.transport) < unsent:
            self._progress_at = trio.current_time()
        elif trio.current_time() >= self._progress_at + seconds:
            self.lose(How.TIMEOUT, f"no answer within {seconds:g} s")
        else:
            with trio.CancelScope(shield=waiter.is_out, deadline=self._progress_at + seconds):
                await waiter.event.wait()

    def _adjust_window(self, outcome: Outcome) -> None:
        match outcome:
            case Accepted():
                self.window += 1
            case Refused(reply) if reply.code // 100 == 4:
                self.window = 1
            case _:
                pass

    def _is_out(self, transaction: Transaction) -> bool:
        """Whether the last byte of the message has left: from here nobody but the relay knows what became of it."""
        return transaction.end_offset_bytes is not None and unsent_bytes(self.opened.transport) == 0

    def _patience_seconds(self, *, is_out: bool) -> float:
        if is_out and self.conversation.awaited is Stage.FINAL:
            return self.timeouts.final_reply_seconds
        return self.timeouts.command_seconds

    def _receive(self, received: bytes) -> None:
        before = self.conversation.replies
        self.conversation.receive(received)
        if self.conversation.end is None:
            self._flush()
        if self.conversation.replies != before:
            self._progress_at = trio.current_time()
            self._wake()
        self._end_if_over()

    def _flush(self) -> None:
        pieces = self.conversation.take_pieces()
        if not pieces:
            return
        self._state_since = trio.current_time()
        if max(map(len, pieces)) < LARGE_BYTES:
            self.opened.transport.write(b"".join(pieces))
            return
        for piece in pieces:
            # What the kernel does not take at once is copied by asyncio; a view keeps that from being done twice.
            self.opened.transport.write(memoryview(piece))

    def _end_if_over(self) -> None:
        if self.conversation.end is not None:
            self.opened.transport.abort()
            self._wake()

    def _wake(self) -> None:
        """End the waits for what is decided, and for what is out now and must be shielded."""
        for transaction, waiter in self._waiters.items():
            if transaction.outcome is not None or (not waiter.is_out and self._is_out(transaction)):
                waiter.event.set()
        self._quiet.set()
