"""Pure. Options of Redis. A module by itself, so that its client is not needed to read them."""

from __future__ import annotations

from trio_worker.option import option
from trio_worker.records import frozen


@frozen
class RedisOptions:
    """Where the queue lives (config section ``[redis]``)."""

    url: str = option(
        "embedded:var/valkey",
        "Redis URL: redis[s]://, unix://, redis+sentinel://HOSTS/NAME, redis+cluster://HOSTS, embedded:DIR.",
    )
    username: str = option("", "User name for Redis; empty: the default user.")
    password: str = option("", "Password for Redis. It is safer in a file that password_file names.", secret=True)
    ca_file: str = option("", "File with the certificate authorities for rediss://; empty: those of the system.")
    cert_file: str = option("", "Certificate of this client for rediss://, if the server asks for one (PEM).")
    key_file: str = option("", "Private key of cert_file (PEM, not encrypted); empty: it is in cert_file.")
    sentinel_username: str = option("", "User name for the Sentinels; empty: their default user.")
    sentinel_password: str = option(
        "", "Password for the Sentinels, which have a login of their own; empty: they ask for none.", secret=True
    )
