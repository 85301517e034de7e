"""Edge. Questions to the person at the terminal, and the arguments of commands that change something."""

from __future__ import annotations

import math
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

from attrs import frozen
from cyclopts import Parameter

from trio_worker.cli.output import complain

_NUMBER = re.compile(r"\d{1,9}(\.\d{1,3})?")
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


@Parameter(name="*")
@frozen
class Asking:
    """Whether a command that changes many jobs asks, and what it must find."""

    expect: Annotated[int | None, Parameter(help="Refuse unless it is exactly so many.")] = None
    dry_run: Annotated[bool, Parameter(name=["--dry-run", "-n"], negative=(), help="Only say what would be done.")] = (
        False
    )
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Do not ask.")] = False
    no_input: Annotated[
        bool, Parameter(name=["--no-input"], negative=(), help="Never ask: refuse where one would be asked.")
    ] = False


def _span(_hint: Any, tokens: Any) -> float:
    seconds = parse_span(tokens[0].value)
    if seconds is None:
        raise ValueError("must be like 30s, 15m, 2h, 1d or forever")
    return seconds


def _moment(_hint: Any, tokens: Any) -> float:
    """Read a time of day, or how long ago; epoch seconds."""
    text: str = tokens[0].value
    seconds = parse_span(text)
    if seconds is not None and not math.isinf(seconds):
        return time.time() - seconds
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be like 2h (ago) or 2026-01-31T12:00:00Z") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _seconds(_hint: Any, tokens: Any) -> float:
    """Read a span, or a bare number of seconds."""
    text: str = tokens[0].value
    seconds = float(text) if _NUMBER.fullmatch(text) else parse_span(text)
    if seconds is None:
        raise ValueError("must be like 30s, 15m or 2h, or a number of seconds")
    return seconds


Span = Annotated[float, Parameter(converter=_span, metavar="DURATION", show_default=span_text)]
Seconds = Annotated[float, Parameter(converter=_seconds, metavar="DURATION", show_default=span_text)]
Moment = Annotated[float | None, Parameter(converter=_moment, metavar="DURATION|TIME")]


def agreed(question: str, *, yes: bool, no_input: bool) -> bool:
    """Ask with the answer no by default; without a terminal the answer is no, and the way to say yes is told."""
    if yes:
        return True
    if no_input or not sys.stdin.isatty():
        complain("refused: say --yes to do it without a question")
        return False
    if input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}:
        return True
    complain("nothing was done")
    return False


def typed(question: str, word: str, *, yes: bool, no_input: bool) -> bool:
    """Ask for a word to be typed, for what cannot be undone."""
    if yes:
        return True
    if no_input or not sys.stdin.isatty():
        complain("refused: say --yes to do it without a question")
        return False
    if input(f"{question} Type {word} to go on: ").strip() == word:
        return True
    complain("nothing was done")
    return False


def is_expected(found: int, expected: int | None, what: str) -> bool:
    """Return whether it is as many as somebody saw before; say so if not."""
    if expected is None or found == expected:
        return True
    complain(f"refused: {found:,} {what}, not {expected:,}")
    return False
