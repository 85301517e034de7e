"""Pure. What a relay answers: one reply, and the reader that cuts a byte stream into replies."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from attrs import define, field, frozen

# RFC 5321 4.5.3.1.5 asks for 512 octets a reply line; relays that put links into their refusals send more.
LINE_LIMIT_BYTES = 4096
# An EHLO reply of the longest relays known stays below 2 KB; beyond this the peer is broken or hostile.
REPLY_LIMIT_BYTES = 32 * 1024
# What is kept of a reply's words: enough for a support link, little enough for a record in Redis.
TEXT_LIMIT_CHARS = 500
# Replies up to this length are kept ready.
_SHORT_CHARS = 80

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=\s|$)")


class Stage(StrEnum):
    """Where in a session something happened: the command that was answered, or the step before the first one."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    FINAL = "final"
    RSET = "rset"
    QUIT = "quit"


@frozen
class Reply:
    """One complete reply: code, enhanced code (empty if none), printable text and the command that earned it.

    Act on the first digit only (RFC 5321 4.3.2): unknown codes are legal. The text is the relay's and may name an
    address; whoever shows it masks it.
    """

    code: int
    text: str
    stage: Stage
    enhanced: str = ""

    @property
    def is_positive(self) -> bool:
        return self.code // 100 == 2

    @property
    def is_transient(self) -> bool:
        return self.code // 100 == 4

    @property
    def is_permanent(self) -> bool:
        return self.code // 100 == 5

    @property
    def codes(self) -> str:
        """The code and, if there is one, the enhanced code: ``550 5.1.1``."""
        return f"{self.code} {self.enhanced}".rstrip()

    def __str__(self) -> str:
        return f"{self.codes} {self.text}".rstrip()


@frozen
class RawReply:
    """A reply as read from the wire, before it is known which command it answers."""

    code: int
    text: str

    def answering(self, stage: Stage) -> Reply:
        """Return the reply as the answer to ``stage``, with its enhanced code (RFC 2034) split off the text."""
        if len(self.text) > _SHORT_CHARS:
            return reply_from(self.code, self.text, stage)
        return _usual_reply(self.code, self.text, stage)


@frozen
class Garbled:
    """The stream can no longer be cut into replies; nothing read after this can be trusted."""

    what: str


def reply_from(code: int, text: str, stage: Stage) -> Reply:
    """Build a reply from a code and its words, which become printable and bounded here."""
    words = printable_line(text)
    found = _ENHANCED.match(words)
    if found is None or found[1] != str(code)[0]:
        return Reply(code, words, stage)
    return Reply(code, words[found.end() :].strip(), stage, found[0])


# A relay says the same few things all day.
_usual_reply = lru_cache(256)(reply_from)


@lru_cache(256)
def _lone_line(line: bytes) -> RawReply | None:
    """Return the reply that one line is by itself; None when it takes a longer look."""
    cut = _LINE.fullmatch(line.removesuffix(b"\r"))
    return None if cut is None or cut[2] == b"-" else RawReply(int(cut[1]), (cut[3] or b"").decode("utf-8", "replace"))


@lru_cache(64)
def _acceptances(count: int) -> re.Pattern[bytes]:
    """Return what so many short replies of one line look like that all say yes; the last one is its group."""
    # No text holds a CR: were there two ways to read the end of a line, a refusal after n of them would be found after
    # 2^n looks.
    line = rb"2[0-9]{2}(?: [^\r\n]{0,%d})?" % (_SHORT_CHARS - 5)
    return re.compile(rb"(?:%b\r?\n){%d}(%b)\r?\n" % (line, count - 1, line))


def printable_line(text: str) -> str:
    """Return ``text`` on one line, bounded, with everything that a terminal could obey replaced by ``?``."""
    words = " ".join(text.split())[:TEXT_LIMIT_CHARS]
    if words.isprintable():
        return words
    return "".join(char if char.isprintable() else "?" for char in words)


@define
class ReplyReader:
    """Cut received bytes into replies, however they were split on the way (RFC 5321 4.2.1).

    `put` takes bytes, `read` gives the next reply that they complete. Memory is bounded by `REPLY_LIMIT_BYTES`. After a
    `Garbled` the reader stays garbled.
    """

    _unread: bytes = b""
    _at: int = 0  # where the next line begins in what is unread
    _code: int = 0
    _texts: list[str] = field(factory=list)
    _size_bytes: int = 0
    _garbled: Garbled | None = None

    def put(self, received: bytes) -> None:
        """Take the next bytes."""
        self._unread = self._unread[self._at :] + received
        self._at = 0

    def read(self) -> RawReply | Garbled | None:
        """Return the next reply, or `Garbled` if the stream is broken; None when more bytes have to come first."""
        while self._garbled is None:
            end = self._unread.find(b"\n", self._at)
            if end < 0:
                if len(self._unread) - self._at > LINE_LIMIT_BYTES:
                    return self._break(f"a reply line over {LINE_LIMIT_BYTES} bytes")
                return None
            line, self._at = self._unread[self._at : end], end + 1
            lone = _lone_line(line) if len(line) <= _SHORT_CHARS and not self._texts else None
            read = lone or self._take(line.removesuffix(b"\r"))
            if read is not None:
                return read
        return self._garbled

    def read_acceptances(self, count: int) -> RawReply | None:
        """Return the last of the next ``count`` replies if all of them are 2xx and have one line; else read nothing.

        One look at all of them costs less than one at each: nearly every mail is answered so.
        """
        if self._texts or self._garbled is not None:
            return None
        found = _acceptances(count).match(self._unread, self._at)
        if found is None:
            return None
        self._at = found.end()
        return _lone_line(found[1])

    def feed(self, received: bytes) -> list[RawReply | Garbled]:
        """Take the next bytes; return the replies they complete, a `Garbled` last if the stream is broken."""
        self.put(received)
        found: list[RawReply | Garbled] = []
        while (read := self.read()) is not None:
            found.append(read)
            if isinstance(read, Garbled):
                break
        return found

    def _take(self, line: bytes) -> RawReply | Garbled | None:
        self._size_bytes += len(line) + 2
        if len(line) > LINE_LIMIT_BYTES or self._size_bytes > REPLY_LIMIT_BYTES:
            return self._break(f"a reply over {REPLY_LIMIT_BYTES} bytes or a line over {LINE_LIMIT_BYTES}")
        cut = _LINE.fullmatch(line)
        if cut is None:
            return self._break("a line that is no SMTP reply")
        code = int(cut[1])
        if self._texts and code != self._code:
            return self._break(f"a reply that began as {self._code} and went on as {code}")
        self._code = code
        self._texts.append((cut[3] or b"").decode("utf-8", "replace"))
        if cut[2] == b"-":
            return None
        whole = RawReply(code, "\n".join(self._texts))
        self._texts, self._size_bytes = [], 0
        return whole

    def _break(self, what: str) -> Garbled:
        self._garbled = Garbled(what)
        return self._garbled
