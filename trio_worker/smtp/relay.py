"""Edge. The relay to send to: its options, timeouts and TLS context; awaits nothing."""

from __future__ import annotations

import ssl

from trio_worker.records import frozen
from trio_worker.smtp.options import RelayOptions, Timeouts


@frozen
class Relay:
    """What is needed to connect to one relay.

    ``needs_smtputf8``: no mail can be sent without SMTPUTF8, because our sender address is not ASCII.
    """

    options: RelayOptions
    timeouts: Timeouts
    tls: ssl.SSLContext
    needs_smtputf8: bool = False


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
    context.hostname_checks_common_name = False  # only a subject alternative name is one (RFC 9525, 2)
    return context
