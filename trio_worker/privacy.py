"""Pure. Masks mail addresses in everything that logs, metrics and screens show. Small, as all packages import it."""

from __future__ import annotations

import re

# An @ between two runs of characters that an address may have: it is better to mask too much than too little. The first
# form is for a quoted local part (RFC 5321 4.1.2), which may have characters that would end the second.
_ADDRESS_LIKE = re.compile(r"\"(?:[^\"\\]|\\.)*\"@[^\s<>\"',;:()\\]+|[^\s<>\"',;:()\[\]\\]+@[^\s<>\"',;:()\\]+")
# Links in mails contain tokens, and a relay may quote a link that it refuses: only the host is shown.
_LINK = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#]*)[/?#][^\s]*")


def mask_address(address: str) -> str:
    """Return a masked address that can still be told from others: ``a…n@example.org``.

    It keeps the domain, the first character, and the last one of a local part of six or more characters.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        return "…"
    tail = local[-1] if len(local) >= 6 else ""
    return f"{local[:1]}…{tail}@{domain}"


def mask_text(text: str) -> str:
    """Return a text with everything masked that looks like an address, and links cut to their host."""
    return _ADDRESS_LIKE.sub(lambda found: mask_address(found[0]), _LINK.sub(r"\1/…", text))
