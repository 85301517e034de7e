"""Pure. Attachments of a ``Message``: files, inline images (RFC 2392) and calendar invitations (RFC 6047)."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any
from urllib.parse import unquote

from attrs import field

from trio_worker.jobs.address import has_control_character
from trio_worker.jobs.fault import MAX_FAULTS, Fault, safe_name, step
from trio_worker.jobs.structure import CONVERTER, JSON_NAME, FlawError, register, register_record, text_of
from trio_worker.records import frozen

MAX_ATTACHMENTS = 100

_MAX_FILE_NAME_OCTETS = 255  # the limit of common file systems
_MAX_MEDIA_TYPE_CHARACTERS = 500
_ESSENCE = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}"  # RFC 6838, 4.2
# RFC 2045, 5.1. A value with other characters is a quoted string; it has no backslash, so no escapes have to be read.
_PARAMETER = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,64}=(?:[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,200}|\"[ !#-\[\]-~]{0,200}\")"
_MEDIA_TYPE = re.compile(rf"({_ESSENCE})((?: *; *{_PARAMETER})*) *;? *")
_ONE_PARAMETER = re.compile(_PARAMETER)
# A Content-ID without its angle brackets (RFC 2045, 7). "logo" alone is common, so the part after @ is optional.
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,128}(?:@[A-Za-z0-9.-]{1,128})?")
# A reference to one: the value of an attribute that loads something, or url() in a style. Searched backwards from
# "cid:", which is rare: a search for all that may stand before it takes a fifth of a second for a megabyte.
_CID_URL = re.compile(r"cid:([^\"'\s)>]+)", re.IGNORECASE)
_BEFORE_URL = re.compile(
    r"(?:\b(?:src|background|href|poster|data)\s{0,9}=|\burl\()\s{0,9}[\"']?\s{0,9}$", re.IGNORECASE
)
_BEFORE_CHARACTERS = 48
# Encoders that follow RFC 2045, 6.8 break lines after 76 characters or fewer, and end the last one: those of Ruby, PHP,
# Python and Java.
_LINE_ENDS = b"\r\n"

FileName = Annotated[str, "file name"]
Base64 = Annotated[bytes, "base64"]
ContentId = Annotated[str, "content id"]


@frozen
class MediaType:
    """A media type: ``text/calendar``, and its parameters as they are written: ``method=REQUEST``."""

    essence: str
    parameters: tuple[str, ...] = ()

    @property
    def is_invitation(self) -> bool:
        """Whether mail programs show it as an invitation: a calendar object with a method (RFC 6047, 2.4)."""
        names = {parameter.partition("=")[0].lower() for parameter in self.parameters}
        return self.essence.lower() == "text/calendar" and "method" in names


@frozen
class Attachment:
    """One attached file: its name (without a folder), its media type (``application/pdf``) and its bytes.

    With a ``cid`` it is shown inside the HTML text, which refers to it by the URL ``cid:`` and the id.
    """

    name: FileName
    type: MediaType
    content: Base64 = field(repr=False, metadata={JSON_NAME: "base64"})
    cid: ContentId | None = None


Attachments = Annotated[tuple[Attachment, ...], "attachments"]


def faults_of_content_ids(html: str | None, attachments: Sequence[Attachment], path: str) -> Iterator[Fault]:
    """Yield faults of the message at ``path``: ids of inline attachments, and references to them in its HTML."""
    seen: set[str] = set()
    for place, each in enumerate(attachments):
        if each.cid is None:
            continue
        own_path = step(step(step(path, "attachments"), place), "cid")
        if html is None:
            yield Fault(own_path, "needs html, which shows the attachment")
        elif each.cid in seen:
            yield Fault(own_path, "is given twice")
        seen.add(each.cid)
    for unknown in islice(_unknown_ids(html or "", seen), MAX_FAULTS + 1):
        yield Fault(step(path, "html"), f"refers to cid:{safe_name(unknown)}, and no attachment has this cid")


def _unknown_ids(html: str, known: set[str]) -> Iterator[str]:
    """Yield ids that an HTML text refers to and no attachment has, each once."""
    passed = set(known)
    for found in _CID_URL.finditer(html):
        content_id = unquote(found[1])
        before = html[max(0, found.start() - _BEFORE_CHARACTERS) : found.start()]
        if content_id not in passed and _BEFORE_URL.search(before):
            passed.add(content_id)
            yield content_id


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


def _media_type(value: Any) -> MediaType:
    text = text_of(value)
    if len(text) > _MAX_MEDIA_TYPE_CHARACTERS:
        raise FlawError(f"is longer than {_MAX_MEDIA_TYPE_CHARACTERS} characters")
    found = _MEDIA_TYPE.fullmatch(text)
    if found is None:
        raise FlawError("must be a media type such as application/pdf or text/csv; charset=utf-8")
    # RFC 2046 5.1 and 5.2: these must not be encoded as base64, and their parts would not be checked.
    if found[1].lower().startswith(("multipart/", "message/")):
        raise FlawError("cannot be a multipart or a message: use application/octet-stream")
    parameters = tuple(_ONE_PARAMETER.findall(found[2]))
    names = [parameter.partition("=")[0].lower() for parameter in parameters]
    if len(set(names)) < len(names):
        raise FlawError("has a parameter twice")
    return MediaType(found[1], parameters)


def _base64(value: Any) -> bytes:
    text = text_of(value)
    if not text.isascii():
        raise FlawError("is not base64")
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(None, _LINE_ENDS), strict_mode=True)
    except binascii.Error:
        raise FlawError("is not base64") from None


def _content_id(value: Any) -> str:
    if not _CONTENT_ID.fullmatch(text_of(value)):
        raise FlawError("must be an id such as logo or logo@example.com, without <> and without cid:")
    return str(value)


register(FileName, _file_name)
register(Base64, _base64)
register(ContentId, _content_id)
register(Attachments, _attachments)
CONVERTER.register_structure_hook(MediaType, lambda value, _: _media_type(value))
register_record(Attachment)
