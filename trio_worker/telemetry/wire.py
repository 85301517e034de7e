"""Pure. Reading back what a worker told in Redis: of this version or another, whole or not at all."""

from __future__ import annotations

import json
from typing import TypeVar

from cattrs import BaseValidationError, Converter

T = TypeVar("T")
_CONVERTER = Converter()


def read_told(wire: bytes, kind: type[T]) -> T | None:
    """Read a record from its JSON, or None where another version wrote what cannot be read.

    What it says beyond ours is ignored, and what it leaves out is at its default; never raises.
    """
    try:
        return _CONVERTER.structure(json.loads(wire), kind)
    except (BaseValidationError, ValueError, TypeError, RecursionError):
        return None
