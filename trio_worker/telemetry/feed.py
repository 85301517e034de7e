"""Pure. The live feed for watchers: outcomes of jobs, and lines of the protocol trace, as JSON."""

from __future__ import annotations

import json
from typing import TypeVar

from attrs import evolve
from cattrs import BaseValidationError, Converter

from trio_worker.privacy import mask_text
from trio_worker.records import frozen
from trio_worker.smtp.trace import TraceLine
from trio_worker.worker.events import SettledJob

_CONVERTER = Converter(omit_if_default=True)
_T = TypeVar("_T")
_READER = Converter()


@frozen
class FeedOutcome:
    """The outcome of one job, its time (epoch seconds), and the worker, if it is not the one that shows it."""

    at: float
    settled: SettledJob
    worker: str = ""


def write_outcome(line: FeedOutcome) -> str:
    """Return an outcome as JSON; texts of relays are masked before they leave the worker."""
    settled, cause = line.settled, line.settled.cause
    if cause is not None:
        settled = evolve(settled, cause=evolve(cause, text=mask_text(cause.text)))
    return json.dumps(_CONVERTER.unstructure(evolve(line, settled=settled)), separators=(",", ":"))


def read_outcome(wire: bytes) -> FeedOutcome | None:
    """Return an outcome from its JSON; None if another version wrote something unreadable."""
    return decode_or_none(wire, FeedOutcome)


@frozen
class FeedTrace:
    """A line of the protocol trace, its time (epoch seconds), and the worker."""

    at: float
    worker: str
    exchange: TraceLine


def write_trace(line: FeedTrace) -> str:
    """Return a line as JSON."""
    return json.dumps(_CONVERTER.unstructure(line), separators=(",", ":"))


def read_trace(wire: bytes) -> FeedTrace | None:
    """Return a line from its JSON; None if another version wrote something unreadable."""
    return decode_or_none(wire, FeedTrace)


def decode_or_none(wire: bytes, kind: type[_T]) -> _T | None:
    """Return a record from its JSON; None if another version wrote something unreadable.

    Unknown fields are ignored, and missing ones have their defaults; never raises.
    """
    try:
        return _READER.structure(json.loads(wire), kind)
    except (BaseValidationError, ValueError, TypeError, RecursionError):
        return None
