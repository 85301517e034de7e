"""The environment that the tools make, with a Python that only writes down what it is asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# It has version 3.12; a venv that it makes has a Python and a trio-worker that write down their arguments, too.
PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) echo 3.12 ;;
  "-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && cp "$0" "$4/bin/trio-worker" ;;
  *) echo "$(basename "$0") $*" >> "$ASKED" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the tools and a Python of its own."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("corpus", "*.py", "bench_parts"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "fake-python").write_text(PYTHON)
    (tmp_path / "fake-python").chmod(0o755)
    return tmp_path


def run(checkout: Path, command: str) -> tuple[str, list[str]]:
    """Return what was printed on standard error, and what the Pythons and the program were asked to do."""
    asked = checkout / "asked"
    asked.write_text("")
    done = subprocess.run(
        ["bash", "-c", command],  # noqa: S607  wherever it is
        cwd=checkout,
        env={**os.environ, "TRIO_WORKER_PYTHON": str(checkout / "fake-python"), "ASKED": str(asked)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, asked.read_text().splitlines()


def test_the_demo_installs_no_development_tools(checkout: Path) -> None:
    """And says how far it is; the second time it begins at once."""
    said, asked = run(checkout, "tools/demo --jobs 3")
    again = run(checkout, "tools/demo")

    assert [line.split(", ")[1][:6] for line in said.splitlines()] == ["1 of 3", "2 of 3", "3 of 3"]
    assert asked[1:] == ["python -m pip install --quiet --editable .", "trio-worker demo --jobs 3"]
    assert again == ("", ["trio-worker demo"])
    assert (checkout / ".venv" / "3.12-package" / "made-for").exists()


def test_the_demo_uses_the_environment_of_who_develops(checkout: Path) -> None:
    """It has all that the demo needs."""
    _, asked = run(checkout, ". tools/environment")
    demo = run(checkout, "tools/demo")

    assert asked[1:] == ["python -m pip install --quiet --editable . --group dev"]
    assert demo == ("", ["trio-worker demo"])
    assert [path.name for path in (checkout / ".venv").iterdir()] == ["3.12"]
