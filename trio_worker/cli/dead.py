"""Trio. ``dead``: the jobs that cannot be sent, why, and how to send them after all."""

from __future__ import annotations

from trio_worker.cli.shelf import Wording, shelf_app

dead = shelf_app(
    Wording("dead", "dead letter", "dead letters"), "Dead letters: what they are, why they died, and back with them."
)
