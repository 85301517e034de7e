"""Edge. Durations and points in time in flags: ``15m``, ``1h30m``, ``forever``, ``2026-01-31T12:00:00Z``."""

from __future__ import annotations

import math
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter

_NUMBER = re.compile(r"\d{1,9}(\.\d{1,3})?")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


def duration_text(seconds: float) -> str:
    """Return a duration as `parse_duration` reads it, in as few units as it takes: ``15m``, ``1h30m``, ``forever``."""
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


def parse_duration(text: str) -> float | None:
    """Return seconds, ``inf`` for the word forever, None for other text; a number needs a unit."""
    words = text.strip().lower()
    if words == "forever":
        return math.inf
    if not _DURATION.fullmatch(words):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(words))


def _duration_of(_hint: Any, tokens: Any) -> float:
    seconds = parse_duration(tokens[0].value)
    if seconds is None:
        raise ValueError("must be like 30s, 15m, 2h, 1d or forever")
    return seconds


def _point_in_time_of(_hint: Any, tokens: Any) -> float:
    """Return epoch seconds of a point in time, given as ISO 8601 or as a duration before now."""
    text: str = tokens[0].value
    seconds = parse_duration(text)
    if seconds is not None and not math.isinf(seconds):
        return time.time() - seconds
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be like 2h (ago) or 2026-01-31T12:00:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _seconds_of(_hint: Any, tokens: Any) -> float:
    """Return seconds, given as a duration or as a number without a unit."""
    text: str = tokens[0].value
    seconds = float(text) if _NUMBER.fullmatch(text) else parse_duration(text)
    if seconds is None:
        raise ValueError("must be like 30s, 15m or 2h, or a number of seconds")
    return seconds


Duration = Annotated[float, Parameter(converter=_duration_of, metavar="DURATION", show_default=duration_text)]
Seconds = Annotated[float, Parameter(converter=_seconds_of, metavar="DURATION", show_default=duration_text)]
PointInTime = Annotated[float | None, Parameter(converter=_point_in_time_of, metavar="DURATION|TIME")]
