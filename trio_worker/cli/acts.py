"""Trio. What a key on a dashboard or a command does to the queue, and the words for what became of it."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence

from trio_worker.cli.output import complain
from trio_worker.queue.pause import PAUSE_SECONDS, pause_queue, resume_queue
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.logbook import open_logbook
from trio_worker.telemetry.words import duration


def who() -> str:
    """Return the name of the person at this terminal, empty where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry in the password database; a KeyError before Python 3.13
        return ""


def note_reveal(settings: Settings, command: str, what: Sequence[str]) -> None:
    """Leave a line in the log, or else on standard error, that somebody was shown addresses or bodies."""
    note_act(settings, "Revealed", {"command": command, "jobs": " ".join(what)})


def note_act(settings: Settings, what: str, fields: Mapping[str, str]) -> None:
    """Leave a line in the log, or else on standard error, of what somebody did."""
    told = {"who": who() or "unknown", **fields}
    try:
        with open_logbook(settings.log, to_terminal=True) as logbook:
            logbook.audit(what, told)
    except OSError as error:
        complain(f"log.file: {settings.log.file}: {error.strerror}: {told}")


async def pause_words(client: RedisClient, name: str, reason: str) -> str:
    """Pause the queue for as long as nothing else is said, and say so."""
    failed = await pause_queue(client, name, reason, who())
    return f"not paused: {failed.what}" if failed else f"paused for {duration(PAUSE_SECONDS)}; p resumes"


async def resume_words(client: RedisClient, name: str) -> str:
    """End the queue's pause, and say so."""
    was_paused = await resume_queue(client, name)
    if isinstance(was_paused, Unavailable):
        return f"not resumed: {was_paused.what}"
    return "resumed" if was_paused else "the queue was not paused"
