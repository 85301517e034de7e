"""What each command imports: its time is that of its imports, so a command that only reads knows no more than it needs.

A sum of libraries, never a time: the machine that tests run on may be slow.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import CAUSES, Ask, bury
from tests.support.paths import ROOT

RUN = textwrap.dedent("""
    import sys
    before = set(sys.modules)
    from trio_worker.__main__ import main
    try:
        main()
    except SystemExit as left:
        code = left.code
    print("code:", code, file=sys.stderr)
    print("loaded:", *(set(sys.modules) - before), file=sys.stderr)
""")
ALWAYS = {"attr", "attrs", "cyclopts"}
READS = {*ALWAYS, "hiredis"}
# Modules that know dozens of records or a library: what only workers, watchers and senders need.
HEAVY = {
    "trio_worker.bridge",
    "trio_worker.dashboard.view",
    "trio_worker.mail.composer",
    "trio_worker.queue.broker",
    "trio_worker.redis.client",
    "trio_worker.smtp.outcome",
    "trio_worker.telemetry.board",
    "trio_worker.telemetry.feed",
    "trio_worker.telemetry.logbook",
    "trio_worker.worker.events",
    "asyncio",
    "ssl",
}
COMMANDS: dict[str, tuple[set[str], set[str]]] = {
    "status": (READS, set()),
    "status --json": (READS, set()),
    "why": (READS, set()),
    "audit --deep": (READS, set()),
    "worker list": (READS, set()),
    "queue list": (READS, set()),
    "queue peek": (READS, set()),
    "queue age": (READS, set()),
    "queue pause --reason test": (READS, set()),
    "queue resume": (READS, set()),
    "dead list": (READS, set()),
    "dead groups --json": (READS, set()),
    "dead show ID": (READS, set()),
    "dead retry ID": (READS, set()),
    "held list": (READS, set()),
    "delayed list": (READS, set()),
    "job show ID": (READS, set()),
    "job find --type Registration": (READS, set()),
    "config show": (ALWAYS, set()),
    "config explain smtp.host": (ALWAYS, set()),
    "config check": (ALWAYS, set()),
    "schema": ({*ALWAYS, "cattrs", "typing_extensions"}, set()),
}


def loaded_by(words: list[str], folder: Path) -> set[str]:
    """The modules that a command imported; it must have done its work."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRIO_WORKER_CONFIG": str(folder / "worker.toml")}
    command = [sys.executable, "-c", RUN, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    said = dict(line.split(":", 1) for line in done.stderr.splitlines() if line.startswith(("code:", "loaded:")))
    assert said["code"].strip() in {"0", "3", "None"}, done.stderr
    return set(said["loaded"].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_only_what_it_needs(
    command: str, run: Callable[..., int], ask: Ask, work_folder: Path
) -> None:
    """No library but those of its row, and no module of ours that is for workers."""
    run("config", "show")  # makes the configuration
    ids = bury(ask, CAUSES)
    words = [ids[0] if word == "ID" else word for word in command.split()]
    libraries, needed = COMMANDS[command]

    loaded = loaded_by(words, work_folder)

    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"trio_worker"}
    assert {name for name in foreign if not name.startswith("_")} <= libraries
    assert loaded & HEAVY == needed
    assert not any(name.startswith("trio_worker.dashboard.") for name in loaded)


def test_help_needs_no_command(work_folder: Path) -> None:
    """The list of commands imports none of them; rich draws it."""
    loaded = loaded_by(["--help"], work_folder)

    assert {name for name in loaded if name.startswith("trio_worker.cli.")} == {"trio_worker.cli.command_line"}
    assert not loaded & HEAVY - {"asyncio", "ssl"}
