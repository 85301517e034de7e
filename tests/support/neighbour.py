"""Another user of this machine, played by a process with another uid: root may become one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

# nobody, on most systems. No entry in the password database is needed.
NEIGHBOUR = 65534

needs_a_neighbour = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def planted_by_a_neighbour(script: str, folder: Path) -> None:
    """Run a shell script in a folder as another user, without any of our rights."""
    done = as_neighbour(["/bin/sh", "-c", script], folder)
    assert done.returncode == 0, done.stderr


def as_neighbour(command: list[str], folder: Path | str) -> subprocess.CompletedProcess[str]:
    """Run a program as another user."""
    return subprocess.run(
        command,
        cwd=folder,
        user=NEIGHBOUR,
        group=NEIGHBOUR,
        extra_groups=[],
        umask=0,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
