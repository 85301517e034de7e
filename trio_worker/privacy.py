"""Pure. The one place that hides addresses: whatever a log, a metric or a screen shows has passed through here."""

from __future__ import annotations

import re

# Anything with an @ between two runs of what an address may hold: rather too much is hidden than too little.
# The first form is a quoted local part (RFC 5321 4.1.2), which may hold what would end the second.
_ADDRESS_LIKE = re.compile(r"\"(?:[^\"\\]|\\.)*\"@[^\s<>\"',;:()\\]+|[^\s<>\"',;:()\[\]\\]+@[^\s<>\"',;:()\\]+")
# Links in mails carry tokens, and a relay quotes those it dislikes: the host alone is shown.
_LINK = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#]*)[/?#][^\s]*")


def mask_address(address: str) -> str:
    """Return an address that still tells people apart: ``a…n@example.org``; the domain stays readable.

    The first character is kept, and the last of a local part of six or more.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        return "…"
    tail = local[-1] if len(local) >= 6 else ""
    return f"{local[:1]}…{tail}@{domain}"


def mask_text(text: str) -> str:
    """Return a relay's words with everything masked in them that looks like an address, and links cut to their host."""
    return _ADDRESS_LIKE.sub(lambda found: mask_address(found[0]), _LINK.sub(r"\1/…", text))
