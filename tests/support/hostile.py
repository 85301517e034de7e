"""Text as a stranger writes it who wants to rule a terminal, or hide from its reader."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from attrs import evolve, fields, has

_T = TypeVar("_T")

# One of each kind: ESC and a sequence, CSI, OSC 52 (the clipboard) and 8 (a link), C1 controls, line breaks that are
# none, text from right to left, and characters without a width.
HOSTILE = (
    "\x1b[2J\x1b[31m",
    "\x9b2J",
    "\x1b]52;c;c2g=\x07",
    "\x1b]8;;https://evil.example\x1b\\",
    "\x1bP+q\x9c",
    "\x85\x90\x9d",
    "\r",
    "\x0b\x0c\u2028\u2029",
    "\x08\x7f\x00",
    "\u202egnp\u202c\u2066\u2069\u061c",
    "\u200b\u200d\u2060\ufeff\u00ad",
    "\u034f\u3164\U000e0041",
)
# Each character of them that must reach no screen, log, JSON or picture.
FORBIDDEN = frozenset("".join(HOSTILE)) - frozenset(map(chr, range(0x20, 0x7F)))


def assert_tame(seen: str, where: str = "", allowed: str = "\n") -> None:
    """Hold that a text has no character that a terminal obeys or a reader cannot see."""
    found = {hex(ord(char)) for char in seen if char in FORBIDDEN and char not in allowed}
    assert not found, (where, found, next(line for line in seen.split("\n") if FORBIDDEN & set(line) - set(allowed)))


def spoiled(value: _T, text: str) -> _T:
    """Return a record with the text in place of each string in it, also in records and tuples inside of it."""
    return _spoiled(value, text)  # type: ignore[no-any-return]  # of the same type


def _spoiled(value: Any, text: str) -> Any:
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        parts = [_spoiled(each, text) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, dict):
        return type(value)({key: _spoiled(each, text) for key, each in value.items()})
    if not has(type(value)):
        return value
    changes = {each.alias: _spoiled(getattr(value, each.name), text) for each in fields(type(value)) if each.init}
    return evolve(value, **changes)
