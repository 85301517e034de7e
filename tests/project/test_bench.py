"""tools/bench, shortened: it runs, every mail of every contender comes, and its table says what it measured."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bench
from against import Comparison, figure
from commands import COMMANDS
from ground import Contender, Ground, free_port
from proving_ground import Valkey
from versions import HERE, ROOT, Version, build

BENCH = ROOT / "tools" / "bench_parts" / "bench.py"


def make_tree(folder: Path, *, counts_jobs: bool) -> Version:
    """A tree with only the files that show how it understands ``number_workers``."""
    (folder / "trio_worker").mkdir(parents=True)
    if counts_jobs:
        (folder / "trio_worker" / "crew.py").touch()
    return Version(folder.name, folder, Path(sys.executable))


@pytest.mark.parametrize(("depth", "jobs", "tasks"), [(1, 40, 20), (64, 640, 10), (128, 1280, 10)])
def test_each_version_is_configured_as_it_understands_its_settings(
    tmp_path: Path, depth: int, jobs: int, tasks: int
) -> None:
    """As jobs at work for versions with ``crew.py``, else as tasks with several jobs each; nothing else differs."""
    ground = Ground(tmp_path / "ground", Valkey(tmp_path, free_port()), None)
    ground.folder.mkdir()
    found = {}
    for name, counts_jobs in (("before", True), ("after", False)):
        version = make_tree(tmp_path / name, counts_jobs=counts_jobs)
        config = ground.write_config(Contender(name, depth=depth, version=version), 2525)
        assert config == ground.config_of(version)
        found[name] = tomllib.loads(config.read_text("utf-8").replace(str(config.parent), ""))

    assert found["before"].pop("number_workers") == jobs
    assert found["after"].pop("number_workers") == tasks
    assert found["before"] == found["after"]
    assert found["after"]["smtp"]["pool"]["max_size"] == 10


def test_a_version_without_a_crew_says_whether_it_counts_jobs(tmp_path: Path) -> None:
    """As those did that were before there was one."""
    version = make_tree(tmp_path / "first", counts_jobs=False)
    page = version.tree / "docs" / "configuration.md"
    page.parent.mkdir()

    page.write_text("| `number_workers` | `10` | Tasks that send. |")
    assert not version.counts_jobs
    page.write_text("| `number_workers` | `10` | Jobs at work at once, those that only wait to be settled left out. |")
    assert version.counts_jobs


def test_a_figure_has_the_medians_and_the_spread_of_the_ratios() -> None:
    """The ratio is that of rounds, for a slow one is slow for both; both columns are there, in Markdown as well."""
    rounds = [([1000.0], [2000.0]), ([3000.0], [3000.0]), ([900.0], [1000.0])]
    found = figure("mails/s", ",.0f", rounds, statistics.median)
    comparison = Comparison("new", "old", [], [found])

    assert (found.this, found.other, found.ratio, found.least, found.most) == (1000, 2000, 0.9, 0.5, 1)
    assert comparison.table(is_markdown=False).splitlines() == [
        "figure   this (new)    old  this/other  in the rounds",
        "mails/s       1,000  2,000        0.90   0.50 to 1.00",
    ]
    assert comparison.table(is_markdown=True).splitlines()[-1] == "| mails/s | 1,000 | 2,000 | 0.90 | 0.50 to 1.00 |"


@pytest.mark.slow
def test_two_versions_are_measured_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both trees run, and each figure has both columns; what was written can be shown again."""
    starts, kept = tmp_path / "starts", tmp_path / "found.json"
    other = Version("before", tmp_path / "tree", HERE.python)
    shutil.copytree(ROOT / "trio_worker", other.tree / "trio_worker")
    with (other.tree / "trio_worker" / "__init__.py").open("a", encoding="utf-8") as code:
        code.write(f"with open({str(starts)!r}, 'a') as starts:\n    starts.write('.')\n")
    monkeypatch.setattr(bench, "build", lambda _commit: other)
    words = "--against any --mails 400 --rounds 1 --round-trips 0 --pushes 10 --json"
    monkeypatch.setattr(sys, "argv", ["bench", *words.split(), str(kept)])

    assert bench.main() == 0
    shown = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["bench", "--from", str(kept)])
    assert bench.main() == 0

    assert shown.endswith(capsys.readouterr().out)
    assert starts.read_text("utf-8") == "...."  # to warm up, deep, at depth 1, idle
    comparison = Comparison.from_json(json.loads(kept.read_text("utf-8")))
    assert [each.reason for each in comparison.figures] == [
        "mails/s, deep at 0 ms",
        "mails/s, depth 1 at 0 ms",
        "CPU s for 1,000 mails, deep at 0 ms",
        "Redis commands a mail, deep at 0 ms",
        "Redis commands a mail, depth 1 at 0 ms",
        "peak MB of any run",
        "idle, push to 250, p50, ms",
        "idle, push to 250, p99, ms",
    ]
    assert all(each.this > 0 and each.other > 0 for each in comparison.figures)
    assert all(len(pair) == 2 for each in comparison.figures for pair in each.rounds)


@pytest.mark.slow
def test_commands_of_two_versions_are_measured_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command runs and has its row, and so has the start of a worker."""
    other = Version("before", tmp_path / "tree", HERE.python)
    shutil.copytree(ROOT / "trio_worker", other.tree / "trio_worker")
    monkeypatch.setattr(bench, "build", lambda _commit: other)
    monkeypatch.setattr(sys, "argv", ["bench", *["--against", "any", "--commands", "--rounds", "1"]])

    assert bench.main() == 0

    shown = capsys.readouterr().out
    for what in (*COMMANDS, "run, to its first claim"):
        assert re.search(rf"^{re.escape(what)}, ms +[0-9]+ +[0-9]+ ", shown, re.MULTILINE), shown


@pytest.mark.slow
def test_a_commit_is_built_with_an_environment_of_its_own(tmp_path: Path) -> None:
    """Its worker is that of its tree; a second call makes nothing."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the history")

    version = build("HEAD", tmp_path)
    made = version.python.parent.parent / "made"
    before = made.stat().st_mtime_ns
    assert build("HEAD", tmp_path) == version
    code = "import trio_worker; print(trio_worker.__file__)"
    command = [str(version.python), "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=version.environment, capture_output=True, text=True, check=True)

    assert made.stat().st_mtime_ns == before
    assert version.tree.is_relative_to(tmp_path / f"bench-{version.name}")
    assert done.stdout.strip() == str(version.tree / "trio_worker" / "__init__.py")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--tls"]])
def test_the_benchmark_measures_each_contender(tmp_path: Path, more: list[str]) -> None:
    """In clear and under TLS; rates are positive, and trio_worker asks Redis seldom."""
    found = tmp_path / "found.json"
    words = [
        "--mails",
        "400",
        "--rounds",
        "1",
        "--round-trips",
        "0",
        "--only",
        "pool",
        "trio_worker",
        "--json",
        str(found),
    ]
    done = subprocess.run([sys.executable, str(BENCH), *words, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = json.loads(found.read_text("utf-8"))["0"]
    assert runs.keys() == {"aiosmtplib pool", "trio_worker depth 1", "trio_worker deep"}
    assert all(run["rate"] > 0 for run in runs.values())
    assert runs["trio_worker deep"]["redis_commands_per_mail"] < 0.5
