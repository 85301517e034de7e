"""The import rule: modules know only what lies below them, and pure modules know no I/O."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_contracts_of_import_linter_hold() -> None:
    """Read from pyproject.toml; every module has its place in the layers."""
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
    assert "3 kept, 0 broken" in checked.stdout
