"""Pure. Options of the relay and its connections. A module by itself, so that trio is not needed to read them."""

from __future__ import annotations

import re

from trio_worker.option import option
from trio_worker.records import frozen

# Names that are the same on every machine.
_NOBODY = re.compile(r"(.*\.)?localhost(\.localdomain)?", re.IGNORECASE)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_FULL_NAME = re.compile(rf"(?=.{{1,255}}$){_LABEL}(?:\.{_LABEL})+")


@frozen
class RelayOptions:
    """The relay that accepts the mail (config section ``[smtp]``)."""

    host: str = option("127.0.0.1", "Host name or IP address of the relay.")
    port: int = option(
        1025, "Port of the relay, usually 587 for starttls and 465 for implicit.", minimum=1, maximum=65535
    )
    tls: str = option(
        "starttls",
        "TLS mode: starttls, implicit, or none for a relay on this machine.",
        choices=("starttls", "implicit", "none"),
    )
    username: str = option("", "User name for the login at the relay; empty: no login.")
    password: str = option(
        "", "Password for the login at the relay. It is safer in a file that password_file names.", secret=True
    )
    ca_file: str = option(
        "", "File with the certificate authorities for the relay's certificate; empty: those of the system."
    )
    ehlo_name: str = option(
        "", "Name of this machine in EHLO; empty: its full host name, or its IP address if it has none."
    )
    ignore_ehlo: tuple[str, ...] = option(
        (), "SMTP extensions that are not used even if the relay offers them, for example CHUNKING or PIPELINING."
    )
    allow_real_relay: bool = option(
        default=False, help_text="Whether profile dev may send to a relay that is not on this machine."
    )
    only_to: str = option(
        "",
        "Regular expression that the whole recipient address must match to get a mail; empty: all get mail.",
    )

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password, or None without a login."""
        return (self.username, self.password) if self.username else None


@frozen
class Timeouts:
    """Timeouts of the SMTP client (config section ``[smtp.timeouts]``)."""

    connect_seconds: float = option(
        30.0, "Timeout for opening a connection: DNS lookup, TCP, TLS, greeting and login together.", minimum=0.001
    )
    command_seconds: float = option(
        60.0, "Timeout for the reply to a command, and for sending a part of a mail.", minimum=0.001
    )
    final_reply_seconds: float = option(
        300.0, "Timeout for the reply after a whole mail. A short timeout can cause duplicates.", minimum=0.001
    )


@frozen
class PoolOptions:
    """Size of the connection pool and lifetime of a connection (config section ``[smtp.pool]``)."""

    max_size: int = option(10, "Maximum number of connections to the relay that this process opens.", minimum=1)
    min_idle: int = option(2, "Number of connections that stay open while there is nothing to send.", minimum=0)
    pipeline_depth: int = option(
        1,
        "Maximum number of mails in flight on one connection. More than 1 is faster with a distant relay.",
        minimum=1,
        maximum=1000,
    )
    idle_seconds: float = option(
        60.0, "Idle time after which a connection is closed, unless only min_idle connections are open.", minimum=0
    )
    max_lifetime_seconds: float = option(
        300.0, "Maximum age of a connection. An older connection is closed.", minimum=1
    )
    max_messages: int = option(
        1000, "Maximum number of mails over one connection. Then the connection is closed.", minimum=1
    )
    max_uncertain: int = option(
        64, "Maximum number of mails that are uncertain if a connection is lost. Limits pipeline_depth.", minimum=1
    )

    @property
    def depth(self) -> int:
        """The most messages in flight at once on one connection."""
        return min(self.pipeline_depth, self.max_uncertain)


def is_full_name(name: str) -> bool:
    """Whether a name has a domain and is not that of every machine, so that it can be a name in EHLO."""
    return _FULL_NAME.fullmatch(name) is not None and _NOBODY.fullmatch(name) is None
