"""Pure. The digest of the settings, by which workers see that theirs differ."""

from __future__ import annotations

import hashlib

from trio_worker.settings.record import KEYS, Settings, value_of


def digest_of(settings: Settings) -> str:
    """Return four hexadecimal digits that differ for different settings; secrets are not part of them.

    Keys that may differ between workers are left out as well: the address of metrics, the log and the journal.
    """
    shown = [
        f"{key.dotted}={value_of(settings, key.dotted)!r}"
        for key in KEYS.values()
        if not key.option.secret and key.section not in {"metrics", "log"} and key.dotted != "queue.journal_dir"
    ]
    shown += [repr(sorted(settings.mail.types.items())), *map(repr, settings.replies)]
    return hashlib.sha256("\n".join(shown).encode()).hexdigest()[:4]
