"""Pure. Options of Redis. A module by itself, so that its client is not needed to read them."""

from __future__ import annotations

from attrs import frozen

from trio_worker.option import option


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
