"""Edge. A login whose password is not known in this shell: it is not tried, and it is said how to give the password.

A worker under systemd has its password as a credential, which only the processes of its unit can read. A login with an
empty password would be refused, and some relays count refusals.
"""

from __future__ import annotations

import os

from attrs import evolve

from trio_worker.records import frozen
from trio_worker.settings.reader import Settings
from trio_worker.settings.sources import CREDENTIALS
from trio_worker.smtp.relay import Relay

_NAME = "smtp_password"


@frozen
class MissingPassword:
    """Why the login was not tried, and what would make it possible."""

    why: str

    def __str__(self) -> str:
        return self.why


def missing_password(settings: Settings) -> MissingPassword | None:
    """Return what is missing for the login of the settings; None if nothing is, or there is no login."""
    if settings.smtp.login is None or settings.smtp.password:
        return None
    if os.environ.get(CREDENTIALS):
        return MissingPassword(
            f"the password is not known, so the login was not tried: ${CREDENTIALS} has no {_NAME}; add"
            f" LoadCredential={_NAME}:FILE to the unit, or set smtp.password_file"
        )
    # In the same folder, else the relative path of a configuration would lead nowhere.
    command = f"systemd-run --pipe --wait --same-dir -p LoadCredential={_NAME}:/etc/trio-worker/{_NAME}"
    return MissingPassword(
        "the password is not known here, so the login was not tried: set smtp.password_file, or the variable"
        f" TRIO_WORKER__SMTP__PASSWORD_FILE; if systemd gives it to the worker as the credential {_NAME}, which no"
        f" other shell can read, put this before the command: {command}"
    )


def without_login(relay: Relay) -> Relay:
    """Return the relay as it is used without a login."""
    return evolve(relay, options=evolve(relay.options, username=""))
