"""Trio. ``held``: the mails that may have been delivered and that a person decides about.

A person who finds that a mail arrived drops it; one who finds that it did not retries it.
"""

from __future__ import annotations

from trio_worker.cli.shelf import Wording, shelf_app

held = shelf_app(
    Wording("held", "held job", "held jobs"), "Held jobs: mails that may have arrived, of types that are held then."
)
