"""The versions of trio_worker to run: the version of these tools, and any other commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent
# How versions explained the setting while it was the most jobs at work.
_JOBS_AT_WORK = "Jobs at work at once, those that only wait to be settled left out."
_INSTALLERS = {"pip", "setuptools"}


@frozen
class Version:
    """The code of trio_worker in a tree, and the Python that has what it needs."""

    name: str
    tree: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        environment = {**os.environ, "PYTHONPATH": str(self.tree)}
        # An installed worker is compiled; a checkout is by its first run, if that may be kept.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    @property
    def counts_jobs(self) -> bool:
        """Whether ``number_workers`` is the most jobs at work; else it is the tasks that each have some.

        The first had a crew that saw jobs off, and before that said what the setting is, both of which ended with it.
        """
        page = self.tree / "docs" / "configuration.md"
        has_crew = (self.tree / "trio_worker" / "crew.py").exists()
        return has_crew or (page.exists() and _JOBS_AT_WORK in page.read_text("utf-8"))


HERE = Version("this", ROOT, Path(sys.executable))


def build(commit: str, kept: Path = ROOT / ".venv") -> Version:
    """Return that commit, with a virtual environment as its own pyproject asks for, made once and kept."""
    name = _git("rev-parse", "--short=7", "--verify", f"{commit}^{{commit}}").decode().strip()
    folder = kept / f"bench-{name}"
    tree = folder / "tree"
    environment = folder / f"{sys.version_info.major}.{sys.version_info.minor}"
    version = Version(name, tree, environment / "bin" / "python")
    made = environment / "made"
    if not made.exists():
        print(f"preparing {folder}", file=sys.stderr, flush=True)
        tree.mkdir(parents=True, exist_ok=True)
        packed = _git("archive", "--format=tar", name)
        subprocess.run(["tar", "-x", "-C", str(tree)], input=packed, check=True)  # noqa: S607  wherever it is
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [str(version.python), "-m", "pip", "install", "--quiet", "--editable", str(tree)],
        ):
            subprocess.run(command, check=True)
        made.touch()
    return version


def describe() -> str:
    """Return the commit that this tool belongs to, and whether its files are still those."""
    return _git("describe", "--always", "--exclude=*", "--abbrev=7", "--dirty= with changes").decode().strip()


def other_packages(version: Version) -> list[str]:
    """Tell what the version runs with that is not as it is here: it would be measured as well."""
    here, there = _packages(HERE), _packages(version)
    return [
        f"{name} {found}, here {here.get(name, 'none')}" for name, found in there.items() if here.get(name) != found
    ]


def _packages(version: Version) -> dict[str, str]:
    command = [str(version.python), "-m", "pip", "list", "--format=json", "--exclude-editable"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    return {each["name"]: each["version"] for each in json.loads(listed) if each["name"] not in _INSTALLERS}


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True)  # noqa: S607  wherever it is
    if done.returncode:
        raise SystemExit(f"git {words[0]}: {done.stderr.decode().strip()}")
    return done.stdout
