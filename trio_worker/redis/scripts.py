"""Edge. Reads the Lua scripts of the queue."""

from __future__ import annotations

import hashlib
from pathlib import Path

from attrs import frozen


@frozen
class Script:
    """One Lua script, with its digest for EVALSHA."""

    name: str
    text: str
    digest: str


def read_script(name: str) -> Script:
    """Read one of the queue's scripts, with the common prelude before it."""
    folder = Path(__file__).parent.parent / "queue" / "scripts"
    text = (folder / "prelude.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
    # Redis identifies scripts by SHA-1; it has no security purpose here.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def read_scripts() -> dict[str, Script]:
    """Read all scripts of the queue. Done before the first job: later there may be no file descriptor free."""
    folder = Path(__file__).parent.parent / "queue" / "scripts"
    names = [path.stem for path in folder.glob("*.lua") if path.stem != "prelude"]
    return {name: read_script(name) for name in names}
