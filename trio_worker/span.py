"""Pure. Spans of time as people type them: ``30s``, ``15m``, ``2h``, ``1d``, ``1h30m``."""

from __future__ import annotations

import math
import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_SPAN = re.compile(rf"(?:{_PART.pattern})+")


def span_text(seconds: float) -> str:
    """Return a span as `parse_span` reads it, in as few units as it takes: ``15m``, ``1h30m``, ``forever``."""
    if math.isinf(seconds):
        return "forever"
    parts = []
    left = seconds
    for unit, size in reversed(_UNITS.items()):
        number = int(left // size) if unit != "s" else round(left, 3)
        if number:
            parts.append(f"{number:g}{unit}")
        left -= number * size
    return "".join(parts) or "0s"


def parse_span(text: str) -> float | None:
    """Return seconds, ``inf`` for the word forever, None for what is no span; a number without a unit is none."""
    words = text.strip().lower()
    if words == "forever":
        return math.inf
    if not _SPAN.fullmatch(words):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(words))
