"""Pure. The headers that a ``Message`` may set: which are free text, which are addresses, and what is wrong with one.

Only free text and the names of mailboxes can be encoded (RFC 2047, 5). An encoded URL or id would be lost.
"""

from __future__ import annotations

import re
from enum import Enum

from trio_worker.jobs.address import AddressFault, Mailbox, has_control_character, parse_mailbox

MAX_HEADER_CHARACTERS = 8192  # a References header of a long thread; Postfix cuts a header at 102,400 octets
MAX_LINE_OCTETS = 998  # RFC 5322, 2.1.1

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
# Headers that a job may not set: trio-worker or the relays set them, or they are part of the MIME structure.
# Auto-Submitted (RFC 3834) is allowed: only the producer knows whether a person sent the mail.
_OUR_HEADER = re.compile(
    r"from|to|cc|bcc|date|message-id|subject|mime-version|return-path|received|sender|reply-to|delivered-to"
    r"|authentication-results|received-spf|domainkey-signature"
    r"|content-.*|resent-.*|dkim-.*|arc-.*",
    re.IGNORECASE,
)
# RFC 8098 (Disposition-Notification-To), and what mail programs and lists use.
_ADDRESS_HEADER = re.compile(
    r"disposition-notification-to|return-receipt-to|x-confirm-reading-to|errors-to|mail-followup-to|mail-reply-to"
    r"|x-complaints-to|x-original-to|x-envelope-to",
    re.IGNORECASE,
)
# Ids, URLs, keywords and JSON: RFC 5322 3.6.4, RFC 2369, RFC 2919, RFC 8058, RFC 5064, RFC 3834, RFC 2156, and the
# headers by which relays are told of tags and variables.
_STRUCTURED_HEADER = re.compile(
    r"in-reply-to|references|supersedes|original-message-id|list-.*|archived-at|auto-submitted|precedence|importance"
    r"|priority|x-priority|sensitivity|expires|autoforwarded|feedback-id|x-auto-response-suppress|x-entity-ref-id"
    r"|x-smtpapi|x-mailgun-.*|x-pm-.*|x-mc-.*|x-ses-.*|x-sib-.*|x-mj-.*",
    re.IGNORECASE,
)
_SPACED_WORD = re.compile(r" *[^ ]+")  # what cannot be folded: a folded line begins with these spaces
# What stands between commas: quoted strings, and all else. Possessive, so that no text takes longer than its length.
_BETWEEN_COMMAS = re.compile(r'(?:"(?:[^"\\]|\\.)*+"|[^,"])++')


class HeaderKind(Enum):
    """What the value of a header is, which decides what of it may be encoded."""

    FREE_TEXT = "free text"
    ADDRESSES = "addresses"
    STRUCTURED = "structured"


def kind_of_header(name: str) -> HeaderKind:
    """Return the kind of a header; one that is not known is free text (RFC 5322, 3.6.8)."""
    if _ADDRESS_HEADER.fullmatch(name):
        return HeaderKind.ADDRESSES
    return HeaderKind.STRUCTURED if _STRUCTURED_HEADER.fullmatch(name) else HeaderKind.FREE_TEXT


def mailboxes_of(text: str) -> tuple[Mailbox, ...] | AddressFault:
    """Return the mailboxes of a header, which have commas between them."""
    found = []
    parts = _BETWEEN_COMMAS.findall(text)
    if ",".join(parts) != text:
        return AddressFault("must be mailboxes with commas between them")
    for part in parts:
        mailbox = parse_mailbox(part)
        if isinstance(mailbox, AddressFault):
            return mailbox
        found.append(mailbox)
    return tuple(found)


def fault_of_header(name: str, value: object) -> str | None:
    """Return why a job cannot have this header, in words that complete a sentence; None if it can."""
    if not _HEADER_NAME.fullmatch(name):
        return "is not a name for a header"
    if _OUR_HEADER.fullmatch(name):
        return "is a header that a job cannot set"
    if not isinstance(value, str):
        return "must be a string"
    if has_control_character(value):
        return "contains a control character"
    if len(value) > MAX_HEADER_CHARACTERS:
        return f"is longer than {MAX_HEADER_CHARACTERS} characters"
    return _fault_of_kind(kind_of_header(name), value)


def _fault_of_kind(kind: HeaderKind, text: str) -> str | None:
    if kind is HeaderKind.FREE_TEXT:
        return None
    if any(len(word) > MAX_LINE_OCTETS for word in _SPACED_WORD.findall(f" {text}")):
        return f"has a part that cannot be folded into lines of {MAX_LINE_OCTETS} octets"
    if text.isascii():
        return None
    if kind is HeaderKind.STRUCTURED:
        return "must be ASCII: its value cannot be encoded"
    mailboxes = mailboxes_of(text)
    if isinstance(mailboxes, AddressFault):
        return mailboxes.reason
    if any(mailbox.needs_smtputf8 for mailbox in mailboxes):
        return "has an address whose part before the @ is not ASCII"
    return None
