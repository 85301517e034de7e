"""Pure. One job that left a worker's hands: for lists of the latest, and as others are told of it."""

from __future__ import annotations

import json

from attrs import evolve, frozen
from cattrs import Converter

from trio_worker.events import SettledJob
from trio_worker.privacy import mask_text
from trio_worker.wire import read_told

_CONVERTER = Converter(omit_if_default=True)


@frozen
class OutcomeLine:
    """What became of one job, when (epoch seconds), and at which worker where that is not the one that shows it."""

    at: float
    settled: SettledJob
    worker: str = ""


def write_outcome(line: OutcomeLine) -> str:
    """Return an outcome as JSON; what a relay said is masked before it leaves the worker."""
    settled, cause = line.settled, line.settled.cause
    if cause is not None:
        settled = evolve(settled, cause=evolve(cause, text=mask_text(cause.text)))
    return json.dumps(_CONVERTER.unstructure(evolve(line, settled=settled)), separators=(",", ":"))


def read_outcome(wire: bytes) -> OutcomeLine | None:
    """Read an outcome back, or None where another version wrote what cannot be read."""
    return read_told(wire, OutcomeLine)
