"""Pure. Capabilities of a relay: the extensions that it offers in its EHLO reply."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


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
    size = offered.get("SIZE", [])
    return Capabilities(
        pipelining="PIPELINING" in offered,
        chunking="CHUNKING" in offered,
        eight_bit="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        starttls="STARTTLS" in offered,
        has_size="SIZE" in offered,
        size_limit_bytes=int(size[0]) if size and size[0].isascii() and size[0].isdigit() else 0,
        auth=frozenset(offered.get("AUTH", [])),
        keywords=tuple(offered),
    )
