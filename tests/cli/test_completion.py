"""Completion in real shells, and the words for a command or an option that does not exist."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.paths import ROOT
from trio_worker.cli.command_line import app

WAIT_SECONDS = 60


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def trio_worker(*words: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "trio_worker", *words)


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, as a user keeps it."""
    printed = trio_worker("completion", "bash")
    assert (printed.returncode, printed.stderr) == (0, "")
    script = tmp_path_factory.mktemp("completion") / "trio-worker"
    script.write_text(printed.stdout)
    return script


def test_bash_takes_the_script(bash_script: Path) -> None:
    """It is sourced without a word, and completes our command."""
    done = run("bash", "-c", f"set -u; source {bash_script}; complete -p trio-worker")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(" trio-worker")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("s", {"schema", "shell", "smtp", "stats", "status"}),
        ("smtp ", {"check"}),
        ("smtp check --", {"--to", "--config", "--json"}),
        ("mail preview --ht", {"--html"}),
        ("completion ", {"bash", "fish", "zsh"}),
        ("dead ", {"list", "show", "retry", "drop"}),
    ],
)
def test_tab_in_bash_offers_commands_and_options(bash_script: Path, line: str, expected: set[str]) -> None:
    """What is offered is what there is, two levels deep, without starting Python."""
    words = ["trio-worker", *line.split(" ")]
    quoted = " ".join(f"'{word}'" for word in words)
    function = "$(complete -p trio-worker | sed 's/.*-F \\([^ ]*\\) .*/\\1/')"
    script = (
        f"source {bash_script}\nPATH=\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n"
        f'{{ $function "$1"; }}\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    ).replace("PATH=\n", f"function={function}\nPATH=\n")

    done = run("bash", "-c", script)

    assert expected <= set(done.stdout.split()), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_theirs(shell: str) -> None:
    """Each script names our command, and what it offers."""
    printed = trio_worker("completion", shell)

    assert printed.returncode == 0
    assert "trio-worker" in printed.stdout
    assert "drain-wait" in printed.stdout


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_finds_the_script_in_its_fpath(tmp_path: Path) -> None:
    """Under the name that the help says, compinit binds it to our command and reads it without a word."""
    (tmp_path / "_trio-worker").write_text(trio_worker("completion", "zsh").stdout)
    script = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -d {tmp_path}/dump; "

    done = run("zsh", "-fc", f"{script} print $_comps[trio-worker]; autoload +X $_comps[trio-worker]")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("_trio")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("line", "offered"), [("smtp ", "check"), ("mail preview --ht", "--html"), ("sta", "status")])
def test_tab_in_fish_offers_commands_and_options(tmp_path: Path, line: str, offered: str) -> None:
    """As it would in its prompt."""
    (tmp_path / "trio-worker.fish").write_text(trio_worker("completion", "fish").stdout)

    done = run("fish", "--no-config", "-c", f"source {tmp_path}/trio-worker.fish; complete -C 'trio-worker {line}'")

    assert offered in [row.split("\t")[0] for row in done.stdout.splitlines()]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["enqeue"], 'Did you mean "enqueue"?'),
        (["statsu"], 'Did you mean "status"?'),
        (["queue", "lsit"], 'Did you mean "list"?'),
        (["dead", "lst"], 'Did you mean "list"?'),
        (["smtp", "check", "--jsn"], "Did you mean --json?"),
        (["run", "--brust"], "Did you mean --burst?"),
        (["completion", "tcsh"], "Choose from"),
    ],
)
def test_a_word_that_does_not_exist_is_answered_with_the_one_that_does(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, and nothing else is done."""
    shown = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        app(words, error_console=Console(file=shown, width=200))

    assert ended.value.code
    assert said in shown.getvalue()
    assert capsys.readouterr().out == ""


def test_a_word_that_does_not_exist_ends_with_2() -> None:
    """What is said about it is on standard error."""
    done = trio_worker("enqeue")

    assert (done.returncode, done.stdout) == (2, "")
    assert 'Did you mean "enqueue"?' in done.stderr
