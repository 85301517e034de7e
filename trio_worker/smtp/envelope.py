"""Pure. One message ready to be sent: whether a relay can take it, and how its parts are written."""

from __future__ import annotations

import io
import re

from trio_worker.smtp.capabilities import Capabilities
from trio_worker.typed_frozen import typed_frozen

# Not allowed in a path on the wire: controls, space, DEL and the brackets that would end it (RFC 5321 4.1.2).
_UNSAFE_IN_PATH = re.compile(r"[\x00-\x20\x7f<>]")

# A large content is checked for its line ends in pieces of this many octets.
_CHECKED_OCTETS = 65_536


@typed_frozen
class Envelope:
    """One message ready to be sent: bare addresses and canonical content (every line ends with CRLF, the last one too).

    ``awaits_recipients`` makes the content wait for the replies to RCPT, so that a connection that ends before them
    proves that nothing was accepted.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    needs_smtputf8: bool = False
    is_eight_bit: bool = False
    awaits_recipients: bool = False


def dot_stuffed(content: bytes) -> bytes:
    """Double the dot at the beginning of each line (RFC 5321 4.5.2), the first line too."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if stuffed.startswith(b".") else stuffed


def mail_command(envelope: Envelope, capabilities: Capabilities) -> str:
    """Return the MAIL command, with the parameters that the relay offers."""
    size = f" SIZE={len(envelope.content)}" if capabilities.has_size else ""
    body = (" BODY=8BITMIME" if envelope.is_eight_bit else " BODY=7BIT") if capabilities.eight_bit else ""
    utf8 = " SMTPUTF8" if envelope.needs_smtputf8 else ""
    return f"MAIL FROM:<{envelope.sender}>{size}{body}{utf8}\r\n"


def _has_only_crlf(content: bytes) -> bool:
    """Whether all line ends are CRLF, in octets that end with CRLF.

    Python's decoder for the line ends of text files needs a quarter of the time of counting them, and one pass.
    """
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    if len(content) <= _CHECKED_OCTETS:  # nearly always, and a slice would copy it
        decoder.decode(content.decode("latin-1"))
        return decoder.newlines == "\r\n"
    for start in range(0, len(content), _CHECKED_OCTETS):
        decoder.decode(content[start : start + _CHECKED_OCTETS].decode("latin-1"))
    return decoder.newlines == "\r\n"


def why_unsendable(envelope: Envelope, capabilities: Capabilities) -> str:
    """Return why this relay cannot take this message, "" if it can.

    The last checks repeat what the composer guarantees: whatever went wrong there, nothing that could end a command or
    a message early may be written. With BDAT only its length ends a message (RFC 3030, 2), but the relay may forward
    it with DATA.
    """
    size_bytes = len(envelope.content)
    if capabilities.size_limit_bytes and size_bytes > capabilities.size_limit_bytes:
        return f"the mail has {size_bytes} bytes, the relay takes {capabilities.size_limit_bytes}"
    if envelope.needs_smtputf8 and not capabilities.smtputf8:
        return "an address is not ASCII and the relay does not offer SMTPUTF8"
    if envelope.is_eight_bit and not capabilities.eight_bit:
        return "the content has 8-bit lines and the relay does not offer 8BITMIME"
    if not envelope.recipients or _UNSAFE_IN_PATH.search("".join((envelope.sender, *envelope.recipients))):
        return "an address cannot be written in a command"
    if not envelope.content.endswith(b"\r\n"):
        return "the content does not end with CRLF"
    if not _has_only_crlf(envelope.content):
        return "the content has a line that does not end with CRLF"
    return ""
