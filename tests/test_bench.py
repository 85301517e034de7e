"""tools/bench, shortened: it runs, every mail of every contender comes, and its table says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "tools" / "bench_parts" / "bench.py"


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
