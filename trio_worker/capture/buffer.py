"""Pure. Receive buffer: received octets, taken out as lines, as the content of DATA, or by count."""

from __future__ import annotations

from enum import Enum

from attrs import field

from trio_worker.capture.spool import SPOOLED_FROM_BYTES, Spool
from trio_worker.records import define

# RFC 4954 section 4: no SMTP line outside of the content may be longer.
MAX_INPUT_LINE_OCTETS = 12288


class Truncated(Enum):
    """What exceeded its limit, so that only its end was kept."""

    TOO_LONG = f"a line over {MAX_INPUT_LINE_OCTETS} octets"
    TOO_BIG = "content over twice its limit"
    NO_ROOM = "more content than all connections together may have"


@define
class ReceiveBuffer:
    """A buffer that searches each octet about once, in whatever pieces they arrive."""

    octets: bytearray = field(factory=bytearray)
    spool: Spool = field(factory=Spool)  # the beginning of long content
    _searched: int = field(default=0, init=False)
    _truncated: Truncated | None = field(default=None, init=False)

    def take_line(self) -> bytes | Truncated | None:
        """Return the next line with its LF; None until it is complete."""
        end = self.octets.find(b"\n", self._searched)
        if end < 0:
            if len(self.octets) >= MAX_INPUT_LINE_OCTETS:
                self._truncated = Truncated.TOO_LONG
                self.octets.clear()
            self._searched = len(self.octets)
            return None
        line = self._take(end + 1)
        return self._forget_truncation() or (Truncated.TOO_LONG if len(line) > MAX_INPUT_LINE_OCTETS else line)

    def take_content(self, limit_bytes: int) -> bytes | Truncated | None:
        """Return the content before the final dot; None until it is complete.

        With ``limit_bytes`` (0: no limit) at most twice as much is kept, because doubled dots can at most double
        the number of octets.
        """
        is_empty = self.octets.startswith(b".\r\n") and not self._truncated and not self.spool
        end = -2 if is_empty else self.octets.find(b"\r\n.\r\n", self._searched)
        if end == -1:
            self._put_aside(limit_bytes)
            self._searched = max(0, len(self.octets) - 4)  # part of the five octets may be there already
            return None
        content = self.spool.take() + self._take(end + 2)
        del self.octets[:3]
        return self._forget_truncation() or content

    def take_octets(self, max_octets: int) -> bytes:
        """Return the octets received, at most ``max_octets`` of them."""
        return self._take(min(max_octets, len(self.octets)))

    def _take(self, count: int) -> bytes:
        taken = bytes(self.octets[:count])
        del self.octets[:count]
        self._searched = 0
        return taken

    def _put_aside(self, limit_bytes: int) -> None:
        """Move long content to the spool, or drop it if it is too long; four octets stay, as the end may be in them."""
        if limit_bytes and len(self.spool) + len(self.octets) > 2 * limit_bytes + MAX_INPUT_LINE_OCTETS:
            self._truncated = Truncated.TOO_BIG
        if self._truncated:
            self.spool.clear()
        elif len(self.octets) < SPOOLED_FROM_BYTES:
            return
        elif not self.spool.append(self.octets[:-4]):
            self._truncated = Truncated.NO_ROOM
        del self.octets[:-4]

    def _forget_truncation(self) -> Truncated | None:
        truncated, self._truncated = self._truncated, None
        return truncated
