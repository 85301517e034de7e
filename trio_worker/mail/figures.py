"""Pure. The template filters ``figures``, ``figure`` and ``label``: an object of statistics as rows of text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_FIGURES = 40
"""A mail is often read on a phone; rows after this many are left out."""

_MAX_VALUE_CHARACTERS = 200
_MAX_LABEL_CHARACTERS = 60
_MAX_PLAIN_NUMBER = 1e15  # a larger double is no longer exact to 1, and too long to read

_SEAM = re.compile(r"[_\s-]+|(?<=[a-z0-9])(?=[A-Z])")


def figures(stats: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return rows (label, value) in the producer's order; of nested objects one level, without lists and nulls."""
    if not isinstance(stats, dict):
        return []
    return [row for _, row in zip(range(MAX_FIGURES), _rows(stats), strict=False)]


def _rows(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in stats.items():
        if isinstance(value, dict):
            yield from (
                (f"{label(name)} / {label(inner)}", figure(nested))
                for inner, nested in value.items()
                if isinstance(nested, str | int | float)
            )
        elif isinstance(value, str | int | float):
            yield label(name), figure(value)


def label(name: str) -> str:
    """Return a name from JSON as text: ``minutesAsleep`` and ``minutes_asleep`` become "Minutes asleep"."""
    words = " ".join(_SEAM.sub(" ", name).split())[:_MAX_LABEL_CHARACTERS]
    folded = (
        words if words.isupper() else " ".join(word if word.isupper() else word.lower() for word in words.split(" "))
    )
    return folded[:1].upper() + folded[1:]


def figure(value: str | float) -> str:
    """Return a value as text: thousands separated, at most two decimals, one line."""
    match value:
        case bool():
            return "yes" if value else "no"
        case str():
            return " ".join(value.split())[:_MAX_VALUE_CHARACTERS]
        case _ if abs(value) >= _MAX_PLAIN_NUMBER:
            return f"{value:.3g}"
        case int():
            return f"{value:,}"
        case _:
            return f"{value:,.2f}".rstrip("0").rstrip(".")
