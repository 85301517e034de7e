"""Pure. Email types: their fields, the kinds of fields, and the sources of their templates."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Literal, get_args

from attrs import field

from trio_worker.jobs.address import AddressFault, has_control_character, parse_mailbox
from trio_worker.jobs.fault import Fault
from trio_worker.records import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trio_worker.jobs.strict_json import Json

FieldKind = Literal[
    "recipient",  # the mailbox that the mail goes to; exactly one field of a type
    "line",  # text without control characters, at most 998 characters
    "text",  # text of any number of lines
    "token",  # a line that is not empty
    "number",  # an integer or a decimal
    "object",  # names and values, nested to any depth
]
KINDS: tuple[FieldKind, ...] = get_args(FieldKind)

MAX_LINE_CHARACTERS = 998
"""RFC 5322, 2.1.1: no line of a mail may be longer, so no text for one line may be either."""

MESSAGE = "Message"
"""The email type whose jobs contain their text; it is built in, and no folder may have its name."""

TEMPLATE_VARIABLES = ("product", "frontend_url")
"""What every template can use besides its fields: the display name of ``mail.from``, and ``mail.frontend_url``."""

MAX_PATH_CHARACTERS = 400
"""Of an unsubscribe_path: with mail.frontend_url it must fit one line of a header."""

_TYPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PATH = re.compile(r"/[!-~]*")
# Words that have another meaning in Jinja than the name of a field.
_TAKEN = re.compile(
    r"and|caller|context|cycler|dict|else|false|if|ignore|import|in|is|joiner|lipsum|loop|missing|namespace|none|not|or"
    r"|range|recursive|self|super|true|varargs|kwargs|with|without"
    r"|product|frontend_url",
    re.IGNORECASE,
)

_TOP_KEYS = ("says", "unsubscribe_path", "fields")
_ENTRY_KEYS = ("kind", "required", "sample")


@frozen
class FieldSpec:
    """One field of an email type's ``data``. ``sample`` is for previews, and for the test of the templates at start."""

    name: str
    kind: FieldKind
    required: bool = True
    sample: Json = None


@frozen
class TypeSpec:
    """The fields of one email type's jobs. Exactly one field is of the kind ``recipient``.

    ``unsubscribe_path`` is appended to ``mail.frontend_url`` in a List-Unsubscribe header (RFC 2369); empty: no header.
    """

    email_type: str
    fields: tuple[FieldSpec, ...]
    says: str = ""
    unsubscribe_path: str = ""


@frozen
class Catalogue:
    """The templated email types by name, and every template source by its name (``Registration/text.j2``).

    A source whose name has no folder (``_mail.html.j2``) is for other templates to extend, include or import.
    """

    types: Mapping[str, TypeSpec]
    sources: Mapping[str, str] = field(repr=False)


def is_plain_line(kind: FieldKind, value: Json) -> bool:
    """Whether a value is a short printable line for a field that takes one: a quick check that most values pass."""
    return kind in _LINE_KINDS and type(value) is str and 0 < len(value) <= MAX_LINE_CHARACTERS and value.isprintable()


def fault_of_value(kind: FieldKind, value: Json) -> str | None:
    """Return what is wrong with a value for a field of this kind, or None; the text never repeats the value."""
    return _FAULT_OF[kind](value)


def fault_of_line(text: str) -> str | None:
    """Return why a text cannot be one line of a mail, or None."""
    if len(text) > MAX_LINE_CHARACTERS:
        return f"is longer than {MAX_LINE_CHARACTERS} characters"
    # A printable text, as most are, has none, and needs no further call.
    if not text.isprintable() and has_control_character(text):
        return "contains a control character"
    return None


def _fault_of_recipient(value: Json) -> str | None:
    if not isinstance(value, str):
        return _NO_STRING
    mailbox = parse_mailbox(value)
    return mailbox.reason if isinstance(mailbox, AddressFault) else None


def _fault_of_line_value(value: Json) -> str | None:
    return fault_of_line(value) if isinstance(value, str) else _NO_STRING


