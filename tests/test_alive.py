"""What the end of each run of the tests proves by: that a process which was left behind would be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.alive import alive, still_alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and waits on pidfds")
CAT = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.mark.parametrize("told_by", ["variable", "folder"])
def test_a_process_that_was_left_behind_is_found(told_by: str, tmp_path: Path) -> None:
    """By the variable, wherever it works; by its folder, also if that is gone and the variable was not passed on."""
    folder = tmp_path / "folder"
    folder.mkdir()
    variables = {**os.environ, "LEFT_BEHIND": "1"} if told_by == "variable" else os.environ
    works_in = "/" if told_by == "variable" else folder
    with subprocess.Popen(CAT, stdin=subprocess.PIPE, env=variables, cwd=works_in) as process:
        assert process.stdin is not None
        folder.rmdir()
        found = still_alive("LEFT_BEHIND", tmp_path, 0.05)
        process.stdin.close()
        left = still_alive("LEFT_BEHIND", tmp_path, 60)

    assert found == {process.pid: " ".join(CAT)}
    assert left == {}


def test_this_process_is_not_taken_for_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the variable, and it may work in the folder."""
    monkeypatch.setenv("LEFT_BEHIND", "1")
    monkeypatch.chdir(tmp_path)

    assert alive("LEFT_BEHIND", tmp_path) == {}
