"""A transport that answers by itself, for tests in virtual time, without sockets and without asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.session import Session

CHUNKED = Capabilities(pipelining=True, chunking=True, eight_bit=True)


def accept_all(wire: bytes) -> bytes:
    """Answer every command and content of one write with 250, QUIT with 221."""
    replies = b""
    while wire:
        line, _, wire = wire.partition(b"\r\n")
        verb, *words = line.split()
        if verb == b"BDAT":
            wire = wire[int(words[0]) :]
        replies += b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
    return replies


@define(eq=False)
class FakeTransport:
    """Takes what a connection writes and answers each write after ``delay_seconds``, as a relay that accepts all.

    ``is_full`` makes it keep what is written, as a kernel with a full buffer does.
    """

    delay_seconds: float = 1.0
    answer: Callable[[bytes], bytes] = accept_all
    is_full: bool = False
    written: list[bytes] = field(factory=list)
    is_aborted: bool = False
    _protocol: asyncio.BufferedProtocol | None = None
    _ssl_protocol: object = None

    def set_protocol(self, protocol: asyncio.BufferedProtocol) -> None:
        self._protocol = protocol

    def get_extra_info(self, _name: str) -> None:
        """Know no socket."""

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written)) if self.is_full else 0

    def is_closing(self) -> bool:
        return self.is_aborted

    def write(self, wire: bytes) -> None:
        assert not self.is_aborted
        self.written.append(wire)
        if not self.is_full:
            trio.lowlevel.spawn_system_task(self._reply, self.answer(wire))

    def abort(self) -> None:
        if not self.is_aborted:
            self.is_aborted = True
            trio.lowlevel.current_trio_token().run_sync_soon(self._tell_end)

    def say(self, received: bytes) -> None:
        """Send something of the relay's own accord."""
        assert self._protocol is not None
        while received:
            room = memoryview(self._protocol.get_buffer(len(received)))
            part, received = received[: len(room)], received[len(room) :]
            room[: len(part)] = part
            self._protocol.buffer_updated(len(part))

    def _tell_end(self) -> None:
        assert self._protocol is not None
        self._protocol.connection_lost(None)

    async def _reply(self, replies: bytes) -> None:
        await trio.sleep(self.delay_seconds)
        if replies and not self.is_aborted:
            self.say(replies)


def session_on(transport: FakeTransport, capabilities: Capabilities = CHUNKED) -> Session:
    """An open session over a fake transport."""
    foreign: Any = transport
    return Session(foreign, capabilities, "", 0.01)
