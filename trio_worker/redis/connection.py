"""Asyncio. Connections to Redis that can be aborted, resolve names with trio, and find the primary.

Opening one needs asyncio's timers, and so an asyncio task; calls over it need none (see `call_inline`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import trio
from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection

from trio_worker.bridge import call_trio, read_at_most
from trio_worker.redis.deadlines import ASK_SECONDS, CONNECT_SECONDS
from trio_worker.redis.failures import FAILURES, OpeningError, understand
from trio_worker.redis.primary import AskNode, Node, Primary

# A claim of a hundred usual jobs.
_READ_BYTES = 65_536


class Rostered:
    """A connection that is listed in a roster, to be aborted from there; for asyncio tasks and for trio tasks."""

    _writer: asyncio.StreamWriter | None
    socket_timeout: float | None
    is_connected: bool
    _has_deadline: bool = False  # whether the current call has its own timeout

    def __init__(self, *, roster: set[Any], socket_timeout: float, **settings: Any) -> None:
        super().__init__(socket_timeout=socket_timeout, **settings)  # type: ignore[call-arg]  # before a connection
        self._patience_seconds = socket_timeout
        roster.add(self)

    def abort(self) -> None:
        """Abort the connection at once; the task that reads from it gets an error."""
        if self._writer is not None:
            self._writer.transport.abort()

    @property
    def peer(self) -> object:
        """The address of the server at the other end; None while there is none."""
        return None if self._writer is None else self._writer.get_extra_info("peername")

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as this process knows."""
        return self.is_connected and not self._is_broken_off

    @property
    def _is_broken_off(self) -> bool:
        return self._writer is not None and self._writer.transport.is_closing()

    async def connect(self) -> None:
        """Open the connection unless it is open; the pool calls this before each use."""
        is_inline = asyncio.current_task() is None
        if self._is_broken_off:
            # connection_lost comes in a later round of the loop, and the next call may come before that.
            await self.disconnect(nowait=True)
        if not self.is_connected:
            self.socket_timeout = self._patience_seconds
            opening = self._open()
            await (asyncio.create_task(opening) if is_inline else opening)
        # Outside of an asyncio task trio's timeouts are used, as asyncio's cannot be.
        self.socket_timeout = None if is_inline else self._patience_seconds

    async def _open(self) -> None:
        try:
            await super().connect()  # type: ignore[misc]  # the mixin stands before a connection
        except FAILURES as error:
            told = None if understand(error).is_refusal else await self._told_by_server()
            raise OpeningError from (told or error)
        if self._writer is not None:
            read_at_most(self._writer.transport, _READ_BYTES)

    async def _told_by_server(self) -> OSError | None:
        """Return what the server says against the opening, if that can be told better than by the failure."""
        return None

    async def disconnect(self, nowait: bool = False, *why: Any, **details: Any) -> None:  # noqa: FBT001, FBT002
        if nowait:
            # After a failure do not wait for unsent bytes or TLS's close message.
            self.abort()
        await super().disconnect(nowait, *why, **details)  # type: ignore[misc]  # the mixin stands before a connection

    def pack_command(self, *args: Any) -> list[bytes]:
        """Encode a command in C; redis-py does that only in its synchronous client."""
        command = args[0].encode() if isinstance(args[0], str) else args[0]
        return [pack_command((*command.split(), *args[1:]))]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        # Since Python 3.12 asyncio treats a write on an aborted transport as a slow one, and waits for a socket that
        # is closed.
        if self._is_broken_off:
            raise exceptions.ConnectionError("the connection was aborted")
        sending = super().send_packed_command(command, check_health)  # type: ignore[misc]  # as above
        await self._in_time(sending, "writing to")

    async def read_response(self, *args: Any, **settings: Any) -> Any:
        return await self._in_time(super().read_response(*args, **settings), "reading from")  # type: ignore[misc]

    async def ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands and return their answers within the timeout of one call; a refusal is returned as an answer.

        For callers that are no asyncio task. Any other failure, or a cancel, disconnects the connection.
        """
        with trio.move_on_after(self._patience_seconds):
            self._has_deadline = True
            try:
                await self.send_packed_command(
                    b"".join([each for command in commands for each in self.pack_command(*command)])
                )
                return [await self._answer_or_refusal() for _ in commands]
            finally:
                self._has_deadline = False
        raise exceptions.TimeoutError(f"Timeout waiting for {self._host_error()}")  # type: ignore[attr-defined]

    async def _answer_or_refusal(self) -> Any:
        try:
            return await self.read_response()
        except exceptions.ResponseError as refusal:
            return refusal

    async def _in_time(self, talk: Awaitable[Any], doing: str) -> Any:
        if self.socket_timeout is not None or self._has_deadline:
            return await talk
        with trio.move_on_after(self._patience_seconds):
            return await talk
        raise exceptions.TimeoutError(f"Timeout {doing} {self._host_error()}")  # type: ignore[attr-defined]


class OpenFirstPool(ConnectionPool):
    """A connection pool that hands out an open connection before one that must be opened.

    redis-py hands out the connection that was released last, also one that could not be opened: without a free file
    descriptor every later call would fail on it, and the open connections would never be used again.
    """

    def get_available_connection(self) -> Any:
        free = self._available_connections
        at = next((at for at in reversed(range(len(free))) if cast("Rostered", free[at]).is_open), None)
        if at is not None:
            free.append(free.pop(at))
        return super().get_available_connection()  # type: ignore[no-untyped-call]  # redis-py says no type


class _Resolving(Rostered):
    """A connection whose host name is resolved by trio: asyncio would do it in a thread without a timeout."""

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


class TcpConnection(_Resolving, Connection):
    """A TCP connection to one host."""


class TlsConnection(_Resolving, SSLConnection):
    """A TLS connection to one host; the certificate must have its name."""

    async def _connect(self) -> None:
        # redis-py reads the files once for each connection object: a certificate that was renewed would never be used.
        self.ssl_context.context = None
        await super()._connect()

    async def _told_by_server(self) -> OSError | None:
        """Open a connection once more, and read without a write before it.

        With TLS 1.3 the server judges our certificate when the handshake is over for us, and asyncio loses what it says
        of it if a write fails first.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                reader, writer = await asyncio.open_connection(**self._connection_arguments())
                try:
                    await reader.read(1)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            return None
        except OSError as error:
            return error if isinstance(error, ssl.SSLError) else None
        return None


