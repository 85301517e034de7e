"""Pure. How much a template may do for one mail: steps, and characters of a text. Both are counted, none is timed.

The values that a template is given are a producer's, and a loop over them may be as long as he likes. Counted, the same
job ends the same way on a machine that is slow or stands still for a while. One step is about one node of a template's
syntax tree.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import SecurityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_STEPS = 200_000
"""What one template may do for one mail: 30 ms, and a table of 3,000 rows with ten figures."""

MAX_CHARACTERS = 4_000_000
"""Of a text or of a list with all that is in it: some relays take no larger mail."""

# Copying, comparing or searching so much takes no longer than a step.
CHARACTERS_PER_STEP = 256
# Of a number in a list.
_NUMBER_CHARACTERS = 8
_DIGITS_PER_BIT = 0.302
# References in a list.
_COPIES_PER_STEP = 64
_MAX_KEPT = 500_000
# What is taken at once of something whose length is not known; of a text at first: most have no more pieces.
_CHUNK = 64
_PIECES = 128


class TooMuchError(SecurityError):
    """A template would do more for this mail than it may; the message names no value.

    ``template_name``: the template that was rendered, for a fault that no line of it made.
    """

    template_name: str = ""


class _Work(threading.local):
    """What the template that a thread is rendering may still do, and the sizes of the lists and objects it has made."""

    def __init__(self) -> None:
        self.steps_left = MAX_STEPS
        self.sizes: dict[int, tuple[int, object]] = {}  # by id; with the object, so that the id stays its own
        self.kept = 0  # elements of these


_WORK = _Work()


def begin_count() -> None:
    """Allow the template that this thread renders next all of its steps."""
    _WORK.steps_left = MAX_STEPS
    if _WORK.sizes:
        _WORK.sizes, _WORK.kept = {}, 0


def spend(steps: int) -> None:
    """Count steps. Raises `TooMuchError` if there are none left."""
    _WORK.steps_left -= steps
    if _WORK.steps_left < 0:
        raise TooMuchError(
            f"does more than {MAX_STEPS:,} steps; a loop is too long, or a text for what is done with it"
        )


def size_of(value: object) -> int:
    """Return about how many characters a value has as text, with all that is in it.

    A list that is in itself many times counts as often: as a text it would be as long. Raises `TooMuchError` if that is
    too much, before any time is spent on it.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple | dict):
        known = _WORK.sizes.get(id(value))
        return _size_within(value) if known is None else known[0]
    if isinstance(value, int):
        return _NUMBER_CHARACTERS + int(value.bit_length() * _DIGITS_PER_BIT)
    return _NUMBER_CHARACTERS


def _size_within(value: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> int:
    spend(len(value) // 4)
    size = _NUMBER_CHARACTERS
    for each in chain(value.keys(), value.values()) if isinstance(value, dict) else value:
        size += size_of(each)
        check_characters(size)
    _keep(value, size)
    return size


def _keep(value: list[Any] | tuple[Any, ...] | dict[Any, Any], size: int) -> None:
    _WORK.kept += len(value)
    if _WORK.kept > _MAX_KEPT:
        _WORK.sizes, _WORK.kept = {}, 0
    _WORK.sizes[id(value)] = (size, value)


def counted_sum(made: Any, left: Any, right: Any) -> Any:
    """Return what was made of two lists or texts; its size is that of both, however often a list is added to."""
    if not isinstance(made, list | tuple):
        return counted_value(made)
    size = size_of(left) + size_of(right)
    check_characters(size)
    spend(len(made) // _COPIES_PER_STEP)
    _keep(made, size)
    return made


def check_characters(size: float) -> None:
    """Raise `TooMuchError` if a text or a list of this size is too large."""
    if size > MAX_CHARACTERS:
        raise TooMuchError(f"makes a text or a list of more than {MAX_CHARACTERS:,} characters")


def counted_value(value: Any) -> Any:
    """Return a value that a template has made, or is about to work with, and count its size."""
    if isinstance(value, str | list | tuple | dict):
        size = size_of(value)
        check_characters(size)
        spend(size // CHARACTERS_PER_STEP)
    return value


def counted_loop(values: Iterable[Any], steps: int) -> Iterable[Any]:
    """Return what a loop goes through; each of its rounds has so many steps."""
    try:
        length = len(values)  # type: ignore[arg-type]
    except TypeError:
        return chain.from_iterable(_chunks(iter(values), steps))
    spend(length * steps)
    return values


def _chunks(values: Iterator[Any], steps: int) -> Iterator[list[Any]]:
    while chunk := list(islice(values, _CHUNK)):
        spend(len(chunk) * steps)
        yield chunk


def counted_elements(values: Iterator[Any]) -> Iterator[Any]:
    """Yield the elements of something that a filter will use up, as one list of them must not be too large."""
    size = 0
    for each in values:
        size += size_of(each)
        check_characters(size)
        spend(1)
        yield each


def join_pieces(pieces: Iterable[str]) -> str:
    """Join what a template renders; a text that is too long is a fault at the line that made it so."""
    iterator = iter(pieces)
    text = "".join(islice(iterator, _PIECES))
    if len(text) <= MAX_CHARACTERS and (second := list(islice(iterator, _CHUNK))):
        text = _joined_further(text, second, iterator)
    if len(text) > MAX_CHARACTERS:
        fault = TooMuchError(f"makes a text of more than {MAX_CHARACTERS:,} characters")
        if isinstance(pieces, Generator):
            pieces.throw(fault)
        raise fault
    return text


def _joined_further(text: str, chunk: list[str], pieces: Iterator[str]) -> str:
    texts, size = [text], len(text)
    while chunk and size <= MAX_CHARACTERS:
        texts.append("".join(chunk))
        size += len(texts[-1])
        chunk = list(islice(pieces, _CHUNK))
    return "".join(texts)
