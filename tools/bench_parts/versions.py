"""The versions of trio_worker that are measured: the one that this tool belongs to, and any commit beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent.parent
# How versions explained the setting while it was the most jobs at work.
_JOBS_AT_WORK = "Jobs at work at once, those that only wait to be settled left out."


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
