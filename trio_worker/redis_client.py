"""Trio. Redis clients that keep no secrets from us: no hidden retries, no dirty connections, bounded waits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import trio
from attrs import define, field, frozen
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from trio_worker.bridge import call, call_abortable, call_trio
from trio_worker.option import option

# A call that Redis has not answered by then is given up and repeated on a new connection. Scripts here take under a
# millisecond; a Redis that is silent for ten seconds is stopped, unreachable, or saving to a slow disk.
CALL_SECONDS = 10.0
CONNECT_SECONDS = 5.0
# The longest blocking wait. Redis wakes a waiter late when its clock is busy, so the socket gets this much more.
WAIT_MARGIN_SECONDS = 5.0

# States of a server that pass by themselves; redis-py reports some of them as plain response errors (text only).
_PASSING = (
    "LOADING",
    "UNBLOCKED",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "OOM",
)


@frozen
class RedisOptions:
    """Where the queue lives (config section ``[redis]``)."""

    url: str = option(
        "embedded:var/valkey",
        "Where Redis or Valkey is: redis:// rediss:// unix:// or embedded:DIR[?port=N] for one that we start.",
    )
    username: str = option("", "User of the Redis ACL; empty for the default user.")
    password: str = option("", "Password for Redis; better in a file named by password_file.", secret=True)
    ca_file: str = option("", "Certificate authorities that rediss:// trusts; empty for those of the system.")


@frozen
class Unavailable:
    """Redis did not do what was asked; whether it did it unseen is unknown unless ``is_refusal``.

    ``is_misconfigured`` tells what only a human can mend (a wrong key type, a missing permission); ``is_login`` a
    refused password.
    """

    what: str
    is_refusal: bool = False
    is_misconfigured: bool = False
    is_login: bool = False
    is_full: bool = False


class RedisUrlError(ValueError):
    """The Redis URL cannot be used; the message says why and never repeats a password."""


@frozen
class Script:
    """One Lua script with its digest, as EVALSHA wants it."""

    name: str
    text: str
    digest: str


def read_script(name: str) -> Script:
    """Read a script of the package, behind the prelude that all share."""
    folder = Path(__file__).parent / "scripts"
    text = (folder / "prelude.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
    # Redis names scripts by SHA-1; nothing is secured by it.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def read_scripts() -> dict[str, Script]:
    """Read every script of the package; before the first job, for later there may be no file descriptor left."""
    folder = Path(__file__).parent / "scripts"
    names = [path.stem for path in folder.glob("*.lua") if path.stem != "prelude"]
    return {name: read_script(name) for name in names}


class _Rostered:
    """A connection that stands in a roster, so that it can be aborted."""

    _writer: asyncio.StreamWriter | None

    def __init__(self, *, roster: set[Any], **settings: Any) -> None:
        super().__init__(**settings)
        roster.add(self)

    def abort(self) -> None:
        """Break the connection at once; whoever reads from it gets an error."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _send_packed_command(self, command: Any) -> None:
        # Since Python 3.12 asyncio takes a write on an aborted transport for one that is merely slow, and then waits
        # for a socket that is closed.
        if self._writer is not None and self._writer.transport.is_closing():
            raise exceptions.ConnectionError("the connection was broken off")
        await super()._send_packed_command(command)  # type: ignore[misc]  # the mixin stands before a connection


class _Resolving(_Rostered):
    """A connection whose host name trio looks up: asyncio would do it in a thread that no deadline reaches."""

    host: str
    _numeric: str = ""

    def _connection_arguments(self) -> dict[str, Any]:
        arguments = dict(super()._connection_arguments())  # type: ignore[misc]  # the mixin stands before a connection
        if self._numeric:
            if arguments.get("ssl") is not None:
                arguments.setdefault("server_hostname", self.host)
            arguments["host"] = self._numeric
        return arguments

    async def _connect(self) -> None:
        refused: OSError | None = None
        for address in await call_trio(_resolve, self.host):
            self._numeric = address
            try:
                return await super()._connect()  # type: ignore[misc,no-any-return]  # as above
            except OSError as error:
                refused = error
        raise refused or OSError(f"no address for {self.host}")


class _TcpConnection(_Resolving, Connection):
    pass


class _TlsConnection(_Resolving, SSLConnection):
    pass


class _UnixConnection(_Rostered, UnixDomainSocketConnection):
    pass


async def _resolve(host: str) -> list[str]:
    with trio.fail_after(CONNECT_SECONDS):
        found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


# What a script answers: numbers, bytes and lists of them.
Answer: TypeAlias = Any


