"""Pure. The email type ``Message``, whose jobs contain the whole mail: recipients, texts, headers, attachments."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any

from attrs import field, frozen

from trio_worker.jobs.address import Mailbox, has_control_character
from trio_worker.jobs.fault import Fault
from trio_worker.jobs.structure import (
    CONVERTER,
    JSON_NAME,
    FlawError,
    OneLine,
    Text,
    mailbox_of,
    register,
    register_record,
    structure,
    text_of,
)

MAX_RECIPIENTS = 1000
MAX_HEADERS = 100
MAX_ATTACHMENTS = 100

MAX_HEADERS_CHARACTERS = 65_536  # our own limit for all headers together: encoding them must not delay other mails
MAX_HEADER_CHARACTERS = 8192  # a References header of a long thread; Postfix cuts a header at 102,400 octets

_MAX_FILE_NAME_OCTETS = 255  # the limit of common file systems
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}")

# Headers that a job may not set: trio-worker or the relays set them, or they are part of the MIME structure.
# Auto-Submitted (RFC 3834) is allowed: only the producer knows whether a person sent the mail.
_OUR_HEADER = re.compile(
    r"from|to|cc|bcc|date|message-id|subject|mime-version|return-path|received|sender|reply-to|delivered-to"
    r"|authentication-results|received-spf|domainkey-signature"
    r"|content-.*|resent-.*|dkim-.*|arc-.*",
    re.IGNORECASE,
)

Recipients = Annotated[tuple[Mailbox, ...], "recipients"]
Headers = Annotated[Mapping[str, str], "headers"]
FileName = Annotated[str, "file name"]
MediaType = Annotated[str, "media type"]
Base64 = Annotated[bytes, "base64"]


@frozen
class Attachment:
    """One attached file: its name (without a folder), its media type (``application/pdf``) and its bytes."""

    name: FileName
    type: MediaType
    content: Base64 = field(repr=False, metadata={JSON_NAME: "base64"})


Attachments = Annotated[tuple[Attachment, ...], "attachments"]


@frozen
class Message:
    """A mail written by the producer. At least one of ``to``, ``cc``, ``bcc``, and one of ``text``, ``html``."""

    subject: OneLine = field(repr=False)
    to: Recipients = ()
    cc: Recipients = ()
    bcc: Recipients = ()
    reply_to: Mailbox | None = None
    text: Text | None = field(default=None, repr=False)
    html: Text | None = field(default=None, repr=False)
    headers: Headers = field(factory=dict, repr=False)
    attachments: Attachments = ()


def decode_message(payload: Mapping[str, Any], path: str) -> Message | tuple[Fault, ...]:
    """Decode a ``Message`` from its JSON object at ``path``, or return all its faults."""
    given = [payload.get(name) for name in ("to", "cc", "bcc")]
    count = sum(len(value) if isinstance(value, list) else value is not None for value in given)
    if count > MAX_RECIPIENTS:
        return (Fault(path, f"has more than {MAX_RECIPIENTS} recipients"),)
    faults = []
    if not count:
        faults.append(Fault(path, "has no recipient: give to, cc or bcc"))
    if payload.get("text") is None and payload.get("html") is None:
        faults.append(Fault(path, "has no text: give text, html or both"))
    match structure(payload, Message, path):
        case Message() as message if not faults:
            return message
        case Message():
            return tuple(faults)
        case found:
            return (*faults, *found)


def _recipients(value: Any) -> tuple[Mailbox, ...]:
    """Read a mailbox, or a list of them, or null."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (mailbox_of(value),)
    if not isinstance(value, list):
        raise FlawError("must be a string or a list of strings")
    found, flaws = [], {}
    for index, text in enumerate(value):
        try:
            found.append(mailbox_of(text))
        except FlawError as flaw:
            flaws[index] = flaw.reason
    if flaws:
        raise FlawError(members=flaws)
    return tuple(found)


def _headers(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FlawError("must be an object")
    if len(value) > MAX_HEADERS:
        raise FlawError(f"are more than {MAX_HEADERS}")
    if sum(len(text) for text in value.values() if isinstance(text, str)) > MAX_HEADERS_CHARACTERS:
        raise FlawError(f"are longer than {MAX_HEADERS_CHARACTERS} characters in total")
    lower = [name.lower() for name in value]
    flaws = {name: what for name, text in value.items() if (what := _fault_of_header(name, text, lower))}
    if flaws:
        raise FlawError(members=flaws)
    return {name: text.strip(" ") for name, text in value.items()}


def _fault_of_header(name: str, text: Any, lower_names: list[str]) -> str | None:
    if not _HEADER_NAME.fullmatch(name):
        return "is not a name for a header"
    if is_our_header(name):
        return "is a header that a job cannot set"
    if lower_names.count(name.lower()) > 1:
        return "is given twice"
    if not isinstance(text, str):
        return "must be a string"
    if has_control_character(text):
        return "contains a control character"
    if len(text) > MAX_HEADER_CHARACTERS:
        return f"is longer than {MAX_HEADER_CHARACTERS} characters"
    return None


def is_our_header(name: str) -> bool:
    """Whether a header is set by trio-worker or by relays, so that no job may set it."""
    return _OUR_HEADER.fullmatch(name) is not None


def _attachments(value: Any) -> tuple[Attachment, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise FlawError("must be a list")
    if len(value) > MAX_ATTACHMENTS:
        raise FlawError(f"are more than {MAX_ATTACHMENTS}")
    return tuple(CONVERTER.structure(value, list[Attachment]))


def _file_name(value: Any) -> str:
    name = text_of(value).strip()
    if not name or name in {".", ".."}:
        raise FlawError("is not a name for a file")
    if has_control_character(name) or "/" in name or "\\" in name:
        raise FlawError("contains a control character or a path separator")
    if len(name.encode()) > _MAX_FILE_NAME_OCTETS:
        raise FlawError(f"is longer than {_MAX_FILE_NAME_OCTETS} octets")
    return name


def _media_type(value: Any) -> str:
    if not _MEDIA_TYPE.fullmatch(text_of(value)):
        raise FlawError("must be a media type such as application/pdf, without parameters")
    # RFC 2046 5.1 and 5.2: these must not be encoded as base64, and their parts would not be checked.
    if value.lower().startswith(("multipart/", "message/")):
        raise FlawError("cannot be a multipart or a message: use application/octet-stream")
    return str(value)


def _base64(value: Any) -> bytes:
    try:
        return binascii.a2b_base64(text_of(value), strict_mode=True)
    except binascii.Error:
        raise FlawError("is not base64") from None


register(Recipients, _recipients)
register(Headers, _headers)
register(FileName, _file_name)
register(MediaType, _media_type)
register(Base64, _base64)
register(Attachments, _attachments)
register_record(Attachment)
register_record(Message)
