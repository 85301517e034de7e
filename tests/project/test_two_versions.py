"""tools/two_versions, shortened: two versions share one queue, and what the tool counts decides its verdict."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixed_versions import FIRST, Findings, Side, is_alike
from tests.support.paths import ROOT
from versions import HERE, Version

TRIED = {
    "settlements of a journal told",
    "delayed jobs sent",
    "jobs shown in full",
    "leases taken over",
    "dead jobs shown",
    "dead jobs put back",
    "held jobs shown",
    "held jobs put back",
    "retries undone",
    "heartbeats read",
    "orders obeyed",
    "outcomes heard",
    "relay traces heard",
}


def has_first_version() -> bool:
    if shutil.which("git") is None:
        return False
    look = ["git", "cat-file", "-e", f"{FIRST}^{{commit}}"]
    return subprocess.run(look, cwd=ROOT, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.case("E14")
@pytest.mark.skipif(
    not has_first_version(), reason=f"needs the commit {FIRST} (0.1.0): a whole clone, not a shallow one"
)
def test_this_version_and_the_first_one_share_a_queue() -> None:
    """Nothing is lost, duplicates are counted, and each reads, obeys and finishes what the other one left."""
    command = [sys.executable, str(ROOT / "tools" / "mixed_versions.py")]
    words = ("--jobs", "160", "--kills", "2", "--seed", "7", "--json")
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=1800)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["holds"] is True
    assert found["accepted"] == found["delivered"] > 160
    assert (found["lost"], found["unexpected"], found["left"], found["problems"]) == (0, 0, 0, [])
    assert found["duplicated"] <= found["uncertain"]
    assert set(found["kills"]) == set(found["versions"])
    assert found["by"].keys() == TRIED
    for by_version in found["by"].values():
        assert by_version.keys() == set(found["versions"])
        assert all(each["done"] == each["wanted"] > 0 for each in by_version.values())


def sides(folder: Path) -> tuple[Side, Side]:
    other = Version("other", folder, Path(sys.executable))
    return tuple(Side(each, "1.0", folder / "config", folder / f"{each.name}.log") for each in (HERE, other))  # type: ignore[return-value]


def test_what_one_version_cannot_do_is_no_success(tmp_path: Path) -> None:
    """Everything must be done in both directions; a part that was never tried proves nothing."""
    this, other = sides(tmp_path)
    found = Findings()
    assert not found.holds

    found.note("orders obeyed", this, 2, 2)
    assert not found.holds
    found.note("orders obeyed", other, 1, 1)
    assert found.holds
    found.note("heartbeats read", this, 0, 0)
    found.note("heartbeats read", other, 3, 3)
    assert not found.holds
    found.note("heartbeats read", this, 3, 3)
    assert found.holds
    found.note("orders obeyed", other, 0, 1)
    assert not found.holds


def test_a_problem_is_no_success(tmp_path: Path) -> None:
    """With any other counts."""
    found = Findings()
    for side in sides(tmp_path):
        found.note("orders obeyed", side, 1, 1)
    assert found.holds
    found.problems.append("a worker ended with 1")
    assert not found.holds


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"schema": "trio-worker/job/1", "job_id": "a", "attempts": 2}, True),
        ({"schema": "trio-worker/job/2", "job_id": "a", "attempts": 2, "more": 1}, True),
        ({"schema": "trio-worker/job/1", "job_id": "a", "attempts": 3}, False),
        ({"job_id": "a", "cause": {"word": "uncertain", "text": "in other words"}}, True),
        ({"job_id": "a", "cause": {"word": "refused", "text": "its lease ended"}}, False),
        ({}, False),
    ],
)
def test_jobs_are_alike_where_both_versions_say_the_same(other: dict[str, object], *, expected: bool) -> None:
    """A key that only one of them has is no difference; a job that one does not show is one."""
    cause = {"word": "uncertain", "text": "its lease ended"}
    this = {"schema": "trio-worker/job/1", "job_id": "a", "attempts": 2, "cause": cause}
    assert is_alike(this, other) is expected


def test_a_version_says_in_its_log_what_it_buried(tmp_path: Path) -> None:
    """As people read it, and as JSON."""
    this, _ = sides(tmp_path)
    assert this.buried() == set()
    this.log.write_text(
        'timestamp=2026-11-28T17:54:30Z level=warning event="Buried job" job_id=01m8 email_type=Registration\n'
        '{"level": "warning", "event": "Buried job", "job_id": "01m9"}\n'
        'timestamp=2026-11-28T17:54:30Z level=info event="Completed job" job_id=01ma\n'
    )
    assert this.buried() == {"01m8", "01m9"}
