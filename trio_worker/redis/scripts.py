"""Edge. Reads the Lua scripts of the queue, and runs several of them in one round trip."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trio_worker.records import frozen
from trio_worker.redis.calls import RedisAnswer, ScriptCall, Unavailable

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


class Pipeline(Protocol):
    """Runs commands in one round trip, as `RedisCalls.pipeline` does."""

    async def __call__(
        self, commands: Sequence[Sequence[bytes | str | float]], doing: str = ..., may_fail: int = ...
    ) -> list[RedisAnswer] | Unavailable: ...


async def run_scripts(
    pipeline: Pipeline,
    scripts: Mapping[str, Script],
    keys: Sequence[str],
    calls: Sequence[ScriptCall],
    commands: Sequence[Sequence[bytes | str | float]],
    may_fail: int,
) -> list[RedisAnswer] | Unavailable:
    """Run scripts, each with its arguments, and then commands, all in one round trip of ``pipeline``.

    If Redis does not know a script, the texts are sent and everything is run again: pass only what may be repeated.
    """
    wanted = [scripts[name] for name, _ in calls]
    evals = [
        ("EVALSHA", script.digest, len(keys), *keys, *args) for script, (_, args) in zip(wanted, calls, strict=True)
    ]
    doing = wanted[-1].name if wanted else "pipeline"
    answers = await pipeline([*evals, *commands], doing, may_fail)
    if not isinstance(answers, Unavailable) or not answers.reason.startswith("NOSCRIPT"):
        return answers
    loaded = await pipeline([("SCRIPT LOAD", script.text) for script in wanted])
    if isinstance(loaded, Unavailable):
        return loaded
    return await pipeline([*evals, *commands], doing, may_fail)
