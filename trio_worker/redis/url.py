"""Pure. Redis URLs: one address, Sentinels, nodes of a cluster, or the directory of an embedded server."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from trio_worker.records import frozen

REDIS_PORT = 6379
_OPTIONS = frozenset({"db", "protocol", "username", "password", "client_name"})
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
SENTINEL_PORT = 26379
SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
SCHEME = "embedded:"
LAST_PORT = 65535


class Way(StrEnum):
    """The ways to find the server that takes our writes."""

    DIRECT = "direct"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@frozen
class RedisUrl:
    """A valid Redis URL.

    ``nodes``: its hosts and ports, in order. ``service``: the primary's name at the Sentinels. ``plain``: a URL of the
    first node in the form of redis-py, with login, database and query.
    """

    way: Way
    plain: str
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""


@frozen
class RedisUrlFault:
    """Why a Redis URL cannot be used; ``reason`` never repeats a password."""

    reason: str


class RedisUrlError(ValueError):
    """The Redis URL cannot be used; the message says why, without the password."""


def parse_redis_url(url: str) -> RedisUrl | RedisUrlFault:
    """Parse ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+sentinel://`` or ``redis+cluster://``.

    The last two have several hosts, separated by commas, and also exist with ``rediss``. The path of
    ``redis+sentinel://`` is the name of the primary, and after it there may be the database: ``/mymaster/0``.
    """
    whole, authority, path, query = _split(url)
    if whole not in SCHEMES:
        return RedisUrlFault("must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    if whole == "unix":
        return RedisUrl(Way.DIRECT, url) if path else RedisUrlFault("names no socket: unix:///run/redis.sock")
    scheme, _, word = whole.partition("+")
    way = Way(word) if word else Way.DIRECT
    login, at, places = authority.rpartition("@")
    nodes = []
    for place in places.split(",") if way is not Way.DIRECT else [places]:
        node = _read_node(place, SENTINEL_PORT if way is Way.SENTINEL else REDIS_PORT)
        if node is None:
            return RedisUrlFault("has no host, or a port that is not valid")
        nodes.append(node)
    service, database = "", path
    if way is Way.SENTINEL:
        service, _, database = path.partition("/")
        if not service:
            return RedisUrlFault("names no primary: redis+sentinel://host:26379/NAME-OF-THE-PRIMARY")
    if database and not database.isdecimal():
        return RedisUrlFault("the part after the last / must be the number of a database")
    if way is Way.CLUSTER and database not in {"", "0"}:
        return RedisUrlFault("a cluster has database 0 only")
    if fault := _fault_of_query(query):
        return RedisUrlFault(fault)
    plain = f"{scheme}://{login}{at}{_text(nodes[0])}" + (f"/{database}" if database else "")
    return RedisUrl(way, f"{plain}?{query}" if query else plain, tuple(nodes), unquote(service))


def shown_redis_url(url: str) -> str:
    """Return a Redis URL without login and options, for screens."""
    _, authority, path, query = _split(url)
    parsed = parse_redis_url(url)
    database = dict(parse_qsl(query)).get("db", "")
    if not isinstance(parsed, RedisUrl) or not parsed.nodes:
        shown = f"unix:{authority.rpartition('@')[2]}/{path}"
        return shown if database in {"", "0"} else f"{shown} (database {database})"
    places = ",".join(map(_text, parsed.nodes))
    if database:
        # It goes before the one in the path.
        path = "/".join([*([parsed.service] if parsed.service else []), database])
    return f"{places}/{path}".removesuffix("/0").removesuffix("/")


def _split(url: str) -> tuple[str, str, str, str]:
    """Split into scheme, authority, path without its first slash, and query; urlsplit knows no list of hosts."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    return scheme, authority, path, query


def _fault_of_query(query: str) -> str:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            return "has an option that is not known here: " + ", ".join(sorted(_OPTIONS)) + " are"
        if name in {"db", "protocol"} and not value.isdecimal():
            return f"has an option {name} that is not a number"
    return ""


def _read_node(place: str, usual_port: int) -> tuple[str, int] | None:
    if _UNSAFE.search(place):
        return None  # urlsplit would remove some of these characters silently
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return None if not host or port == 0 or parts.path else (host, port or usual_port)


def _text(node: tuple[str, int]) -> str:
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@frozen
class EmbeddedAddress:
    """An ``embedded:`` URL: the directory as written, and the port if there is one."""

    directory: Path
    port: int | None = None


@frozen
class EmbeddedAddressFault:
    """Why a text is not an ``embedded:`` URL."""

    reason: str


def parse_embedded(url: str) -> EmbeddedAddress | EmbeddedAddressFault:
    """Parse ``embedded:DIR`` or ``embedded:DIR?port=N``, without a look at the file system. Port 0 is any free one.

    DIR is literal up to the first ``?`` (no percent-encoding). If it is relative, it is resolved when the server is
    opened; ``~`` is the home directory.
    """
    if not url.startswith(SCHEME):
        return EmbeddedAddressFault(f"an embedded URL begins with {SCHEME}")
    directory, question_mark, query = url.removeprefix(SCHEME).partition("?")
    if directory.startswith("//"):
        return EmbeddedAddressFault(f"there is no host: write {SCHEME}DIR without //")
    if not directory.strip():
        return EmbeddedAddressFault(f"the directory is missing: write {SCHEME}DIR")
    if not directory.isprintable():
        return EmbeddedAddressFault("the directory has a control character")
    if not question_mark:
        return EmbeddedAddress(Path(directory))
    name, _, value = query.partition("=")
    if name != "port" or "&" in value:
        return EmbeddedAddressFault("the only thing that may follow ? is port=N, once")
    if not (value.isascii() and value.isdecimal() and len(value) <= len(str(LAST_PORT))):
        return EmbeddedAddressFault("port is not a number")
    if not 0 <= int(value) <= LAST_PORT:
        return EmbeddedAddressFault(f"port is not between 0 and {LAST_PORT}")
    return EmbeddedAddress(Path(directory), int(value))
