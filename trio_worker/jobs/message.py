"""Pure. The email type ``Message``, whose jobs contain the whole mail: recipients, texts, headers, attachments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from attrs import field

from trio_worker.jobs.address import Mailbox
from trio_worker.jobs.attachment import Attachments, faults_of_content_ids
from trio_worker.jobs.fault import Fault
from trio_worker.jobs.header import fault_of_header
from trio_worker.jobs.structure import (
    FlawError,
    OneLine,
    Text,
    mailbox_of,
    register,
    register_record,
    structure,
)
from trio_worker.records import frozen

MAX_RECIPIENTS = 100  # every relay must take so many (RFC 5321, 4.5.3.1.8)
MAX_HEADERS = 100

MAX_HEADERS_CHARACTERS = 65_536  # our own limit for all headers together: encoding them must not delay other mails
Recipients = Annotated[tuple[Mailbox, ...], "recipients"]
Headers = Annotated[Mapping[str, str], "headers"]


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
        case Message() as message:
            faults += faults_of_content_ids(message.html, message.attachments, path)
            return tuple(faults) or message
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
    flaws = {name: fault for name, text in value.items() if (fault := fault_of_header(name, text))}
    lower = [name.lower() for name in value]
    flaws |= {name: "is given twice" for name in value if lower.count(name.lower()) > 1}
    if flaws:
        raise FlawError(members=flaws)
    return {name: text.strip(" ") for name, text in value.items()}


register(Recipients, _recipients)
register(Headers, _headers)
register_record(Message)
