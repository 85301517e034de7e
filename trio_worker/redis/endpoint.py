"""Pure. What a client needs to reach one server: its address, login and database, from the settings."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from trio_worker.records import frozen
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.url import REDIS_PORT, RedisUrl


@frozen
class Endpoint:
    """The address of a server, a host with its port or the path of a Unix socket, and how to log in there."""

    host: str
    port: int
    path: str = ""
    is_tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password: str = ""
    database: int = 0
    client_name: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"


def endpoint_of(url: RedisUrl, options: RedisOptions) -> Endpoint:
    """Return the endpoint of the URL's first node; the login of the options comes before that of the URL."""
    parts = urlsplit(url.plain)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    is_unix = parts.scheme == "unix"
    path = "" if is_unix else parts.path.removeprefix("/")
    return Endpoint(
        host="" if is_unix else parts.hostname or "",
        port=0 if is_unix else parts.port or REDIS_PORT,
        path=unquote(parts.path) if is_unix else "",
        is_tls=parts.scheme == "rediss",
        ca_file=options.ca_file,
        cert_file=options.cert_file,
        key_file=options.key_file,
        username=options.username or unquote(parts.username or "") or query.get("username", ""),
        password=options.password or unquote(parts.password or "") or query.get("password", ""),
        database=int(query.get("db") or path or 0),
        client_name=query.get("client_name", ""),
    )
