"""Pure. The base of the links in mails, ``mail.frontend_url``, in ASCII: it also stands in a header."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from trio_worker.jobs.domain import DomainFault, parse_domain

# So that a List-Unsubscribe header fits one line of 998 octets (RFC 5322, 2.1.1): its path has at most 400 characters.
MAX_BASE_CHARACTERS = 500
# Scheme and login, host, port, all else. Nothing that would end the URL in a header or in HTML.
_ENDS = r"\x00-\x20\x7f-\x9f\ud800-\udfff<>\"\\"
# Of these only the scheme has letters; to compile the sets for both cases takes a millisecond.
_BASE = re.compile(rf"((?i:https?)://(?:[^{_ENDS}/?#@]*@)?)([^{_ENDS}/?#@]+?)(:[0-9]{{1,5}})?([/?#][^{_ENDS}]*)?")
_NO_URL = DomainFault("must be a URL that begins with http:// or https://")
# Only what is not ASCII is percent-encoded (RFC 3987, 3.1).
_KEPT = "".join(map(chr, range(0x21, 0x7F)))


def parse_base_url(text: str) -> str | DomainFault:
    """Return the URL in ASCII, without slashes at its end: its host as A-labels, the rest percent-encoded."""
    found = _BASE.fullmatch(text)
    if found is None or not _has_host(text):
        return _NO_URL
    if not text.isascii():
        before, name, port, rest = found.groups(default="")
        host = parse_domain(name)
        if isinstance(host, DomainFault):
            return host
        text = f"{quote(before, safe=_KEPT)}{host}{port}{quote(rest, safe=_KEPT)}"
    if len(text) > MAX_BASE_CHARACTERS:
        return DomainFault(f"is longer than {MAX_BASE_CHARACTERS} characters")
    return text.rstrip("/")


def _has_host(text: str) -> bool:
    """Whether the URL names a host, and no port that does not exist."""
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
