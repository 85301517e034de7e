"""tools/bench, shortened: it runs, every mail of every contender comes, and its table says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ground import Contender, Ground, free_port
from proving_ground import Valkey
from versions import ROOT, Version

BENCH = ROOT / "tools" / "bench_parts" / "bench.py"


def make_tree(folder: Path, *, counts_jobs: bool) -> Version:
    """A tree of which nothing is there but what tells how it understands ``number_workers``."""
    (folder / "trio_worker").mkdir(parents=True)
    if counts_jobs:
        (folder / "trio_worker" / "crew.py").touch()
    return Version(folder.name, folder, Path(sys.executable))


@pytest.mark.parametrize(("depth", "jobs", "tasks"), [(1, 40, 20), (64, 640, 10), (128, 1280, 10)])
def test_each_version_is_configured_as_it_understands_its_settings(
    tmp_path: Path, depth: int, jobs: int, tasks: int
) -> None:
    """The jobs at work where a crew saw them off, else tasks that have so many; nothing else differs."""
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
