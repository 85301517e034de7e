"""The words of a command line: common options before the command or behind it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from trio_worker.__main__ import COMMON_OPTIONS, behind_command
from trio_worker.cli.command_line import app

WORDS = st.sampled_from(["--config", "--config=F", "--json", "-n", "--", "status", "F", "--html", "-h", ""])


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("--config F status", "status --config F"),
        ("--config=F --json queue list", "queue list --config=F --json"),
        ("--config F health live", "health live --config F"),
        ("--json --queue q enqueue -- --odd", "enqueue --json --queue q -- --odd"),
        ("-y --no-input dead drop ID", "dead drop ID -y --no-input"),
        ("status --config F", "status --config F"),
        ("--frob status", "--frob status"),
        ("--json --frob status", "--json --frob status"),
        ("--config F", "--config F"),
        ("--config", "--config"),
        ("--version", "--version"),
        ("", ""),
    ],
)
def test_common_options_before_the_command_go_behind_it(before: str, behind: str) -> None:
    """Others stay where they are, and so do all where no command follows."""
    assert behind_command(before.split()) == behind.split()


@given(st.lists(WORDS))
def test_no_word_is_lost(words: list[str]) -> None:
    """The same words in another order, and once moved they stay."""
    moved = behind_command(words)

    assert sorted(moved) == sorted(words)
    if moved != words:
        assert behind_command(moved) == moved


COMMANDS_WITH = {
    "--config F": "status",
    "--queue Q": "run",
    "--timeout 5s": "queue drain-wait",
    "--json": "status",
    "--yes": "queue purge",
    "-y": "queue purge",
    "--no-input": "queue purge",
    "--dry-run": "queue purge",
    "-n": "enqueue",
}


@pytest.mark.parametrize("option", COMMANDS_WITH)
def test_every_common_option_is_one_of_a_command(option: str) -> None:
    """And the help names it, but for short forms."""
    words = [*option.split(), *COMMANDS_WITH[option].split()]
    app.parse_args(behind_command(words), exit_on_error=False, print_error=False)

    assert {each.split()[0] for each in COMMANDS_WITH} == set(COMMON_OPTIONS)
    assert words[0] in app.help or len(words[0]) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--config", "conf/dev.toml", "config", "check"], 0, "ok  conf/dev.toml"),
        (["--json", "config", "check"], 0, '"ok": true'),
        (["--config", "nowhere.toml", "status"], 78, "nowhere.toml"),
        (["--config", "nowhere.toml", "health", "live"], 78, "nowhere.toml"),
        (["--json", "config", "explain", "smtp.host"], 2, "--json"),
    ],
)
def test_a_command_gets_the_options_before_it(words: list[str], code: int, said: str) -> None:
    """It refuses those that it does not have."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_worker", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == code
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize("words", ["config explain smtp.host", "config explain no.such.key", "--version"])
def test_no_garbage_is_looked_for_at_the_end(words: str) -> None:
    """Python would go through all modules once more before it ends; what is frozen it passes over."""
    code = (
        "import gc, sys\n"
        "from trio_worker.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('left:', len(gc.get_objects()), 'frozen:', gc.get_freeze_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    left, frozen = re.findall(r"(?:left|frozen): (\d+)", done.stdout)

    assert int(left) < 1000
    assert int(frozen) > 10_000
