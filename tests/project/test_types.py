"""What the type checker holds: records that are frozen for it alone."""

from __future__ import annotations

from pathlib import Path

from mypy import api

ASSIGNMENT = """
from trio_worker.queue.claim import Claim
from trio_worker.smtp.envelope import Envelope


def change(claim: Claim, envelope: Envelope) -> None:
    claim.token = ""
    envelope.sender = ""
"""


def test_the_type_checker_refuses_an_assignment(tmp_path: Path) -> None:
    module = tmp_path / "change.py"
    module.write_text(ASSIGNMENT)
    said, _, status = api.run(["--strict", "--cache-dir", str(tmp_path / "cache"), str(module)])
    assert status == 1
    assert 'change.py:7: error: Property "token" defined in "Claim" is read-only' in said
    assert 'change.py:8: error: Property "sender" defined in "Envelope" is read-only' in said
