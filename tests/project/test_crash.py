"""The proofs of tools/crash, shortened: they run, they find nothing, and what they count adds up."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

TOOLS = ROOT / "tools"
ROW = re.compile(
    r"^(?P<call>\w+) +(?P<points>\d+) +(?P<lost>\d+) +(?P<duplicated>\d+) +(?P<uncertain>\d+)$", re.MULTILINE
)


def printed(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.case("A1", "E1")
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: tools/crash installs it on Debian, as root")
def test_a_kill_at_any_call_that_sends_loses_nothing() -> None:
    """Each point was passed, and duplicates are counted."""
    rows = list(ROW.finditer(printed(str(TOOLS / "crash_points.py"), "--calls", "sendto", "sendmsg")))
    assert len(rows) == 2
    assert sum(int(row["points"]) for row in rows) >= 20
    for row in rows:
        assert int(row["lost"]) == 0
        assert int(row["duplicated"]) <= int(row["uncertain"])


@pytest.mark.slow
@pytest.mark.case("E15")
@pytest.mark.parametrize("depth", ["1", "8"])
def test_random_faults_lose_nothing(depth: str) -> None:
    """A minute of the nemesis with its own verdict."""
    words = ("--minutes", "1", "--jobs", "2000", "--seed", "7", "--depth", depth)
    assert "holds" in printed(str(TOOLS / "nemesis.py"), *words)
