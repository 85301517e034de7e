"""``demo``: what it says at its end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trio_worker.cli.demo import where_the_program_is


@pytest.mark.parametrize(("path", "told"), [("bin", ""), ("other", " (trio-worker is bin/trio-worker)")])
def test_the_commands_that_are_named_at_the_end_can_be_found(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch, path: str, told: str
) -> None:
    """tools/demo runs a program that is not on PATH: then it says where it is."""
    program = work_folder / "bin" / "trio-worker"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", str(work_folder / path))
    monkeypatch.setattr(sys, "argv", [str(program)])

    assert where_the_program_is() == told
