"""Packages of npm, in pinned versions, installed in a folder of the test run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers.once import made_once


def npm_packages(run_folder: Path, *packages: str) -> Path:
    """Return the folder ``node_modules`` with these packages; the test is skipped where they cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js with npm")

    def install(folder: Path) -> str:
        # No script of a package runs: none of these needs one.
        done = subprocess.run(
            ["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", "--ignore-scripts", *packages],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        return "" if done.returncode == 0 else f"npm cannot install {' '.join(packages)}: {done.stderr[-300:]}"

    name = "-".join(packages).replace("/", "_").replace("@", "_")
    return made_once(run_folder / f"npm-{name}", install) / "node_modules"