@define
class RedisClient:
    """Calls to one Redis: ``client`` for commands that answer at once, ``waiter`` for the blocking wait.

    ``abort_waiter`` and ``abort_calls`` break the connections of either, so that what waits on them ends.

    Every method is shielded from cancellation except `wait`, whose reply may be lost. None raises for what Redis or
    the network does: that is an `Unavailable`.
    """

    client: Redis
    waiter: Redis
    abort_waiter: Callable[[], object]
    abort_calls: Callable[[], object] = lambda: None
    scripts: dict[str, Script] = field(factory=read_scripts)
    calls: int = 0

    async def run_script(self, name: str, keys: Sequence[str], *args: bytes | str | int) -> Answer | Unavailable:
        """Run a script of the package; on NOSCRIPT (a restart, SCRIPT FLUSH) its text is sent instead."""
        script = self.scripts[name]
        answer = await self.command("EVALSHA", script.digest, len(keys), *keys, *args)
        if isinstance(answer, Unavailable) and answer.what.startswith("NOSCRIPT"):
            return await self.command("EVAL", script.text, len(keys), *keys, *args)
        return answer

    async def command(self, *words: bytes | str | float) -> Answer | Unavailable:
        """Run one command that answers at once."""
        self.calls += 1
        return await _caught(call, self.client.execute_command, *words)

    async def pipeline(self, commands: Sequence[Sequence[bytes | str | float]]) -> list[Answer] | Unavailable:
        """Run commands in one round trip, not as a transaction; the first error spoils all."""
        self.calls += 1
        batch = self.client.pipeline(transaction=False)
        for command in commands:
            batch.execute_command(*command)
        answers: list[Answer] | Unavailable = await _caught(call, batch.execute)
        return answers

    async def wait(self, key: str, seconds: float) -> bool | Unavailable:
        """Wait until the list has an element, at most ``seconds`` (over 0), leaving the list as it is.

        ``BLMOVE key key LEFT LEFT`` is a blocking peek: a lost reply loses nothing, so a cancel simply breaks the
        connection.
        """
        self.calls += 1
        words = ("BLMOVE", key, key, "LEFT", "LEFT", f"{seconds:.3f}")
        head = await _caught(call_abortable, self.abort_waiter, self.waiter.execute_command, *words)
        return head if isinstance(head, Unavailable) else head is not None


@asynccontextmanager
async def open_redis_client(options: RedisOptions, longest_wait_seconds: float) -> AsyncIterator[RedisClient]:
    """Open clients for a URL that is not ``embedded:``; connections are made when first used, closed at the end.

    Raises `RedisUrlError` for a URL that cannot be used.
    """
    callers: set[_Rostered] = set()
    waiters: set[_Rostered] = set()
    client = _client(options, CALL_SECONDS, callers)
    waiter = _client(options, longest_wait_seconds + WAIT_MARGIN_SECONDS, waiters)
    try:
        yield RedisClient(client, waiter, lambda: _abort(waiters), lambda: _abort(callers))
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CONNECT_SECONDS):
            for each in (waiter, client):
                await _caught(call, each.aclose)


def _abort(roster: set[_Rostered]) -> None:
    for connection in roster:
        connection.abort()


def _client(options: RedisOptions, timeout_seconds: float, roster: set[Any]) -> Redis:
    scheme = urlsplit(options.url).scheme
    try:
        settings = cast("dict[str, Any]", parse_url(options.url))
    except ValueError as error:
        raise RedisUrlError(f"redis.url: {error}") from None
    settings.pop("connection_class", None)
    if options.username:
        settings["username"] = options.username
    if options.password:
        settings["password"] = options.password
    connection: type[Any] = _TcpConnection
    if scheme == "rediss":
        connection = _TlsConnection
        if options.ca_file:
            settings["ssl_ca_certs"] = options.ca_file
    elif scheme == "unix":
        connection = _UnixConnection
    pool = ConnectionPool(
        connection_class=connection,
        max_connections=32,
        roster=roster,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        # redis-py would replay commands by itself, MULTI and LMOVE included; we repeat only what is idempotent.
        retry=Retry(NoBackoff(), 0),
        # With this on (the default since 8.1) the pool hands out connections that hold a stale reply.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        **settings,
    )
    return Redis.from_pool(pool)


async def _caught(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Await a call and turn what Redis or the network did into an `Unavailable`."""
    try:
        return await function(*args)
    except (exceptions.RedisError, OSError, TimeoutError, trio.TooSlowError) as error:
        return understand(error)


def understand(error: BaseException) -> Unavailable:
    """Sort an error of redis-py; the order matters, for a refused login is one of its connection errors."""
    text = str(error) or type(error).__name__
    match error:
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            return Unavailable(f"login refused: {text}", is_refusal=True, is_login=True)
        case exceptions.OutOfMemoryError():
            return Unavailable(text, is_refusal=True, is_full=True)
        case exceptions.NoScriptError():
            return Unavailable(f"NOSCRIPT {text}", is_refusal=True)
        case exceptions.BusyLoadingError() | exceptions.ReadOnlyError() | exceptions.TryAgainError():
            return Unavailable(text, is_refusal=True)
        case exceptions.ConnectionError() | exceptions.TimeoutError() | OSError():
            return Unavailable(text)
        case exceptions.ResponseError():
            # Older servers put the code of a script's error somewhere inside the text.
            passing = any(word in text for word in _PASSING)
            return Unavailable(text, is_refusal=True, is_misconfigured=not passing, is_full="OOM" in text)
        case _:
            return Unavailable(text)
