"""Pure. An object of statistics as rows that people read: the template filter ``figures``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_FIGURES = 40
"""A recap is read on a phone; what comes after this many rows is left out."""

_MOST_VALUE_CHARACTERS = 200
_MOST_LABEL_CHARACTERS = 60
_MOST_PLAIN_NUMBER = 1e15  # beyond it a double no longer holds single units, and a line would be all digits

_SEAM = re.compile(r"[_\s-]+|(?<=[a-z0-9])(?=[A-Z])")


def figures(stats: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return (label, value) rows, in the producer's order; nested objects one level deep, lists and nulls left out."""
    if not isinstance(stats, dict):
        return []
    return [row for _, row in zip(range(MOST_FIGURES), _rows(stats), strict=False)]


def _rows(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in stats.items():
        if isinstance(value, dict):
            yield from (
                (f"{label(name)} / {label(inner)}", figure(held))
                for inner, held in value.items()
                if isinstance(held, str | int | float)
            )
        elif isinstance(value, str | int | float):
            yield label(name), figure(value)


def label(name: str) -> str:
    """Return a name from JSON as words: ``minutesAsleep`` and ``minutes_asleep`` give "Minutes asleep"."""
    words = " ".join(_SEAM.sub(" ", name).split())[:_MOST_LABEL_CHARACTERS]
    folded = (
        words if words.isupper() else " ".join(word if word.isupper() else word.lower() for word in words.split(" "))
    )
    return folded[:1].upper() + folded[1:]


def figure(value: str | float) -> str:
    """Return a value for reading: thousands set apart, at most two decimals, one line."""
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return " ".join(value.split())[:_MOST_VALUE_CHARACTERS]
        case _ if abs(value) >= _MOST_PLAIN_NUMBER:
            return f"{value:.3g}"
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.2f}".rstrip("0").rstrip(".")
