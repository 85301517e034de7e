"""The versions of trio_worker to run: the version of these tools, and any other commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent
# The text for number_workers in the docs of versions in which it was the most jobs at work.
_JOBS_AT_WORK = "Jobs at work at once, those that only wait to be settled left out."
_INSTALLERS = {"pip", "setuptools"}


@frozen
class Version:
    """A source tree of trio_worker, and a Python with its dependencies."""

    name: str
    tree: Path
    python: Path

    @property
    def environment(self) -> dict[str, str]:
        environment = {**os.environ, "PYTHONPATH": str(self.tree)}
        # An installed worker is compiled to bytecode. A checkout is compiled at its first run, if Python may write it.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    @property
    def counts_jobs(self) -> bool:
        """Whether ``number_workers`` is the most jobs at work; later it is the number of consumer tasks.

        These versions have a module ``crew.py``, or older ones this text in their docs.
        """
        page = self.tree / "docs" / "configuration.md"
        has_crew = (self.tree / "trio_worker" / "crew.py").exists()
        return has_crew or (page.exists() and _JOBS_AT_WORK in page.read_text("utf-8"))


HERE = Version("this", ROOT, Path(sys.executable))


def build(commit: str, kept: Path = ROOT / ".venv") -> Version:
    """Return this commit with a virtual environment for its own dependencies; it is made once and kept."""
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
        subprocess.run(["tar", "-x", "-C", str(tree)], input=packed, check=True)  # noqa: S607  found on PATH
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [str(version.python), "-m", "pip", "install", "--quiet", "--editable", str(tree)],
        ):
            subprocess.run(command, check=True)
        made.touch()
    return version


def describe() -> str:
    """Return the commit of this checkout, and whether its files have changed since."""
    return _git("describe", "--always", "--exclude=*", "--abbrev=7", "--dirty= with changes").decode().strip()


def other_packages(version: Version) -> list[str]:
    """Return the packages of which the version uses other versions than this one: they would be measured too."""
    here, there = _packages(HERE), _packages(version)
    return [
        f"{name} {found}, here {here.get(name, 'none')}" for name, found in there.items() if here.get(name) != found
    ]


def _packages(version: Version) -> dict[str, str]:
    command = [str(version.python), "-m", "pip", "list", "--format=json", "--exclude-editable"]
    listed = subprocess.run(command, check=True, capture_output=True).stdout
    return {each["name"]: each["version"] for each in json.loads(listed) if each["name"] not in _INSTALLERS}


def _git(*args: str) -> bytes:
    done = subprocess.run(["git", *args], cwd=ROOT, check=False, capture_output=True)  # noqa: S607  found on PATH
    if done.returncode:
        raise SystemExit(f"git {args[0]}: {done.stderr.decode().strip()}")
    return done.stdout
