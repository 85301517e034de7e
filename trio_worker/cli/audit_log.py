"""Edge. The audit log: a line for each command that reveals addresses or sends by hand, with the user who ran it.

A separate module, because many commands use it and nothing else in them needs the log.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from trio_worker.cli.exit_codes import MISCONFIGURED
from trio_worker.cli.output import refuse
from trio_worker.own_files import UntrustedPathError
from trio_worker.printing import complain
from trio_worker.settings.reader import Settings


def user_name() -> str:
    """Return the login name of the user at this terminal, empty if the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry in the password database; a KeyError before Python 3.13
        return ""


def configured_log(settings: Settings) -> str:
    """Return the path of the worker's log, wherever this command runs; empty for standard error.

    A worker runs in the folder of its configuration, or, if that is named conf, in the folder above it. If there is no
    log, but one in the working directory, the worker runs here.
    """
    file = Path(settings.log.file)
    if not settings.log.file or file.is_absolute() or not settings.file:
        return settings.log.file
    folder = Path(settings.file).absolute().parent
    of_the_worker = (folder.parent if folder.name == "conf" else folder) / file
    return str(file if file.exists() and not of_the_worker.exists() else of_the_worker)


def log_reveal(settings: Settings, command: str, job_ids: Sequence[str]) -> None:
    """Log that a command showed addresses or bodies of jobs."""
    log_action(settings, "Revealed", {"command": command, "jobs": " ".join(job_ids)})


def log_action(settings: Settings, event: str, fields: Mapping[str, str]) -> None:
    """Log an action of the user, with its fields; on standard error if the log cannot be written."""
    # Imported here, because most calls of a command reveal nothing, and the log knows all events.
    from trio_worker.telemetry.logbook import open_logbook  # noqa: PLC0415

    entry = {"who": user_name() or "unknown", **fields}
    try:
        with open_logbook(evolve(settings.log, file=configured_log(settings)), to_terminal=True) as logbook:
            logbook.audit(event, entry)
    except UntrustedPathError as error:
        refuse(MISCONFIGURED, f"log.file: {error.strerror}")
    except OSError as error:
        complain(f"log.file: {configured_log(settings)}: {error.strerror}: {entry}")
