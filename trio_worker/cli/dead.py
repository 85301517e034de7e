"""Trio. ``dead`` and ``held``: jobs that are not sent, why, and how to send them after all.

A person who finds that a held mail arrived drops it; one who finds that it did not retries it.
"""

from __future__ import annotations

from trio_worker.cli.shelf import Wording, shelf_app

dead = shelf_app(
    Wording("dead", "dead letter", "dead letters"), "Dead letters: what they are, why they died, and back with them."
)
held = shelf_app(
    Wording("held", "held job", "held jobs"), "Held jobs: mails that may have arrived, of types that are held then."
)
