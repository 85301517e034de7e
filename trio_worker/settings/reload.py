"""Pure. Reload: which changes of the settings a running worker takes over, and which need a restart."""

from __future__ import annotations

from attrs import evolve

from trio_worker.records import frozen
from trio_worker.settings.reader import KEYS, Settings, value_of

# The login and the limits; all other keys need a restart.
_AT_ONCE = frozenset({
    *("number_workers", "smtp.username", "smtp.password"),
    *("queue.max_deliveries", "queue.max_job_bytes", "queue.dead_limit"),
    *(dotted for dotted, key in KEYS.items() if key.section in {"smtp.pool", "retry"}),
})  # fmt: skip


@frozen
class SettingsChange:
    """The result of a reload.

    ``settings`` are in force from now on; ``taken`` has their changes, as ``key before -> after``; ``waiting`` has the
    keys whose change needs a restart. Neither contains a secret or a login.
    """

    settings: Settings
    taken: tuple[str, ...]
    waiting: tuple[str, ...]


def changes_of(before: Settings, after: Settings) -> SettingsChange:
    """Return the changes that a worker with the settings ``before`` takes over from ``after``."""
    changed = [dotted for dotted in KEYS if value_of(before, dotted) != value_of(after, dotted)]
    taken = [dotted for dotted in changed if dotted in _AT_ONCE]
    queue = evolve(
        before.queue,
        max_deliveries=after.queue.max_deliveries,
        max_job_bytes=after.queue.max_job_bytes,
        dead_limit=after.queue.dead_limit,
    )
    smtp = evolve(before.smtp, username=after.smtp.username, password=after.smtp.password)
    in_force = evolve(
        before,
        number_workers=after.number_workers,
        queue=queue,
        smtp=smtp,
        smtp_pool=after.smtp_pool,
        retry=after.retry,
        replies=after.replies,
    )
    # A login may be an address, and these texts go to the log.
    words = tuple(
        f"{dotted} changed"
        if KEYS[dotted].option.secret or KEYS[dotted].section == "smtp"
        else f"{dotted} {value_of(before, dotted)} -> {value_of(after, dotted)}"
        for dotted in taken
    )
    if before.replies != after.replies:
        words += (f"{len(after.replies)} rules in [[replies]]",)
    waiting = [dotted for dotted in changed if dotted not in _AT_ONCE]
    waiting += ["mail.types"] if before.mail.types != after.mail.types else []
    return SettingsChange(in_force, words, tuple(waiting))
