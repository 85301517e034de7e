"""Pure. Checks of a mail's content against the rules of SMTP, for DATA and BDAT."""

from __future__ import annotations

from trio_worker.records import frozen

# RFC 5321 section 4.5.3.1.6: 1000 octets with the CRLF, not counting the dot doubled for transparency.
MAX_TEXT_LINE_OCTETS = 998


@frozen
class Flaw:
    """A rule that the content breaks."""

    rule: str
    reason: str


def unstuff(transferred: bytes) -> bytes:
    """Undo the dot stuffing of DATA (RFC 5321 section 4.5.2); the final ``.CRLF`` is removed already."""
    lines = transferred.replace(b"\r\n.", b"\r\n")
    return lines[1:] if lines.startswith(b".") else lines


def stuffing_flaws(transferred: bytes) -> list[Flaw]:
    """Find lines that begin with a single dot: a client that doubles dots never sends one."""
    begins_single = transferred.startswith(b".") and not transferred.startswith(b"..")
    if begins_single or transferred.count(b"\r\n.") != transferred.count(b"\r\n.."):
        return [Flaw("RFC 5321 4.5.2", "a line that begins with a dot that was not doubled")]
    return []


def content_flaws(content: bytes, *, eight_bit: bool, utf8: bool) -> list[Flaw]:
    """Check the whole content; ``eight_bit`` (BODY=8BITMIME) and ``utf8`` (SMTPUTF8) are the declarations of MAIL."""
    flaws = []
    pairs = content.count(b"\r\n")
    if content.count(b"\n") != pairs:
        flaws.append(Flaw("RFC 5321 2.3.8", "a bare LF in the content"))
    if content.count(b"\r") != pairs:
        flaws.append(Flaw("RFC 5321 2.3.8", "a bare CR in the content"))
    if b"\0" in content:
        flaws.append(Flaw("RFC 5321 4.5.2", "a NUL in the content"))
    if max(map(len, content.split(b"\r\n"))) > MAX_TEXT_LINE_OCTETS:
        flaws.append(Flaw("RFC 5321 4.5.3.1.6", f"a line of the content over {MAX_TEXT_LINE_OCTETS} octets"))
    if content.isascii():
        return flaws
    if not eight_bit:
        flaws.append(Flaw("RFC 6152 3", "8-bit content without BODY=8BITMIME"))
    if not utf8 and not content.partition(b"\r\n\r\n")[0].isascii():
        flaws.append(Flaw("RFC 6531 3.4", "a header that is not ASCII, without SMTPUTF8 on MAIL"))
    return flaws
