"""``--help``: no automatic flags, no useless defaults, and all commands of a group in one line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loading import app as load_app

from tests.support.commands import COMMANDS, HELPS, help_of
from tests.support.paths import ROOT
from trio_worker.capture.chaos import FAULT_STAGES
from trio_worker.cli.command_line import app


def test_the_commands_are_found() -> None:
    """The tests below check all of them."""
    assert {("status",), ("queue", "release"), ("dead", "retry"), ("health",)} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_what_somebody_can_use(words: tuple[str, ...]) -> None:
    """No --no-x and --empty-x except the intended ones; durations by name; a default only where it helps."""
    told = help_of(*words)

    meant = {"--no-dashboard", "--no-input"}
    assert set(re.findall(r"--(?:no|empty)-[a-z-]+", told)) <= meant
    assert "FLOAT" not in told
    assert not re.search(r"\[default: (False|None|inf|\"\"|\(\)|[0-9]+\.0)\]", told)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_breaks_lines_where_the_screen_does(words: tuple[str, ...]) -> None:
    """A paragraph of a docstring is printed with its own line ends, which would cut lines anywhere; so it has none."""
    told = help_of(*words).partition("╭")[0]

    assert [paragraph for paragraph in told.strip().split("\n\n") if "\n" in paragraph] == []


@pytest.mark.parametrize("noun", ["queue", "dead", "job", "worker", "config", "capture"])
def test_the_line_of_a_group_names_all_of_its_commands(noun: str) -> None:
    """Among all commands, and at the head of its own help."""
    (line,) = re.findall(rf"^│ {noun} +(.*?) *│$", help_of(), re.MULTILINE)
    own = help_of(noun).splitlines()[2]

    for name in app[noun]:
        if name not in HELPS:
            assert re.search(rf"\b{name}\b", line), (noun, name)
            assert re.search(rf"\b{name}\b", own), (noun, name)


@pytest.mark.parametrize("group", sorted({words[0] for words in COMMANDS if len(words) > 1}))
def test_a_group_says_what_each_of_its_commands_does(group: str) -> None:
    """Those too whose module is not loaded to list them: so in a new process, where no other help was asked for."""
    command = [sys.executable, "-m", "trio_worker", group, "--help"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    listed = dict(re.findall(r"^│ ([a-z-]+) +([^ ].*?)? *│$", told, re.MULTILINE))
    assert listed.keys() == {words[1] for words in COMMANDS if words[0] == group and len(words) > 1}
    assert [name for name, said in listed.items() if not said] == []


def test_help_of_chaos_has_its_words() -> None:
    """Stages, actions and qualifiers, as docs/testing.md has them."""
    told = help_of("capture", "chaos")
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")

    for word in (
        *FAULT_STAGES,
        "drop",
        "stall",
        "delay-50ms",
        "accept-drop",
        "20%",
        "every5",
        "first3",
        "after5",
        "550-5.1.1",
    ):
        assert re.search(rf"(?<![\w-]){word}(?![\w])", told), word
        assert word in page, word


def test_tools_say_what_they_do_before_they_install_anything(tmp_path: Path) -> None:
    """In a fresh checkout nothing is made by asking for help, and each option of tools/load is named."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    command = ["tools/load", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)

    assert not (tmp_path / ".venv").exists()
    assert done.stdout.startswith("Put a load on a queue")
    for option in re.findall(r"^│ +(--[a-z-]+)", help_of(of=load_app), re.MULTILINE):
        assert option in done.stdout or option in HELPS, option
