"""Pure. Reads records from JSON values that another version may have written; a wrong value raises.

cattrs would do the same, but its import and the code that it makes for a heartbeat take a tenth of the time of a
command. Values are converted as cattrs does it: what is no number raises, unknown names are ignored.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

_T = TypeVar("_T")
_Reader = Callable[[Any], Any]
# By record; made once, because its types must be looked up.
_READERS: dict[type[Any], _Reader] = {}


def record_from(document: Any, record: type[_T]) -> _T:
    """Return the record that a JSON value describes; missing fields have their defaults.

    Raises ValueError, TypeError, KeyError, AttributeError or OverflowError for a value that does not fit.
    """
    kind: type[Any] = record
    if kind not in _READERS:
        _READERS[kind] = _record_reader(kind)
    made: _T = _READERS[kind](document)
    return made


def _record_reader(record: type[Any]) -> _Reader:
    hints = get_type_hints(record)
    readers = [
        (each.name, _reader_of(hints[each.name]), each.default is attrs.NOTHING) for each in attrs.fields(record)
    ]

    def read(document: Any) -> Any:
        return record(
            **{name: reader(document[name]) for name, reader, is_required in readers if is_required or name in document}
        )

    return read


def _reader_of(hint: Any) -> _Reader:
    """Return what reads a value of this type: a record, a scalar, an enumeration, or a collection of them."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (_reader_of(each) for each in args if each is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:  # tuple[X, ...]
        element = _reader_of(args[0])
        return lambda value: tuple(map(element, value))
    if origin is dict:
        key, member = map(_reader_of, args)
        return lambda value: {key(name): member(each) for name, each in value.items()}
    if attrs.has(hint):
        return _record_reader(hint)
    scalar: _Reader = hint
    return scalar
