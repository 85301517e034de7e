"""Pure. Jinja's filters, tests and methods of texts with a count of their work, which is one call that nobody can end.

What a call costs is known from the sizes of its arguments, before it is made: most filters look at each character once,
some at each word with a search, and a few make a text that is as long as two arguments multiplied.
"""

from __future__ import annotations

import re
from collections.abc import Sized
from functools import wraps
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined

from trio_worker.mail.work import (
    CHARACTERS_PER_STEP,
    MAX_CHARACTERS,
    TooMuchError,
    check_characters,
    counted_elements,
    size_of,
    spend,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_WIDTH = 1_000_000
# A number of more digits is no part of a mail, and to multiply two of a million digits takes seconds.
MAX_BITS = 20_000
_MAX_DECIMALS = 300  # a double has no more
_MAX_LIPSUM_WORDS = 10_000
_CALL_STEPS = 4
# Some 0.1 microseconds for each of these, at worst, in nanoseconds that were measured: urlize and wordwrap 1,500 for a
# word, sort 1,000 for an element, title 200 for a word.
_WORD_STEPS = 8
_LINK_STEPS = 20
_BY_WORD = frozenset({"indent", "pprint", "striptags", "title", "urlencode", "urlize", "wordcount", "wordwrap"})
_WORD_ENDS = " \n\t<-([{"
_BY_ELEMENT = frozenset({
    "batch", "dictsort", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select",
    "selectattr", "slice", "sort", "tojson", "unique", "xmlattr",
})  # fmt: skip
_AT_ONCE = frozenset({"attr", "count", "d", "default", "first", "items", "last", "length", "safe"})
# Tests that look at all of a value; the others look at its type, or at a number.
COMPARING_TESTS = (
    "in",
    "eq",
    "equalto",
    "==",
    "ne",
    "!=",
    "gt",
    "greaterthan",
    ">",
    "ge",
    ">=",
    "lt",
    "lessthan",
    "<",
    "le",
    "<=",
    "lower",
    "upper",
)
# Filters and methods that pad or fill up to a width or a number.
_FILLING = frozenset({"batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "wordwrap", "zfill"})
_NUMBER = re.compile(r"\d+")
# In a format: %9999999d, %*d, {:9999999}, {:{}}.
_TOO_WIDE = re.compile(r"%[^a-zA-Z%]*(?:\d{7}|\*)|\{[^{}]*\d{7}|\{[^{}]+\{")


def counted_filter(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter or a test of this name that counts its work, and takes no more than a template may do."""
    place = 1 if hasattr(call, "jinja_pass_arg") else 0

    @wraps(call)  # with the marks of Jinja, as of a filter that wants the environment
    def counted(*args: Any, **named: Any) -> Any:
        if len(args) <= place:
            return call(*args, **named)
        value = args[place]
        if hasattr(type(value), "__next__"):
            value = counted_elements(value)
            args = (*args[:place], value, *args[place + 1 :])
        further = (*args[place + 1 :], *named.values())
        spend(_steps_of(name, value))
        check_call(name, value, further)
        return checked(call(*args, **named))

    return counted


def check_call(name: str, value: object, further: tuple[Any, ...]) -> None:
    """Raise `TooMuchError` if a filter or a method of this name would make too much of a value and its arguments."""
    if name in _FILLING:
        check_numbers(*further)
    grows = _GROWTH.get(name)
    if grows is not None:
        check_characters(grows(value, further))


def checked(made: Any) -> Any:
    """Return what a call has made, if it is not too large."""
    if isinstance(made, str | list | tuple | dict):
        check_characters(size_of(made))
    return made


def count_method(text: str) -> None:
    """Count the work of a method of a text."""
    spend(_CALL_STEPS + len(text) // CHARACTERS_PER_STEP)


def check_format(text: object) -> None:
    """Refuse a format with a width of seven digits, or with one that is itself a value."""
    if isinstance(text, str) and _TOO_WIDE.search(text):
        raise TooMuchError("a width in a format has at most six digits, and is no value")


def check_numbers(*numbers: object) -> None:
    """Refuse a width or a number of elements that is too large."""
    if any(isinstance(each, int) and abs(each) > MAX_WIDTH for each in numbers):
        raise TooMuchError(f"a width or a number of elements is at most {MAX_WIDTH:,}")


def size_of_format(value: object, further: tuple[Any, ...]) -> float:
    """Return how long a formatted text may be: each of its fields as long as the longest value or width."""
    check_format(value)
    text = str(value) if isinstance(value, str) else ""
    widths = [int(number) for number in _NUMBER.findall(text) if len(number) <= len(str(MAX_WIDTH))]
    return len(text) + (text.count("%") + text.count("{")) * max([*map(size_of, further), *widths], default=0)


def few_words(lipsum: Callable[..., Any]) -> Callable[..., Any]:
    """Return Jinja's function ``lipsum`` with a bound on the words that it makes."""

    def lipsum_of_few_words(n: int = 5, html: bool = True, min: int = 20, max: int = 100) -> Any:  # noqa: A002, FBT001, FBT002
        if n * max > _MAX_LIPSUM_WORDS:
            raise TooMuchError(f"lipsum makes at most {_MAX_LIPSUM_WORDS:,} words")
        spend(n * max * _WORD_STEPS)
        return lipsum(n, html, min, max)

    return lipsum_of_few_words


def _steps_of(name: str, value: object) -> int:
    if name in _AT_ONCE:
        return _CALL_STEPS
    if isinstance(value, str):
        steps = _CALL_STEPS + len(value) // CHARACTERS_PER_STEP
        if name in _BY_WORD:
            return steps + (_LINK_STEPS if name == "urlize" else _WORD_STEPS) * sum(map(value.count, _WORD_ENDS))
        return steps + len(value) * _WORD_STEPS if name in _BY_ELEMENT else steps
    if isinstance(value, list | tuple | dict):
        size = size_of(value)
        return (
            _CALL_STEPS + size // CHARACTERS_PER_STEP + (len(value) * _WORD_STEPS if name in _BY_ELEMENT else size // 8)
        )
    return _CALL_STEPS + _WORD_STEPS * (
        _length(value) if isinstance(value, Sized) and not isinstance(value, Undefined) else 0
    )


def _sizes(values: tuple[Any, ...]) -> int:
    return sum(map(size_of, values))


def _replaced(value: object, further: tuple[Any, ...]) -> float:
    text = value if isinstance(value, str) else ""
    old, new = (*map(str, further), "", "")[:2]
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def _joined(value: object, further: tuple[Any, ...]) -> float:
    glue, values = (str(further[0]) if further else "", value)
    return size_of(values) + len(glue) * _length(values)


def _joined_by_method(value: object, further: tuple[Any, ...]) -> float:
    return sum(size_of(each) + size_of(value) * _length(each) for each in further)


def _length(values: Any) -> int:
    try:
        return len(values)
    except TypeError:
        return MAX_CHARACTERS // CHARACTERS_PER_STEP  # of what is counted when it is used


def _for_each_line(value: object, further: tuple[Any, ...]) -> float:
    lines = len(value.splitlines()) + 1 if isinstance(value, str) else size_of(value)
    widths = [each if isinstance(each, int) else size_of(each) for each in further]
    return size_of(value) + lines * max(widths, default=0)


def _for_each_tab(value: object, further: tuple[Any, ...]) -> float:
    tabs = value.count("\t") if isinstance(value, str) else 0
    return size_of(value) + tabs * max([each for each in further if isinstance(each, int)], default=8)


def _wrapped(value: object, further: tuple[Any, ...]) -> float:
    lines = size_of(value) // max(1, min([each for each in further if type(each) is int], default=79))
    spend(lines * _WORD_STEPS)
    return _for_each_word(value, further) + lines * max(
        [len(each) for each in further if isinstance(each, str)], default=1
    )


def _for_each_word(value: object, further: tuple[Any, ...]) -> float:
    words = sum(map(value.count, _WORD_ENDS)) if isinstance(value, str) else size_of(value)
    longest = max((len(each) for each in further if isinstance(each, str)), default=0)
    return size_of(value) + (words + size_of(value) // 8) * longest


def _for_each_character(value: object, further: tuple[Any, ...]) -> float:
    longest = max([size_of(inner) for each in further if isinstance(each, dict) for inner in each.values()], default=1)
    return size_of(value) * longest


def _parts(value: object, further: tuple[Any, ...]) -> float:
    spend(_WORD_STEPS * max([each for each in further if isinstance(each, int)], default=0))
    return size_of(value)


def _round(value: object, further: tuple[Any, ...]) -> float:
    if any(isinstance(each, int) and abs(each) > _MAX_DECIMALS for each in further):
        raise TooMuchError(f"round takes at most {_MAX_DECIMALS} decimals")
    return size_of(value)


def _sum(_value: object, further: tuple[Any, ...]) -> float:
    if any(isinstance(each, list | tuple) for each in further):
        raise TooMuchError("sum is for numbers")
    return 0


_GROWTH: Mapping[str, Callable[[object, tuple[Any, ...]], float]] = {
    "expandtabs": _for_each_tab,
    "format": size_of_format,
    "format_map": size_of_format,
    "indent": _for_each_line,
    "join": _joined,
    "joined": _joined_by_method,
    "replace": _replaced,
    "round": _round,
    "slice": _parts,
    "sum": _sum,
    "tojson": _for_each_line,
    "translate": _for_each_character,
    "urlize": _for_each_word,
    "wordwrap": _wrapped,
}
