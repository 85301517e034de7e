"""Edge. The relay to send to: its options, timeouts and TLS context; awaits nothing."""

from __future__ import annotations

import ssl

from attrs import frozen

from trio_worker.option import option


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
class Relay:
    """What is needed to connect to one relay."""

    options: RelayOptions
    timeouts: Timeouts
    tls: ssl.SSLContext


def tls_context(options: RelayOptions) -> ssl.SSLContext:
    """Return the TLS context for the relay: certificate and host name are always checked, TLS 1.2 is the minimum.

    Raises OSError or ssl.SSLError for a ``ca_file`` without certificates.
    """
    if options.tls == "none" and not options.ca_file:
        # Never used, and trusts no certificate: loading those of the system takes 5 % of the start.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context(cafile=options.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
