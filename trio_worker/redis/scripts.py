"""Edge. Reads the Lua scripts of the queue."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from attrs import frozen

_CALLED = re.compile(r"redis\.p?call\('([A-Z]+)'")
# These have run when a script asks whether it may run the others, or run first.
_ASKED_BY_RUNNING = frozenset({"TYPE", "TIME", "ZREM"})
# It tries what may be refused, so it has no prelude, which needs some of that.
TRIAL = "trial"


@frozen
class Script:
    """One Lua script, with its digest for EVALSHA, and the commands that it may run.

    ``writes``: whether it may change anything.
    """

    name: str
    text: str
    digest: str
    commands: tuple[str, ...] = ()
    writes: bool = False


def read_script(name: str) -> Script:
    """Read one of the queue's scripts, with the common prelude before it, and before that its list of commands."""
    folder = Path(__file__).parent.parent / "queue" / "scripts"
    text = (folder / f"{name}.lua").read_text("utf-8")
    commands: tuple[str, ...] = ()
    writes = "begin_writing()" in text
    if name != TRIAL:
        text = (folder / "prelude.lua").read_text("utf-8") + text
        commands = tuple(sorted(set(_CALLED.findall(text))))
        needed = ", ".join(f"'{command}'" for command in commands if command not in _ASKED_BY_RUNNING)
        text = f"local COMMANDS = {{{needed}}}\n{text}"
    # Redis identifies scripts by SHA-1; it has no security purpose here.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), commands, writes)


def read_scripts() -> dict[str, Script]:
    """Read all scripts of the queue. Done before the first job: later there may be no file descriptor free."""
    folder = Path(__file__).parent.parent / "queue" / "scripts"
    names = [path.stem for path in folder.glob("*.lua") if path.stem != "prelude"]
    return {name: read_script(name) for name in names}
