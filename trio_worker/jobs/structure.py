"""Pure. Makes attrs records from JSON values with cattrs, strictly: no value is converted, every fault has its path."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import attrs
from cattrs import Converter, override
from cattrs.errors import ClassValidationError, IterableValidationError
from cattrs.gen import make_dict_structure_fn

from trio_worker.jobs.address import AddressFault, Mailbox, parse_mailbox
from trio_worker.jobs.date_time import DateTimeFault, parse_date_time
from trio_worker.jobs.email_type import fault_of_line
from trio_worker.jobs.fault import Fault, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RecordT = TypeVar("RecordT")

# Kinds of fields. Each has one cattrs hook, here or next to its record, and one schema in json_schema.py.
OneLine = Annotated[str, "line"]
Text = Annotated[str, "text"]
DateTime = Annotated[float, "date-time"]

JSON_NAME = "json_name"
"""Key of an attrs field's metadata: the name in JSON, if it differs from the one in Python."""


class FlawError(ValueError):
    """A value that does not fit its field: ``reason`` completes a sentence and never repeats the value.

    ``members`` has such a text for single members or elements of the value instead.
    """

    def __init__(self, reason: str = "", members: Mapping[Any, str] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.members = members or {}


CONVERTER = Converter(detailed_validation=True)
"""The only converter for job payloads; records are registered where they are declared."""


def structure(value: Any, record: type[RecordT], path: str) -> RecordT | tuple[Fault, ...]:
    """Make the record from the JSON value at ``path``, or return all its faults."""
    try:
        return CONVERTER.structure(value, record)
    except (ClassValidationError, FlawError) as error:
        return tuple(_faults(error, path))


def register(annotated: Any, hook: Callable[[Any], Any]) -> None:
    """Use ``hook`` for every field with this annotation; it returns the value, or raises `FlawError`."""
    CONVERTER.register_structure_hook_func(lambda declared: declared == annotated, lambda value, _: hook(value))


def register_record(record: type[Any]) -> None:
    """Register an attrs record with cattrs; it is made from a JSON object only."""
    # cattrs writes and compiles a function for each record. With the first value is soon enough: together they take 2
    # ms of a start, and many queues have no jobs with messages of their own or with files.
    fill = cache(partial(_filling, record))

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise FlawError("must be an object")
        return fill()(value, record)

    CONVERTER.register_structure_hook(record, hook)


def _filling(record: type[Any]) -> Callable[[Mapping[str, Any], Any], Any]:
    """Return the function of cattrs that makes the record from a JSON object."""
    attrs.resolve_types(record, include_extras=True)
    renames: dict[str, Any] = {
        declared.name: override(rename=declared.metadata[JSON_NAME])
        for declared in attrs.fields(record)
        if JSON_NAME in declared.metadata
    }
    return make_dict_structure_fn(record, CONVERTER, **renames)


def _faults(error: BaseException, path: str) -> Iterator[Fault]:
    match error:
        case ClassValidationError():
            names = {
                declared.name: declared.metadata.get(JSON_NAME, declared.name) for declared in attrs.fields(error.cl)
            }
            for inner, attribute in error.group_exceptions()[0]:
                yield from _faults(inner, step(path, names[attribute.name]))
        case IterableValidationError():
            for inner, place in error.group_exceptions()[0]:
                yield from _faults(inner, step(path, place.index))
        case FlawError():
            if error.reason:
                yield Fault(path, error.reason)
            yield from (Fault(step(path, key), what) for key, what in error.members.items())
        case KeyError():
            yield Fault(path, "is missing")
        case _:
            yield Fault(path, "does not fit")


def text_of(value: Any) -> str:
    """Return the value if it is a string, else raise `FlawError`."""
    if not isinstance(value, str):
        raise FlawError("must be a string")
    return value


def mailbox_of(value: Any) -> Mailbox:
    """Return the mailbox if the value is a string with exactly one, else raise `FlawError`."""
    match parse_mailbox(text_of(value)):
        case AddressFault(what):
            raise FlawError(what)
        case mailbox:
            return mailbox


def _line(value: Any) -> str:
    if what := fault_of_line(text_of(value)):
        raise FlawError(what)
    return str(value)


def _text(value: Any) -> str:
    if "\0" in text_of(value):
        raise FlawError("contains a NUL")
    return str(value)


def _date_time(value: Any) -> float:
    read = parse_date_time(text_of(value))
    if isinstance(read, DateTimeFault):
        raise FlawError(read.reason)
    return read


register(OneLine, _line)
register(Text, _text)
register(DateTime, _date_time)
CONVERTER.register_structure_hook(Mailbox, lambda value, _: mailbox_of(value))
