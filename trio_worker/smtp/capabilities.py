"""Pure. Capabilities of a relay: the extensions that it offers in its EHLO reply."""

from __future__ import annotations

from collections.abc import Iterable

from trio_worker.records import frozen

# Every relay must take messages of 64 KB (RFC 5321 4.5.3.1.7). A lower limit counts other units, or is not meant: the
# relay itself may refuse what it cannot take, when MAIL names the size.
_LEAST_LIMIT_BYTES = 64_000
# Python reads no number of more than some thousand digits; no limit has twenty.
_MOST_DIGITS = 19


@frozen
class Capabilities:
    """The extensions that the relay offered in its EHLO reply, without those in ``smtp.ignore_ehlo``."""

    pipelining: bool = False
    chunking: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    has_size: bool = False
    size_limit_bytes: int = 0  # 0: no limit given
    auth: frozenset[str] = frozenset()
    keywords: tuple[str, ...] = ()


def read_ehlo(text: str, ignored: Iterable[str] = ()) -> Capabilities:
    """Read the lines of an EHLO reply (RFC 5321 4.1.1.1): the first is a greeting, every other one an extension."""
    ignored_words = {word.upper() for word in ignored}
    offered: dict[str, list[str]] = {}
    for line in text.splitlines()[1:]:
        # Some relays also write AUTH=LOGIN, the form before the standard, for very old clients.
        word, *arguments = line.upper().replace("AUTH=", "AUTH ", 1).split() or [""]
        if word and word not in ignored_words:
            offered.setdefault(word, []).extend(arguments)
    return Capabilities(
        pipelining="PIPELINING" in offered,
        chunking="CHUNKING" in offered,
        eight_bit="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        starttls="STARTTLS" in offered,
        has_size="SIZE" in offered,
        size_limit_bytes=_size_limit_bytes(offered.get("SIZE", [])),
        auth=frozenset(offered.get("AUTH", [])),
        keywords=tuple(offered),
    )


def _size_limit_bytes(arguments: list[str]) -> int:
    """Return the limit that SIZE names (RFC 1870, 4), 0 for none, or for one that cannot be meant."""
    digits = arguments[0] if arguments else ""
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MOST_DIGITS:
        return 0
    limit = int(digits)
    return limit if limit >= _LEAST_LIMIT_BYTES else 0
