"""Pure. Reads plain arguments of ``run``, so that a worker starts without the library of the command line.

Its import takes a tenth of the start. It has the help, and reads all other arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class RunArguments(TypedDict, total=False):
    """Arguments of `run_with`; those that were not given have its defaults."""

    burst: bool
    no_dashboard: bool
    only_ascii: bool
    queue: str
    config: Path


def read_run_plainly(words: Sequence[str]) -> RunArguments | None:
    """Read full options, each at most once and with its value in the next word; None for all other arguments."""
    given = RunArguments()
    left = iter(words)
    for word in left:
        value = next(left, "") if word in {"--queue", "--config"} else ""
        match word:
            case "--burst" if "burst" not in given:
                given["burst"] = True
            case "--no-dashboard" if "no_dashboard" not in given:
                given["no_dashboard"] = True
            case "--ascii" if "only_ascii" not in given:
                given["only_ascii"] = True
            case "--queue" if "queue" not in given and _is_plain(value):
                given["queue"] = value
            case "--config" if "config" not in given and _is_plain(value):
                given["config"] = Path(value)
            case _:
                return None
    return given


def _is_plain(value: str) -> bool:
    return value != "" and not value.startswith("-")
