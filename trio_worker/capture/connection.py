"""Trio. One client's connection to the catcher: writes with or without delay, TLS, and the ways to end it."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque

import trio
from attrs import field

from trio_worker.capture.session import ServerSession
from trio_worker.records import define

RECEIVE_BYTES = 64 * 1024
# How long a client may take for the TLS handshake, and for reading the last reply after we have closed our side.
HANDSHAKE_SECONDS = 30
LINGER_SECONDS = 2
# A stall ends even if the client never gives up; longer than the 10 minutes of RFC 5321 section 4.5.3.2.6.
STALL_SECONDS = 900

# SO_LINGER switched on with 0 seconds: closing resets the connection.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@define(eq=False)
class ClientConnection:
    """A client's connection and its session.

    ``stream`` is the TLS stream if there is one, ``tcp`` the socket below it. A delayed reply waits in the outbox, in
    order, while reading goes on: so each group of commands has the same delay, whatever came before it.
    """

    tcp: trio.SocketStream
    session: ServerSession
    writers: trio.Nursery
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    stream: trio.abc.Stream = field(init=False)
    _outbox: deque[tuple[float, bytes]] = field(factory=deque, init=False)
    _is_writing: bool = field(default=False, init=False)
    _written: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.stream = self.tcp

    async def receive(self) -> bytes:
        """Return the next octets, empty at the end; raises trio.BrokenResourceError if the connection broke."""
        return bytes(await self.stream.receive_some(RECEIVE_BYTES))

    async def send(self, payload: bytes, due: float) -> None:
        """Send octets, not before ``due`` on the trio clock; waits only if they are due now."""
        if not self._is_writing and due <= trio.current_time():
            await self.stream.send_all(payload)
            return
        self._outbox.append((due, payload))
        if not self._is_writing:
            self._is_writing = True
            self._written = trio.Event()
            self.writers.start_soon(self._write_late)

    async def flush(self) -> None:
        """Wait until all delayed replies have been sent, or could not be."""
        if self._is_writing:
            await self._written.wait()

    async def _write_late(self) -> None:
        try:
            await self._write_outbox()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._outbox.clear()  # the task that reads sees the same and ends the connection
        finally:
            self._is_writing = False
            self._written.set()

    async def _write_outbox(self) -> None:
        while self._outbox:
            due, _ = self._outbox[0]
            await trio.sleep_until(due)
            _, payload = self._outbox.popleft()
            await self.stream.send_all(payload)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Do the handshake as the server; raises trio.BrokenResourceError if it fails or takes too long."""
        stream = trio.SSLStream(self.tcp, context, server_side=True)
        with trio.move_on_after(HANDSHAKE_SECONDS) as patience:
            await stream.do_handshake()
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("no TLS handshake in time")
        self.stream = stream

    async def close_in_order(self) -> bool:
        """End our side and give the client time to read all replies; return whether it sent more without TLS.

        Closing at once could reset the connection, and then unread replies are lost.
        """
        sent_more = False
        with trio.move_on_after(LINGER_SECONDS):
            if isinstance(self.stream, trio.SSLStream):
                await self.stream.unwrap()
            await self.tcp.send_eof()
            while await self.tcp.receive_some(RECEIVE_BYTES):
                sent_more = self.stream is self.tcp
        return sent_more

    async def stall(self, *, reads: bool) -> None:
        """Send nothing more, until the client disconnects."""
        with trio.move_on_after(STALL_SECONDS):
            if not reads:
                await trio.sleep_forever()
            while await self.receive():
                pass

    def reset(self) -> None:
        """Reset the connection; all that this side is doing on it ends."""
        if self.tcp.socket.fileno() < 0:
            return
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.tcp.socket.close()
        self.scope.cancel()

    def close_nowait(self) -> None:
        """Close the socket; octets that were sent already still go out."""
        self.tcp.socket.close()
