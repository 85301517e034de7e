"""Edge. The audit log: who did what with a command, one line each in the log or else on standard error."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence

from trio_worker.cli.output import complain
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.logbook import open_logbook


def user_name() -> str:
    """Return the name of the person at this terminal, empty where the system knows none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry in the password database; a KeyError before Python 3.13
        return ""


def log_reveal(settings: Settings, command: str, what: Sequence[str]) -> None:
    """Leave a line in the log, or else on standard error, that somebody was shown addresses or bodies."""
    log_action(settings, "Revealed", {"command": command, "jobs": " ".join(what)})


def log_action(settings: Settings, what: str, fields: Mapping[str, str]) -> None:
    """Leave a line in the log, or else on standard error, of what somebody did."""
    told = {"who": user_name() or "unknown", **fields}
    try:
        with open_logbook(settings.log, to_terminal=True) as logbook:
            logbook.audit(what, told)
    except OSError as error:
        complain(f"log.file: {settings.log.file}: {error.strerror}: {told}")
