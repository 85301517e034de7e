"""A relay with the flaws of real ones, over sockets: it drops what comes ahead of its answers, or says too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal

import trio
from attrs import define, field

# What becomes of commands that it had received when it answered a final dot.
Ahead = Literal["answered", "503", "dropped"]


@define
class FlawedRelay:
    """Takes every mail, and notes for whom, with these flaws."""

    offers: tuple[str, ...] = ("PIPELINING",)
    ahead: Ahead = "answered"
    go_ahead: bytes = b"354 go\r\n"
    taken: bytes = b"250 taken\r\n"
    port: int = 0
    sent_to: Counter[str] = field(factory=Counter)
    lost_ahead: int = 0  # commands
    connections: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection until the client leaves, in whatever way."""
        self.connections += 1
        with suppress(trio.BrokenResourceError):
            await self._serve(stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 relay\r\n")
        unread, recipients = b"", list[str]()
        while True:
            line, found, rest = unread.partition(b"\r\n")
            if not found:
                received = await stream.receive_some()
                if not received:
                    return
                unread += received
                continue
            unread = rest
            match line.upper().split(b" ")[0]:
                case b"EHLO":
                    lines = ["relay", *self.offers]
                    reply = "".join(f"250{'-' if each is not lines[-1] else ' '}{each}\r\n" for each in lines).encode()
                case b"RCPT":
                    recipients.append(line.decode().partition("<")[2].rstrip(">"))
                    reply = b"250 ok\r\n"
                case b"DATA":
                    await stream.send_all(self.go_ahead)
                    while b"\r\n.\r\n" not in b"\r\n" + unread:
                        received = await stream.receive_some()
                        if not received:
                            return
                        unread += received
                    unread = (b"\r\n" + unread).partition(b"\r\n.\r\n")[2]
                    self.sent_to.update(recipients)
                    recipients = []
                    reply, unread = self._answer_dot(unread)
                case b"QUIT":
                    await stream.send_all(b"221 bye\r\n")
                    return
                case _:
                    reply = b"250 ok\r\n"
            await stream.send_all(reply)

    def _answer_dot(self, buffered: bytes) -> tuple[bytes, bytes]:
        """Return the reply, and what is left of the commands behind the dot."""
        if self.ahead == "answered":
            return self.taken, buffered
        commands = buffered.count(b"\r\n")
        self.lost_ahead += commands
        return self.taken + b"503 out of order\r\n" * commands * (self.ahead == "503"), b""


@asynccontextmanager
async def open_flawed_relay(relay: FlawedRelay) -> AsyncIterator[FlawedRelay]:
    """Run a relay for the block."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, relay.serve, 0, host="127.0.0.1"))
        relay.port = listeners[0].socket.getsockname()[1]
        yield relay
        nursery.cancel_scope.cancel()
