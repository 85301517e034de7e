"""A relay that only answers, as fast as Python can, after a simulated round trip.

Run as ``sink.py PORT ROUND_TRIP_MS [CERT KEY]``. Each line on standard input is a request; the answer is a line of JSON
on standard output. ``clear N`` forgets all mails and expects N new ones, ``watch PID...`` names the processes that send
them, ``count`` returns the number of mails, and ``report`` returns all mails. Do not use ``report`` during a run: it is
slow.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from collections import deque
from typing import Any

from usage import cpu_seconds

EHLO = b"250-sink\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 50000000\r\n"
NUMBERED = re.compile(rb"user(\d+)@")
# The mails before and after these parts of a run belong to its start and its end, and are not measured.
FIRST_PART, LAST_PART = 0.1, 0.9


class Tally:
    """The mails since the last ``clear``."""

    def __init__(self) -> None:
        self.clear(0)

    def clear(self, expected: int) -> None:
        self.expected, self.mails, self.connections, self.commands, self.writes = expected, 0, 0, 0, 0
        self.first_at = self.last_at = self.from_at = self.to_at = 0.0
        self.cpu_from = self.cpu_to = 0.0
        self.accepted_at: dict[int, float] = {}
        self.senders: list[int] = []

    def cpu_of_senders(self) -> float:
        return sum(map(cpu_seconds, self.senders))

    def note(self, number: int) -> None:
        self.mails += 1
        now = time.time()
        self.last_at = now
        if self.mails == 1:
            self.first_at = now
        if self.mails == round(FIRST_PART * self.expected):
            self.from_at, self.cpu_from = now, self.cpu_of_senders()
        if self.mails == round(LAST_PART * self.expected):
            self.to_at, self.cpu_to = now, self.cpu_of_senders()
        if number >= 0:
            self.accepted_at[number] = now

    def report(self) -> dict[str, Any]:
        measured = round(LAST_PART * self.expected) - round(FIRST_PART * self.expected)
        seconds = self.to_at - self.from_at
        return {
            "mails": self.mails,
            "connections": self.connections,
            "writes": self.writes,
            "rate": measured / seconds if seconds > 0 else 0.0,
            "cpu_seconds_per_1000": 1000 * (self.cpu_to - self.cpu_from) / measured if measured else 0.0,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "accepted_at": self.accepted_at,
        }


TALLY = Tally()


class Session(asyncio.Protocol):
    """One connection; replies to what arrived together leave together, a round trip later."""

    def __init__(self, round_trip_seconds: float) -> None:
        self.delay = round_trip_seconds
        self.buffer = b""
        self.missing = 0
        self.in_data = False
        self.number = -1
        self.transport: Any = None
        self.waiting: deque[bytes] = deque()

    def connection_made(self, transport: Any) -> None:
        TALLY.connections += 1
        self.transport = transport
        # One round trip for the TCP handshake, which the loopback does not delay, and one for the greeting.
        asyncio.get_running_loop().call_later(2 * self.delay, transport.write, b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        TALLY.writes += 1
        received = self.buffer + data if self.buffer else data
        replies: list[bytes] = []
        # A cursor, because cutting each read line off the buffer would copy the rest each time.
        at = 0
        while (read_to := self._read(received, at, replies)) >= 0:
            at = read_to
        self.buffer = received[at:] if not self.missing else b""
        if replies:
            self._say(b"".join(replies))

    def _say(self, reply: bytes) -> None:
        if not self.delay:
            self.transport.write(reply)
            return
        self.waiting.append(reply)
        asyncio.get_running_loop().call_later(self.delay, self._say_next)

    def _say_next(self) -> None:
        reply = self.waiting.popleft()
        self.transport.write(reply)
        if reply.startswith(b"221"):
            self.transport.close()

    def _read(self, received: bytes, at: int, replies: list[bytes]) -> int:
        """Read one item from this position on; return its end, or -1 if it is not complete."""
        if self.missing:
            taken = min(self.missing, len(received) - at)
            self.missing -= taken
            if self.missing:
                return -1
            self._accept(replies)
            return at + taken
        if self.in_data:
            end = received.find(b"\r\n.\r\n", at)
            if end < 0:
                return -1
            self.in_data = False
            self._accept(replies)
            return end + 5
        end = received.find(b"\r\n", at)
        if end < 0:
            return -1
        self._answer(received[at:end], replies)
        return end + 2

    def _answer(self, line: bytes, replies: list[bytes]) -> None:
        verb = line[:4].upper()
        if verb == b"BDAT":
            self.missing = int(line.split()[1])
        elif verb == b"DATA":
            self.in_data = True
            replies.append(b"354 go\r\n")
        elif verb == b"EHLO":
            replies.append(EHLO)
        elif verb == b"QUIT":
            replies.append(b"221 bye\r\n")
            if not self.delay:
                asyncio.get_running_loop().call_soon(self.transport.close)
        else:
            if verb == b"RCPT":
                numbered = NUMBERED.search(line)
                self.number = int(numbered[1]) if numbered else -1
            replies.append(b"250 2.0.0 ok\r\n")

    def _accept(self, replies: list[bytes]) -> None:
        TALLY.note(self.number)
        replies.append(b"250 2.0.0 queued\r\n")


async def serve(port: int, round_trip_seconds: float, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(round_trip_seconds), "127.0.0.1", port, ssl=context, backlog=1000)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with server:
        print("ready", flush=True)
        while line := (await reader.readline()).split():
            answer: dict[str, Any] = {}
            match line:
                case [b"clear", expected]:
                    TALLY.clear(int(expected))
                case [b"watch", *senders]:
                    TALLY.senders = list(map(int, senders))
                case [b"count"]:
                    answer = {"mails": TALLY.mails}
                case _:
                    answer = TALLY.report()
            print(json.dumps(answer), flush=True)


def main() -> None:
    port, milliseconds = int(sys.argv[1]), float(sys.argv[2])
    context = None
    if len(sys.argv) > 3:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
    try:
        import uvloop  # noqa: PLC0415  optional: faster if it is installed
    except ImportError:
        asyncio.run(serve(port, milliseconds / 1000, context))
    else:
        uvloop.run(serve(port, milliseconds / 1000, context))


if __name__ == "__main__":
    main()