def _fault_of_text(value: Json) -> str | None:
    if not isinstance(value, str):
        return _NO_STRING
    return "contains a NUL" if "\0" in value else None


def _fault_of_token(value: Json) -> str | None:
    if not isinstance(value, str):
        return _NO_STRING
    return fault_of_line(value) if value else "is empty"


def _fault_of_number(value: Json) -> str | None:
    return None if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number"


def _fault_of_object(value: Json) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


_NO_STRING = "must be a string"
_LINE_KINDS: frozenset[FieldKind] = frozenset({"line", "token"})
_FAULT_OF: Mapping[FieldKind, Callable[[Json], str | None]] = {
    "recipient": _fault_of_recipient,
    "line": _fault_of_line_value,
    "text": _fault_of_text,
    "token": _fault_of_token,
    "number": _fault_of_number,
    "object": _fault_of_object,
}


def fault_of_type_name(name: str) -> str | None:
    """Return why a folder with this name cannot be an email type, or None."""
    if name == MESSAGE:
        return "cannot be replaced: this type is built in"
    if not _TYPE_NAME.fullmatch(name):
        return "is not a name for an email type: up to 64 letters, digits, '_', '.' or '-'"
    return None


def read_type(email_type: str, source: str) -> TypeSpec | tuple[Fault, ...]:
    """Read the text of a ``fields.toml``; return all its faults, each with its key."""
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        return (Fault("", f"is not TOML: {error}"),)
    entries = document.get("fields", {})
    if not isinstance(entries, dict):
        return (Fault("fields", "must be tables: [fields.NAME]"),)
    faults = (
        *_faults_of_top(document),
        *(fault for name in entries for fault in _faults_of_entry(name, entries[name])),
    )
    if faults:
        return faults
    fields = tuple(FieldSpec(name, **entry) for name, entry in entries.items())
    recipients = [spec for spec in fields if spec.kind == "recipient"]
    if len(recipients) != 1 or not recipients[0].required:
        return (Fault("fields", "must have exactly one field of the kind 'recipient', and it is always required"),)
    return TypeSpec(email_type, fields, document["says"], document.get("unsubscribe_path", ""))


def _faults_of_top(document: dict[str, Any]) -> Iterator[Fault]:
    known = ", ".join(_TOP_KEYS)
    yield from (Fault(key, f"is not one of the keys here: {known}") for key in document if key not in _TOP_KEYS)
    says = document.get("says", "")
    if not isinstance(says, str) or not says or fault_of_line(says):
        yield Fault("says", "must be one sentence: what the mail is for")
    path = document.get("unsubscribe_path", "/")
    if isinstance(path, str) and len(path) > MAX_PATH_CHARACTERS:
        yield Fault("unsubscribe_path", f"is longer than {MAX_PATH_CHARACTERS} characters")
    elif not isinstance(path, str) or not _PATH.fullmatch(path) or "<" in path or ">" in path:
        yield Fault("unsubscribe_path", "must be a path that follows mail.frontend_url, beginning with '/'")


def _faults_of_entry(name: str, entry: Any) -> Iterator[Fault]:
    path = f"fields.{name}"
    if not _FIELD_NAME.fullmatch(name) or _TAKEN.fullmatch(name):
        yield Fault(path, "is not a name for a field: letters, digits and '_', and not a word of the template language")
    if not isinstance(entry, dict):
        yield Fault(path, "must be a table")
        return
    known = ", ".join(_ENTRY_KEYS)
    yield from (
        Fault(f"{path}.{key}", f"is not one of a field's keys: {known}") for key in entry if key not in _ENTRY_KEYS
    )
    if not isinstance(required := entry.get("required", True), bool):
        yield Fault(f"{path}.required", "must be true or false")
    kind = entry.get("kind")
    if kind not in KINDS:
        yield Fault(f"{path}.kind", f"{'must be' if 'kind' in entry else 'is missing:'} one of {', '.join(KINDS)}")
        return
    sample = entry.get("sample")
    if sample is None and required:
        yield Fault(f"{path}.sample", "is missing: previews need a value")
    if sample is not None and (what := fault_of_value(kind, sample)):
        yield Fault(f"{path}.sample", what)