class UnixConnection(Rostered, UnixDomainSocketConnection):
    """A connection over a Unix socket."""


class _Finding:
    """A connection that finds the primary each time it is opened.

    If that is another server than before, it aborts the connections of ``rosters`` that still lead to the old one.
    """

    host: str
    port: int
    _is_located: bool = False  # whether it is known where this connection leads

    def __init__(self, *, primary: Primary, ask: AskNode, rosters: Sequence[set[Any]], **settings: Any) -> None:
        super().__init__(**settings)
        self._primary = primary
        self._ask = ask
        self._rosters = rosters

    async def _told_by_server(self) -> OSError | None:
        told: OSError | None = await super()._told_by_server() if self._is_located else None  # type: ignore[misc]
        return told

    async def _connect(self) -> None:
        self._is_located = False
        self.host, self.port = await self._primary.locate(self._ask)
        self._is_located = True
        try:
            await super()._connect()  # type: ignore[misc]  # the mixin stands before a connection
        except (exceptions.RedisError, OSError, TimeoutError):
            self._primary.forget()
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        await super().on_connect_check_health(check_health)  # type: ignore[misc]  # as above
        await self._primary.check(self._ask_this)
        # A primary that only stood still, or was cut off, takes writes again until a Sentinel makes it a replica: over
        # connections to both, jobs would be claimed from two queues.
        ours = cast("Rostered", self).peer
        for connection in [each for roster in self._rosters for each in roster]:
            if connection.peer not in {None, ours}:
                connection.abort()

    async def _ask_this(self, command: str) -> Any:
        connection = cast("Connection", self)
        await connection.send_command(command, check_health=False)
        return await connection.read_response()


class FindingTcpConnection(_Finding, TcpConnection):
    """A TCP connection to the primary."""


class FindingTlsConnection(_Finding, TlsConnection):
    """A TLS connection to the primary."""


async def _resolve(host: str) -> list[str]:
    with trio.fail_after(CONNECT_SECONDS):
        found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


async def ask_once(
    connection_class: type[Any],
    settings: dict[str, Any],
    is_sentinel: bool,  # noqa: FBT001  given with functools.partial
    node: Node,
    command: Sequence[str],
) -> Any:
    """Send one command to one server over a connection that is closed afterwards; a failure is `Unavailable`."""
    connection = connection_class(host=node[0], port=node[1], **settings)
    try:
        await connection.connect()
        await connection.send_command(*command)
        return await connection.read_response()
    except FAILURES as error:
        return understand(error, is_sentinel=is_sentinel)
    finally:
        settings["roster"].discard(connection)
        await connection.disconnect(nowait=True)
