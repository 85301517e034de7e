"""Pure. The text of a reply as we keep it: bounded and printable."""

from __future__ import annotations

# How much of a reply's text is kept: enough for a support link, not too much for a record in Redis.
TEXT_LIMIT_CHARS = 500


def printable_line(text: str) -> str:
    """Return ``text`` on one line, at most `TEXT_LIMIT_CHARS` long, with ``?`` for what is not printable."""
    line = " ".join(text.split())[:TEXT_LIMIT_CHARS]
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "?" for char in line)
