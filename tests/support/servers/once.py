"""Folders that several test processes use and one of them makes."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

_SAID = "why-not"


def made_once(folder: Path, make: Callable[[Path], str]) -> Path:
    """Return a folder that ``make`` filled, in this process or in another one of the same run.

    ``make`` returns why it could not; then this test is skipped, and so are all others that want the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    said = folder.with_name(f"{folder.name}.{_SAID}")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            folder.mkdir()
            said.write_text(make(folder))
    why_not = said.read_text()
    if why_not:
        pytest.skip(why_not)
    return folder
