"""Pure. Mail addresses: one strict parser for ``addr`` and ``Name <addr>``, the same on every Python version."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from attrs import field

from trio_worker.jobs.domain import DomainFault, parse_domain, readable_domain
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

# RFC 5321, 4.5.3.1.1 and 4.5.3.1.3: a path is at most 256 octets with its angle brackets. That also keeps the domain
# within its 255 octets (4.5.3.1.2).
_MAX_LOCAL_OCTETS = 64
_MAX_ADDRESS_OCTETS = 254
_MAX_CHARACTERS = 998  # RFC 5322, 2.1.1: the longest line
_MAX_NAME_CHARACTERS = 255  # our own limit: longer than any name, short enough for a header

# Control characters (Cc), the two Unicode line separators, and lone surrogates.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
# A display name without quotes: RFC 5322 atoms, and the dot ("John Q. Public", obs-phrase), which is common.
_NAMED = re.compile(r'(?:("(?:[^"\\]|\\.)*") *|([^"(),:;<>@\[\]\\]*))<(.*)>')
# RFC 5322 3.2.3 atext: all but controls, space and specials. Characters beyond ASCII (RFC 6531 3.3) are checked by
# their category instead: a range for them here would take Python milliseconds to compile.
_ATOM = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+'
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# The form of nearly all addresses, as a shortcut: the full parser has the same result for them. Limits as above.
_USUAL = re.compile(
    r"(?=.{1,254}\Z)([A-Za-z0-9_-][A-Za-z0-9_+-]{0,31}(?:\.[A-Za-z0-9_+-]{1,15})?)"
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,4}[A-Za-z]{2,20})"
)
_SEVERAL = re.compile(r"[,;<>@ ]")


@typed_frozen
class Mailbox:
    """One mailbox: a display name, which may be empty, and the address as it is sent.

    ``local`` has quotes only if it needs them, ``domain`` is ASCII (`parse_domain`). The repr shows only the domain: an
    address must not be in a log.
    """

    name: str = field(repr=False)
    local: str = field(repr=False)
    domain: str
    address: str = field(init=False, repr=False, eq=False)
    """The address as in the envelope: ``local@domain``."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "address", f"{self.local}@{self.domain}")

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the part before the @ is not ASCII, so that the relay must offer SMTPUTF8 (RFC 6531)."""
        return not self.address.isascii()

    @property
    def readable_address(self) -> str:
        """The address as people read it: the domain in its own letters."""
        return f"{self.local}@{readable_domain(self.domain)}"


@frozen
class AddressFault:
    """Why a text is not one mailbox; ``reason`` completes a sentence and never repeats the text."""

    reason: str


_NOT_ONE = AddressFault('is not one mailbox: write addr, Name <addr> or "Name" <addr>')


def has_control_character(text: str) -> bool:
    """Whether a text has a control character, a Unicode line separator or a lone surrogate.

    Such a text must not be in a header or an SMTP command: most injections begin with one.
    """
    # A printable text, as most are, has none of them, and this check costs a third.
    return not text.isprintable() and _CONTROL.search(text) is not None


def parse_mailbox(text: str) -> Mailbox | AddressFault:
    """Parse exactly one mailbox: ``addr``, ``Name <addr>`` or ``"Quoted name" <addr>``.

    Lists, groups, comments and routes (RFC 5322 3.4) are refused: a field for one mailbox needs none. For characters
    beyond ASCII the rules are those of RFC 6531 3.3. White space in a name, of any script, becomes single spaces.
    """
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        return Mailbox("", usual[1], usual[2])
    if has_control_character(text):
        return AddressFault("contains a control character")
    text = text.strip(" ")
    if not text:
        return AddressFault("is empty")
    if len(text) > _MAX_CHARACTERS:
        return AddressFault(f"is longer than {_MAX_CHARACTERS} characters")
    if not text.endswith(">"):
        return _parse_address(text, name="")

    named = _NAMED.fullmatch(text)
    if named is None:
        return _NOT_ONE
    quoted, plain, address = named.groups()
    name = " ".join((_unquote(quoted) if quoted is not None else plain).split())
    if len(name) > _MAX_NAME_CHARACTERS:
        return AddressFault(f"has a name of more than {_MAX_NAME_CHARACTERS} characters")
    return _parse_address(address, name)


def _parse_address(text: str, name: str) -> Mailbox | AddressFault:
    local, at, domain = text.rpartition("@")
    if not at:
        return AddressFault("has no @")
    canonical = _canonical_local(local)
    if canonical is None and _SEVERAL.search(local):
        return _NOT_ONE
    if canonical is None:
        return AddressFault("has a part before the @ that is not valid")
    if len(canonical.encode()) > _MAX_LOCAL_OCTETS:
        return AddressFault(f"has more than {_MAX_LOCAL_OCTETS} octets before the @")
    known = parse_domain(domain)
    if len(canonical.encode()) + 1 + len(domain if isinstance(known, DomainFault) else known) > _MAX_ADDRESS_OCTETS:
        return AddressFault(f"is longer than {_MAX_ADDRESS_OCTETS} octets")
    return AddressFault(known.reason) if isinstance(known, DomainFault) else Mailbox(name, canonical, known)


def _canonical_local(local: str) -> str | None:
    """Return the local part, quoted only if it must be (RFC 5321 4.1.2); None if it is not valid."""
    quoted = _QUOTED.fullmatch(local)
    bare = _unquote(local) if quoted else local
    if not bare.isascii() and any(unicodedata.category(letter)[0] in "CZ" for letter in bare if letter > "\x7f"):
        return None  # invisible characters and unusual spaces: no real mailbox has them
    if _DOT_ATOM.fullmatch(bare):
        return bare
    if not quoted or not bare:
        return None
    return quote(bare)


def quote(text: str) -> str:
    """Return the text as a quoted-string (RFC 5322 3.2.4), with as few escapes as possible."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquote(quoted: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", quoted[1:-1])


def may_be_mailed(only_to: str, recipients: Iterable[str]) -> bool:
    """Whether ``smtp.only_to``, a regular expression, matches every recipient in full; empty matches all.

    It may be written for either spelling of a domain beyond ASCII.
    """
    return not only_to or all(
        re.fullmatch(only_to, recipient) or re.fullmatch(only_to, _readable(recipient)) for recipient in recipients
    )


def _readable(address: str) -> str:
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{readable_domain(domain)}"


def as_sent(text: str) -> str:
    """Return the address of a mailbox as the envelope has it; a text that is no mailbox stays as it is."""
    mailbox = parse_mailbox(text)
    return text if isinstance(mailbox, AddressFault) else mailbox.address
