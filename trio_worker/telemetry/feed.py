"""Pure. What travels to watchers: one job that left a worker's hands, one exchange with the relay."""

from __future__ import annotations

import json
from typing import TypeVar

from attrs import evolve, frozen
from cattrs import BaseValidationError, Converter

from trio_worker.privacy import mask_text
from trio_worker.smtp.trace import TraceLine
from trio_worker.worker.events import SettledJob

_CONVERTER = Converter(omit_if_default=True)
_T = TypeVar("_T")
_READER = Converter()


@frozen
class FeedOutcome:
    """What became of one job, when (epoch seconds), and at which worker where that is not the one that shows it."""

    at: float
    settled: SettledJob
    worker: str = ""


def write_outcome(line: FeedOutcome) -> str:
    """Return an outcome as JSON; what a relay said is masked before it leaves the worker."""
    settled, cause = line.settled, line.settled.cause
    if cause is not None:
        settled = evolve(settled, cause=evolve(cause, text=mask_text(cause.text)))
    return json.dumps(_CONVERTER.unstructure(evolve(line, settled=settled)), separators=(",", ":"))


def read_outcome(wire: bytes) -> FeedOutcome | None:
    """Read an outcome back, or None where another version wrote what cannot be read."""
    return decode_or_none(wire, FeedOutcome)


@frozen
class FeedTrace:
    """An exchange, when it was (epoch seconds), and at which worker."""

    at: float
    worker: str
    exchange: TraceLine


def write_trace(line: FeedTrace) -> str:
    """Return a line as JSON."""
    return json.dumps(_CONVERTER.unstructure(line), separators=(",", ":"))


def read_trace(wire: bytes) -> FeedTrace | None:
    """Read a line back, or None where another version wrote what cannot be read."""
    return decode_or_none(wire, FeedTrace)


def decode_or_none(wire: bytes, kind: type[_T]) -> _T | None:
    """Read a record from its JSON, or None where another version wrote what cannot be read.

    What it says beyond ours is ignored, and what it leaves out is at its default; never raises.
    """
    try:
        return _READER.structure(json.loads(wire), kind)
    except (BaseValidationError, ValueError, TypeError, RecursionError):
        return None
