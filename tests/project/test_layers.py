"""The import rule: packages know only what lies below them, and pure modules know no I/O."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

PACKAGE = ROOT / "trio_worker"
PACKAGES = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def contracts() -> list[dict[str, Any]]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: list[dict[str, Any]] = document["tool"]["importlinter"]["contracts"]
    return found


def public_names(path: Path) -> Iterator[str]:
    """Give the names that a module defines for others: functions, classes, constants and types."""
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found = [name]
            case ast.AnnAssign(target=ast.Name(id=name)):
                found = [name]
            case ast.Assign(targets=targets):
                found = [target.id for target in targets if isinstance(target, ast.Name)]
            case _:
                found = []
        yield from (name for name in found if not name.startswith("_"))


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
    assert f"{len(contracts())} kept, 0 broken" in checked.stdout


def test_what_says_that_it_is_pure_is_held_to_it() -> None:
    """The lists of pure modules name exactly the files that begin with ``Pure.``, but for jobs and mail, held whole."""
    named = [
        module
        for contract in contracts()
        if contract["name"].startswith("pure modules")
        for module in contract["source_modules"]
    ]
    whole = next(each["source_modules"] for each in contracts() if each["name"] == "jobs and mail do no I/O")

    says_so = [path for path in PACKAGE.rglob("*.py") if path.read_text("utf-8").startswith('"""Pure. ')]
    pure = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in says_so]
    assert sorted(named) == sorted(name for name in pure if name.rpartition(".")[0] not in whole)


def test_the_design_quotes_each_charter() -> None:
    """The table of packages in docs/design.md, and the first line of each package, say the same."""
    rows = re.findall(
        r"^\| \[(\w+)\]\(\.\./trio_worker/\1\) \| (.+) \|$", (ROOT / "docs/design.md").read_text("utf-8"), re.MULTILINE
    )
    first_lines = {
        path.name: (ast.get_docstring(ast.parse((path / "__init__.py").read_text("utf-8"))) or "").partition("\n")[0]
        for path in PACKAGES
    }

    assert dict(rows) == {name: re.sub(r"^(Edge|Trio)\. ", "", line) for name, line in first_lines.items()}


def test_no_public_name_means_two_things() -> None:
    """A name that two modules define is two things to a reader who searches for it."""
    modules = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in public_names(path):
            modules[name].add(str(path.relative_to(PACKAGE)))

    assert len(modules) > 1000
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}
