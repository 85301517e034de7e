"""Pure. Domains: their labels, address literals, and names beyond ASCII as A-labels (IDNA 2008).

A relay need not know SMTPUTF8 to take an A-label, so an address has no other form inside of the program: the two
spellings of a domain are one domain in envelopes, headers, lists and figures.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

from trio_worker.records import frozen

_MAX_LABEL_OCTETS = 63  # RFC 1035, 2.3.4
_MAX_DOMAIN_OCTETS = 255  # RFC 5321, 4.5.3.1.2
_ACE_PREFIX = "xn--"  # RFC 5890, 2.3.2.5
# RFC 5892, A.1 and A.2: allowed between letters of some scripts. All other invisible characters are refused.
_JOINERS = "\u200c\u200d"

_LABEL = re.compile(r"(?!-)(?:[A-Za-z0-9-]|[^\x00-\x7f])+(?<!-)")
_IPV4 = re.compile(r"[0-9.]{7,15}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")


@frozen
class DomainFault:
    """Why a text is not a domain; ``reason`` completes a sentence and never repeats the text."""

    reason: str


def parse_domain(text: str) -> str | DomainFault:
    """Return a domain name in ASCII, or an address literal (``[192.0.2.1]``, ``[IPv6:2001:db8::1]``; RFC 5321 4.1.3).

    A name beyond ASCII becomes A-labels, in lower case.
    """
    if text.startswith("["):
        return text if _is_address_literal(text) else DomainFault("has an address literal that is not valid")
    if not all(map(_is_label, text.split("."))):
        return DomainFault("has a domain that is not valid")
    return text if text.isascii() else _a_labels(text)


def one_spelling(domain: str) -> str:
    """Return the same text for all spellings of a domain: A-labels in lower case; any other text in lower case."""
    if domain.isascii():
        return domain.lower()
    parsed = parse_domain(domain)
    return domain.lower() if isinstance(parsed, DomainFault) else parsed.lower()


@lru_cache(1024)
def readable_domain(domain: str) -> str:
    """Return a domain as people read it: A-labels become letters; one that is none stays as it is."""
    if _ACE_PREFIX not in domain.lower():
        return domain
    import idna  # noqa: PLC0415  few domains need it, and loading it takes 2 ms

    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain


@lru_cache(1024)
def _a_labels(text: str) -> str | DomainFault:
    """Return the A-labels of a domain; capitals, full-width letters and decomposed ones are mapped (UTS #46)."""
    if len(text) > _MAX_DOMAIN_OCTETS:
        return DomainFault(f"has a domain of more than {_MAX_DOMAIN_OCTETS} octets")
    import idna  # noqa: PLC0415  the same

    labels = []
    for place, label in enumerate(text.split("."), 1):
        try:
            labels.append(idna.alabel(idna.uts46_remap(label)).decode("ascii"))
        except idna.IDNAError as error:
            # The library's message repeats the label.
            is_character = isinstance(error, idna.InvalidCodepoint | idna.InvalidCodepointContext)
            what = "has a character that domains cannot have" if is_character else "is not valid"
            return DomainFault(f"has a domain whose part {place} {what} (IDNA 2008)")
    domain = ".".join(labels)
    # The mapping may have made anything of a letter.
    return domain if domain.isascii() and all(map(_is_label, labels)) else DomainFault("has a domain that is not valid")


def _is_label(label: str) -> bool:
    if label.isascii():
        return len(label) <= _MAX_LABEL_OCTETS and _LABEL.fullmatch(label) is not None
    # Letters, marks and digits of any script; full-width dots and at-signs are punctuation, so they are refused.
    return _LABEL.fullmatch(label) is not None and all(
        letter in _JOINERS or unicodedata.category(letter)[0] in "LMN" for letter in label if letter > "\x7f"
    )


def _is_address_literal(domain: str) -> bool:
    if not domain.endswith("]"):
        return False
    inner = domain[1:-1]
    version: type[ipaddress.IPv4Address | ipaddress.IPv6Address] = ipaddress.IPv4Address
    shape = _IPV4
    if inner[:5].lower() == "ipv6:":
        inner, version, shape = inner[5:], ipaddress.IPv6Address, _IPV6
    if not shape.fullmatch(inner):
        return False
    try:
        version(inner)
    except ValueError:
        return False
    return True
