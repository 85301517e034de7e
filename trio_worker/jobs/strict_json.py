"""Pure. Strict JSON parser: returns one value, or all reasons why two parsers might read the text differently."""

from __future__ import annotations

import json
import math
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from trio_worker.jobs.fault import MAX_FAULTS, Fault, Malformed, malformed, step
from trio_worker.records import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_LEVELS = 64
"""The deepest nesting allowed: a mail needs four levels. Python's own limit differs between versions."""

MAX_VALUES = 25_000
"""The most values allowed, those in others counted too: a mail of a thousand rows with twenty figures needs 21,000.

To parse so many takes 20 ms, in one call that lets nothing else run; the same octets as text take none.
"""

_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1
_MAX_INTEGER_DIGITS = 20  # of 2**64 - 1, or of -2**63 with its sign
# Without 19 digits in a row and without an exponent no number is out of range, and the parser needs no function of ours
# for each. In a small text that costs less than the search. A regular expression would take 70 ms for a bad megabyte.
_AS_ONE_DIGIT = bytes.maketrans(b"123456789E", b"000000000e")
_LONG_NUMBER, _EXPONENT = b"0" * 19, b"0e"
_SMALL_CHARACTERS = 1024

_WHITE_SPACE = " \t\n\r"  # RFC 8259, 2
_SURROGATE_ESCAPE = re.compile(r"\\u[dD]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class _FlawError(Exception):
    """The quick parser found something wrong; the thorough one then finds out where."""


@frozen
class _Flaw:
    """Marks a fault in the tree that the thorough parser returns."""

    reason: str


class _Doubled(dict[str, Any]):
    """An object with duplicate names, in the tree that the thorough parser returns: the first of them."""

    names: tuple[str, ...] = ()


def read_json(raw: bytes) -> Json | Malformed:
    """Parse one JSON text (RFC 8259) as strictly as RFC 7493 (I-JSON) demands; never raises, whatever the bytes.

    It refuses encodings other than UTF-8, a byte order mark, duplicate names in an object, NaN and the infinities,
    integers of more than 64 bits, lone surrogates, more than `MAX_LEVELS` levels, and more than `MAX_VALUES` values.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return _refused(Fault("$", f"is not UTF-8 at byte {error.start}"), not_utf8=True)
    if len(raw) > _FEW_OCTETS and _has_too_many_values(raw):
        return _refused(_TOO_DEEP if _BEGINS_TOO_DEEP.match(raw) else _TOO_MANY)
    is_odd = len(text) < _SMALL_CHARACTERS or _may_have_odd_number(raw)
    try:
        value: Json = _read_quickly(text, _QUICK_ODD if is_odd else _QUICK)
    except (_FlawError, json.JSONDecodeError, RecursionError):
        return _explain(text, _THOROUGH_ODD if is_odd else _THOROUGH)
    if text.count("[") + text.count("{") > MAX_LEVELS and _levels(value) > MAX_LEVELS:
        return _refused(_TOO_DEEP)
    if _SURROGATE_ESCAPE.search(text) and _has_surrogate(value):
        return _malformed(value)
    return value


_TOO_DEEP = Fault("$", f"is nested more than {MAX_LEVELS} levels deep")
_TOO_MANY = Fault("$", f"has more than {MAX_VALUES:,} values")
_BEGINS_TOO_DEEP = re.compile(rb'(?:\s*[\[{](?:\s*"[^"\\]*"\s*:)?){%d}' % (MAX_LEVELS + 1))
_FEW_OCTETS = 2 * MAX_VALUES  # each value but the first needs a comma or a bracket before it


def _may_have_odd_number(raw: bytes) -> bool:
    marked = raw.translate(_AS_ONE_DIGIT)
    return _LONG_NUMBER in marked or _EXPONENT in marked


def _has_too_many_values(raw: bytes) -> bool:
    """Whether a JSON text has too many values, found without parsing it; what is in strings does not count.

    Of a text that is no JSON the answer may be either.
    """
    if _separators(raw) < MAX_VALUES:
        return False  # most texts, as long as they may be
    # From the left, as a parser reads them: what is left of a run of backslashes escapes what follows it.
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # The quotes that are left begin and end strings: a name and a value have four.
    if bare.count(b'"') > 4 * MAX_VALUES:
        return True
    outside = b'"'.join(bare.split(b'"')[::2]).translate(None, _WHITE_SPACE.encode())
    return 1 + _separators(outside) - outside.count(b"[]") - outside.count(b"{}") > MAX_VALUES


def _separators(text: bytes) -> int:
    """Return how many commas and opening brackets there are: one before each value but the first."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _refused(fault: Fault, *, not_utf8: bool = False) -> Malformed:
    return malformed("not_utf8" if not_utf8 else "not_json", [fault])


def _malformed(value: Any) -> Malformed:
    """Return the first faults of a tree; a text of nothing but faults must not take a second."""
    found = tuple(islice(_flaws(value), MAX_FAULTS + 1))
    more = (Fault("$", "and more"),) if len(found) > MAX_FAULTS else ()
    return Malformed("not_json", (*found[:MAX_FAULTS], *more))


def _has_surrogate(value: Any) -> bool:
    """Whether a string in a tree has a lone surrogate: then it cannot be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_quickly(text: str, decoder: json.JSONDecoder) -> Any:
    """Return the same as `json.JSONDecoder.decode`, without its two searches for white space around the value."""
    if text.startswith("{"):
        value, end = decoder.raw_decode(text)
        if not text[end:].strip(_WHITE_SPACE):
            return value
    return decoder.decode(text)


def _explain(text: str, decoder: json.JSONDecoder) -> Malformed:
    """Return why the quick parser refused a text: parse it again, with marks in the tree where the faults are."""
    if text.startswith("\ufeff"):
        return _refused(Fault("$", "begins with a byte order mark"))
    if "\0" in text[:4]:
        return _refused(Fault("$", "looks like UTF-16 or UTF-32; write UTF-8"), not_utf8=True)
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError as error:
        return _refused(Fault("$", f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"))
    except RecursionError:
        return _refused(_TOO_DEEP)
    if _levels(value) > MAX_LEVELS:
        return _refused(_TOO_DEEP)
    return _malformed(value)


def _levels(value: Any) -> int:
    """Return the nesting depth of a value, at most `MAX_LEVELS` + 1; without recursion."""
    level = 0
    layer = [value]
    while layer and level <= MAX_LEVELS:
        nested = [each for each in layer if isinstance(each, dict | list)]
        layer = [inner for each in nested for inner in (each.values() if isinstance(each, dict) else each)]
        level += bool(nested)
        if not nested:
            break
    return level


def _flaws(value: Any, path: str = "$") -> Iterator[Fault]:
    """Yield the faults in a tree of at most `MAX_LEVELS` levels."""
    match value:
        case _Flaw():
            yield Fault(path, value.reason)
        case str() if _SURROGATE.search(value):
            yield Fault(path, "contains a lone surrogate")
        case list():
            for index, inner in enumerate(value):
                if isinstance(inner, _MAY_HAVE_FLAWS):
                    yield from _flaws(inner, step(path, index))
        case dict():
            if isinstance(value, _Doubled):
                yield from (Fault(step(path, name), "occurs more than once") for name in value.names)
            for name, inner in value.items():
                if _SURROGATE.search(name):
                    yield Fault(step(path, name), "has a lone surrogate in its name")
                if isinstance(inner, _MAY_HAVE_FLAWS):
                    yield from _flaws(inner, step(path, name))
        case _:
            return


_MAY_HAVE_FLAWS = (_Flaw, str, list, dict)


def _refuse(_: str) -> Any:
    raise _FlawError


def _quick_integer(digits: str) -> int:
    number = _integer(digits)
    if number is None:
        raise _FlawError
    return number


def _quick_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _FlawError
    return number


def _quick_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) != len(pairs):
        raise _FlawError
    return named


def _integer(digits: str) -> int | None:
    if len(digits) > _MAX_INTEGER_DIGITS:
        return None
    number = int(digits)
    return number if _MIN_INTEGER <= number <= _MAX_INTEGER else None


def _marked_integer(digits: str) -> int | _Flaw:
    number = _integer(digits)
    return _Flaw("is an integer of more than 64 bits") if number is None else number


def _marked_float(digits: str) -> float | _Flaw:
    number = float(digits)
    return _Flaw("is a number that is too large") if math.isinf(number) else number


def _marked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) == len(pairs):
        return named
    seen: set[str] = set()
    doubled: dict[str, None] = {}
    for name, _ in pairs:
        if name in seen:
            doubled[name] = None
            if len(doubled) > MAX_FAULTS:
                break
        seen.add(name)
    marked = _Doubled(named)
    marked.names = tuple(doubled)
    return marked


_NO_NUMBER = _Flaw("is NaN or an infinity, which JSON does not have")

_QUICK = json.JSONDecoder(object_pairs_hook=_quick_object, parse_constant=_refuse)
_QUICK_ODD = json.JSONDecoder(
    object_pairs_hook=_quick_object,
    parse_int=_quick_integer,
    parse_float=_quick_float,
    parse_constant=_refuse,
)
_THOROUGH = json.JSONDecoder(object_pairs_hook=_marked_object, parse_constant=lambda _: _NO_NUMBER)
_THOROUGH_ODD = json.JSONDecoder(
    object_pairs_hook=_marked_object,
    parse_int=_marked_integer,
    parse_float=_marked_float,
    parse_constant=lambda _: _NO_NUMBER,
)
