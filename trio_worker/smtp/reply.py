"""Pure. SMTP replies, and the reader that splits a byte stream into them."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from attrs import field

from trio_worker.records import define, frozen
from trio_worker.secret_mask import NO_SECRETS, SecretMask
from trio_worker.smtp.reply_text import printable_line

# RFC 5321 4.5.3.1.5 allows 512 octets for a reply line; relays that put links into their refusals send more.
LINE_LIMIT_BYTES = 4096
# The longest EHLO replies known are below 2 KB; a peer that sends more than this is broken or hostile.
REPLY_LIMIT_BYTES = 32 * 1024
# Replies up to this length are cached.
_SHORT_CHARS = 80

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?=\s|$)")


class Stage(StrEnum):
    """Stages of a session: the command that a reply answers, or a step of the handshake."""

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
    """One complete reply: code, enhanced code (empty if none), printable text, and the command that it answers.

    Decide by the first digit only (RFC 5321 4.3.2): unknown codes are legal. The text is the relay's and may contain
    an address: mask it before it is shown.
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
        """The code and the enhanced code, if there is one: ``550 5.1.1``."""
        return f"{self.code} {self.enhanced}".rstrip()

    def __str__(self) -> str:
        return f"{self.codes} {self.text}".rstrip()


@frozen
class RawReply:
    """A reply as read from the wire, before it is known which command it answers."""

    code: int
    text: str

    def answering(self, stage: Stage) -> Reply:
        """Return it as the reply to ``stage``, with the enhanced code (RFC 2034) taken out of the text."""
        if len(self.text) > _SHORT_CHARS:
            return reply_from(self.code, self.text, stage)
        return _usual_reply(self.code, self.text, stage)


@frozen
class Garbled:
    """The stream is no sequence of replies any more; nothing read after this can be trusted."""

    reason: str


def reply_from(code: int, text: str, stage: Stage) -> Reply:
    """Make a reply from a code and its text, which is made printable and cut to `TEXT_LIMIT_CHARS` here."""
    line = printable_line(text)
    found = _ENHANCED.match(line)
    if found is None or found[1] != str(code)[0]:
        return Reply(code, line, stage)
    return Reply(code, line[found.end() :].strip(), stage, found[0])


# A relay sends the same few replies again and again.
_usual_reply = lru_cache(256)(reply_from)


@lru_cache(256)
def _lone_line(line: bytes) -> RawReply | None:
    """Return the reply if one line is a whole one; None if it needs the full parser."""
    cut = _LINE.fullmatch(line.removesuffix(b"\r"))
    return None if cut is None or cut[2] == b"-" else RawReply(int(cut[1]), (cut[3] or b"").decode("utf-8", "replace"))


@lru_cache(64)
def _acceptances(count: int) -> re.Pattern[bytes]:
    """Return a pattern for ``count`` short replies of one line that are all 2xx; its group is the last one."""
    # No text may hold a CR: with two ways to match the end of a line, a refusal after n lines would take 2^n steps.
    line = rb"2[0-9]{2}(?: [^\r\n]{0,%d})?" % (_SHORT_CHARS - 5)
    return re.compile(rb"(?:%b\r?\n){%d}(%b)\r?\n" % (line, count - 1, line))


@define
class ReplyReader:
    """Splits received bytes into replies, in whatever pieces they arrive (RFC 5321 4.2.1).

    `put` takes bytes, `read` gives the next reply that they complete. Memory is bounded by `REPLY_LIMIT_BYTES`: a reply
    over it is cut, and `Garbled` follows. After that the reader stays garbled. In every reply our secrets are masked.
    """

    _secrets: SecretMask = NO_SECRETS
    _unread: bytes = b""
    _at: int = 0  # offset of the next line in the unread bytes
    _code: int = 0
    _texts: list[str] = field(factory=list)
    _size_bytes: int = 0
    _garbled: Garbled | None = None

    def put(self, received: bytes) -> None:
        """Take the next bytes."""
        self._unread = self._unread[self._at :] + received
        self._at = 0

    def read(self) -> RawReply | Garbled | None:
        """Return the next reply, or `Garbled` if the stream is broken; None if more bytes are needed."""
        while self._garbled is None:
            end = self._unread.find(b"\n", self._at)
            if end < 0:
                if len(self._unread) - self._at <= LINE_LIMIT_BYTES:
                    return None
                end = len(self._unread)
            line, self._at = self._unread[self._at : end], end + 1
            lone = _lone_line(line) if len(line) <= _SHORT_CHARS and not self._texts else None
            read = lone or self._take(line.removesuffix(b"\r"))
            if read is not None:
                return self._masked(read) if isinstance(read, RawReply) else read
        return self._garbled

    def read_acceptances(self, count: int) -> RawReply | None:
        """Return the last of the next ``count`` replies if all are 2xx and have one line; else read nothing.

        Nearly all mails are answered so, and one match for all replies costs less than one for each.
        """
        if self._texts or self._garbled is not None:
            return None
        found = _acceptances(count).match(self._unread, self._at)
        if found is None:
            return None
        self._at = found.end()
        last = _lone_line(found[1])
        return None if last is None else self._masked(last)

    def feed(self, received: bytes) -> list[RawReply | Garbled]:
        """Take the next bytes; return the replies that are complete now, `Garbled` last if the stream is broken."""
        self.put(received)
        found: list[RawReply | Garbled] = []
        while (read := self.read()) is not None:
            found.append(read)
            if isinstance(read, Garbled):
                break
        return found

    def _take(self, line: bytes) -> RawReply | Garbled | None:
        self._size_bytes += len(line) + 2
        is_too_long = len(line) > LINE_LIMIT_BYTES or self._size_bytes > REPLY_LIMIT_BYTES
        cut = _LINE.fullmatch(line[:LINE_LIMIT_BYTES])
        if cut is None:
            return self._break("a line that is not an SMTP reply")
        # All lines should have one code (RFC 5321, 4.2.1). Where they do not the last one counts, as for a client that
        # skips to the line with a space after its code.
        self._code = int(cut[1])
        self._texts.append((cut[3] or b"").decode("utf-8", "replace"))
        if is_too_long:
            # What it means is known: a mail that was accepted must not go again because the relay says too much.
            self._break(f"a reply over {REPLY_LIMIT_BYTES} bytes or a line over {LINE_LIMIT_BYTES}")
        elif cut[2] == b"-":
            return None
        whole = RawReply(self._code, "\n".join(self._texts))
        self._texts, self._size_bytes = [], 0
        return whole

    def _masked(self, read: RawReply) -> RawReply:
        text = self._secrets.masked(read.text)
        return read if text is read.text else RawReply(read.code, text)

    def _break(self, what: str) -> Garbled:
        self._garbled = Garbled(what)
        return self._garbled
