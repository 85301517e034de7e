"""Pure. Masks our own secrets and their encodings in what a peer says: a relay may answer AUTH with what it got."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable
from urllib.parse import quote

from attrs import field

from trio_worker.records import define, frozen

MASK = "…"
# A shorter form is masked only where it is a whole word: every text has single letters.
_WORD_CHARS = 4
# Of a secret inside of longer base64 at least so many characters must be certain, else half of all words would match.
_CORE_CHARS = 6
# A relay may cut what it repeats. So many characters are no chance: six octets of the secret, which are then masked
# with what follows. Not in clear: a mask of "Password" would tell how a password begins.
_CUT_BASE64_CHARS = 8
_CUT_HEX_CHARS = 12
_BASE64_RUN = r"[A-Za-z0-9+/=_-]*"


@frozen
class SecretMask:
    """Knows the forms in which a peer may repeat our secrets: as they are, base64 at any offset, hex, percent-encoded.

    Case and white space do not matter: a reply may be folded or an EHLO keyword. Made by `mask_of`; without secrets it
    costs nothing.
    """

    _forms: tuple[str, ...] = field(default=(), repr=False)  # without white space, in lower case, to look for quickly
    _pattern: re.Pattern[str] | None = field(default=None, repr=False)

    def masked(self, text: str) -> str:
        """Return the text with ``…`` for each form of a secret."""
        if self._pattern is None:
            return text
        squeezed = "".join(text.split()).lower()
        if not any(form in squeezed for form in self._forms):
            return text
        return self._pattern.sub(MASK, text)


NO_SECRETS = SecretMask()


def mask_of(*secrets: str, sent: Iterable[str] = ()) -> SecretMask:
    """Return the mask of these secrets, and of texts that are ``sent`` as they are; empty ones are left out."""
    plain, encoded, hexed = set(sent), set[str](), set[str]()
    for secret in filter(None, secrets):
        octets = secret.encode("utf-8", "surrogateescape")
        plain |= {secret, secret.upper(), octets.hex(), quote(octets, safe="")}
        hexed |= {octets.hex()[:_CUT_HEX_CHARS]} if len(octets.hex()) > _CUT_HEX_CHARS else set()
        whole = b64encode(octets).decode("ascii")
        plain |= {whole, whole.rstrip("="), _url_safe(whole), _url_safe(whole).rstrip("=")}
        for core in (_core(octets, before) for before in range(3)):
            encoded |= {each for each in (core, _url_safe(core)) if len(core) >= _CORE_CHARS}
    squeezed = {"".join(form.split()) for form in plain} - {""}
    if not squeezed:
        return NO_SECRETS
    words = sorted((_spaced(form) for form in squeezed if len(form) >= _WORD_CHARS), key=len, reverse=True)
    short = [rf"(?<!\w){_spaced(form)}(?!\w)" for form in squeezed if len(form) < _WORD_CHARS]
    cut = {core[:_CUT_BASE64_CHARS] for core in encoded}
    # A whole one first: it may be folded.
    runs = [f"{_BASE64_RUN}{_spaced(core)}{_BASE64_RUN}" for core in [*encoded, *cut]]
    cut_hex = [f"{_spaced(form)}[0-9a-f]*" for form in hexed]
    pattern = re.compile("|".join([*runs, *words, *cut_hex, *short]), re.IGNORECASE)
    return SecretMask(_shortest({form.lower() for form in squeezed | encoded | cut | hexed}), pattern)


@define
class LoginMask:
    """The mask of one session: of the login's secrets, and of each octet string that the login sent."""

    _secrets: tuple[str, ...] = field(repr=False)
    _sent: list[str] = field(factory=list, repr=False)
    mask: SecretMask = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.mask = mask_of(*self._secrets)

    def note_sent(self, sent: bytes) -> None:
        """Take what a login mechanism sends: base64 of a user name, a password, both, or the proof of CRAM-MD5."""
        self._sent += [sent.decode("ascii", "replace"), *_proof_in(sent)]
        self.mask = mask_of(*self._secrets, sent=self._sent)


def _shortest(forms: set[str]) -> tuple[str, ...]:
    """Return the forms that have no other form inside: where none of them is, no form is."""
    found: list[str] = []
    for form in sorted(forms, key=len):
        if not any(shorter in form for shorter in found):
            found.append(form)
    return tuple(found)


def _core(octets: bytes, before: int) -> str:
    """Return the base64 characters that the octets alone decide if so many others stand before them in a group."""
    whole = b64encode(bytes(before) + octets).decode("ascii")
    certain = (before + len(octets)) * 8 // 6
    return whole[-(-before * 8 // 6) : certain]


def _url_safe(base64_text: str) -> str:
    return base64_text.translate(str.maketrans("+/", "-_"))


def _spaced(form: str) -> str:
    return r"\s*".join(map(re.escape, form))


def _proof_in(sent: bytes) -> list[str]:
    """Return the digest of a CRAM-MD5 response (RFC 2195): ``name digest`` in base64."""
    try:
        decoded = b64decode(sent, validate=True)
    except NotBase64:
        return []
    _, space, digest = decoded.rpartition(b" ")
    return [digest.decode("ascii")] if space and re.fullmatch(rb"[0-9a-f]{32}", digest) else []
