"""A relay with limits, as the providers have them: it says their words when it is full."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, field

# Given the command (MAIL, RCPT or FINAL) and the number of the connection: the words of a refusal, or "" to take it.
Policy = Callable[[str, int], str]


def take_all(_stage: str, _connection: int) -> str:
    """Refuse nothing."""
    return ""


@define(eq=False)
class LimitedRelay:
    """Speaks SMTP with PIPELINING; ``policy`` may be replaced at any time."""

    policy: Policy = take_all
    reply_seconds: float = 0.0  # before the reply to a mail
    port: int = 0
    open_connections: set[int] = field(factory=set)
    connections: int = 0
    accepted: list[float] = field(factory=list)  # when, by trio's clock
    refused: Counter[str] = field(factory=Counter)
    bodies: list[bytes] = field(factory=list)
    most_open: int = 0
    last_recipient: dict[int, bytes] = field(factory=dict)  # by the number of the connection
    _changed: trio.Event = field(factory=trio.Event)

    async def wait_for(self, accepted: int) -> None:
        """Wait until so many mails were accepted."""
        while len(self.accepted) < accepted:
            await self._changed.wait()

    async def wait_for_refusals(self, refused: int) -> None:
        """Wait until so many refusals were sent."""
        while self.refused.total() < refused:
            await self._changed.wait()

    def answer(self, stage: str, connection: int, words: bytes = b"") -> str:
        """Return the reply to a command, and keep account of it."""
        refusal = self.policy(stage, connection)
        if stage == "RCPT" and b"bad@" in words and not refusal:
            refusal = f"454 4.7.1 <{words.decode().partition('<')[2].partition('>')[0]}>: Relay access denied"
        if refusal:
            self.refused[refusal] += 1
        elif stage == "FINAL":
            self.accepted.append(trio.current_time())
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        return refusal or "250 2.0.0 ok"

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        self.connections += 1
        number = self.connections
        self.open_connections.add(number)
        self.most_open = max(self.most_open, len(self.open_connections))
        try:
            await self._talk(stream, number)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open_connections.discard(number)
            await stream.aclose()

    async def _talk(self, stream: trio.SocketStream, number: int) -> None:
        lines: deque[bytes] = deque()
        rest, takers, has_sender = b"", 0, False
        await stream.send_all(b"220 relay.example ESMTP\r\n")
        async for received in stream:
            *complete, rest = (rest + received).split(b"\r\n")
            lines += complete
            replies: list[str] = []
            while lines:
                line = lines.popleft()
                verb = line.split(b":")[0].split(b" ")[0].upper().decode()
                match verb:
                    case "EHLO":
                        replies.append("250-relay.example\r\n250-PIPELINING\r\n250 8BITMIME")
                    case "MAIL":
                        takers = 0
                        replies.append(self.answer("MAIL", number))
                        has_sender = replies[-1].startswith("2")
                    case "RCPT" if not has_sender:
                        replies.append("503 5.5.1 Error: need MAIL command")
                    case "RCPT":
                        self.last_recipient[number] = line
                        replies.append(self.answer("RCPT", number, line))
                        takers += replies[-1].startswith("2")
                    case "DATA" if not takers:
                        replies.append("554 5.5.1 no valid recipients")
                    case "DATA":
                        await stream.send_all("".join(f"{reply}\r\n" for reply in (*replies, "354 go on")).encode())
                        replies = []
                        body, rest = await self._body(stream, lines, rest)
                        if self.reply_seconds:
                            await trio.sleep(self.reply_seconds)
                        replies.append(self.answer("FINAL", number))
                        if replies[-1].startswith("2"):
                            self.bodies.append(body)
                    case "QUIT":
                        await stream.send_all("".join(f"{reply}\r\n" for reply in (*replies, "221 bye")).encode())
                        return
                    case _:
                        replies.append("250 2.0.0 ok")
            if replies:
                await stream.send_all("".join(f"{reply}\r\n" for reply in replies).encode())

    async def _body(self, stream: trio.SocketStream, lines: deque[bytes], rest: bytes) -> tuple[bytes, bytes]:
        body: list[bytes] = []
        while True:
            while lines:
                line = lines.popleft()
                if line == b".":
                    return b"\n".join(body), rest
                body.append(line)
            received = await stream.receive_some()
            if not received:
                raise trio.BrokenResourceError
            *complete, rest = (rest + received).split(b"\r\n")
            lines += complete


@asynccontextmanager
async def open_limited_relay(policy: Policy = take_all, reply_seconds: float = 0.0) -> AsyncIterator[LimitedRelay]:
    """Run a relay on a free port of this machine for the block."""
    relay = LimitedRelay(policy, reply_seconds)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, relay.serve, 0, host="127.0.0.1"))
        relay.port = listeners[0].socket.getsockname()[1]
        yield relay
        nursery.cancel_scope.cancel()


@define
class PerSecond:
    """Takes a number of mails in any second; more get ``words``."""

    mails: int
    words: str
    _taken: deque[float] = field(factory=deque)

    def __call__(self, stage: str, _connection: int) -> str:
        now = trio.current_time()
        while self._taken and self._taken[0] <= now - 1.0:
            self._taken.popleft()
        if stage != "FINAL":
            return ""
        if len(self._taken) >= self.mails:
            return self.words
        self._taken.append(now)
        return ""


@define
class InAll:
    """Takes a number of mails in all; then ``words`` are the reply at ``stage``."""

    mails: int
    stage: str
    words: str
    _begun: int = 0

    def __call__(self, stage: str, _connection: int) -> str:
        if stage != self.stage:
            return ""
        self._begun += 1
        return self.words if self._begun > self.mails else ""
