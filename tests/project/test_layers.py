"""The import rule: packages know only what lies below them, and pure modules know no I/O."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.paths import ROOT

PACKAGE = ROOT / "trio_worker"


def test_the_contracts_of_import_linter_hold() -> None:
    """Read from pyproject.toml; every package, and every module in one, has its place in the layers."""
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    assert "21 kept, 0 broken" in checked.stdout


def test_what_says_that_it_is_pure_is_held_to_it() -> None:
    """The lists of pure modules name exactly the files that begin with ``Pure.``, but for jobs and mail, held whole."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = document["tool"]["importlinter"]["contracts"]
    named = [
        module
        for contract in contracts
        if contract["name"].startswith("pure modules")
        for module in contract["source_modules"]
    ]
    whole = next(each["source_modules"] for each in contracts if each["name"] == "jobs and mail do no I/O")

    says_so = [path for path in PACKAGE.rglob("*.py") if path.read_text("utf-8").startswith('"""Pure. ')]
    pure = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in says_so]
    assert sorted(named) == sorted(name for name in pure if name.rpartition(".")[0] not in whole)
