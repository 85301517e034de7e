"""Trio. The server of the mail catcher: listens, and performs the actions of each connection's session."""

from __future__ import annotations

import errno
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import IO, assert_never

import trio
from attrs import field

from trio_worker.capture.actions import (
    Close,
    DelayReplies,
    Drop,
    Keep,
    LoginTried,
    Send,
    ServerAction,
    Stall,
    StartTls,
    Violation,
)
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import NO_FAULTS, Chaos, InjectedFaults, SeededDice
from trio_worker.capture.connection import ClientConnection
from trio_worker.capture.server_profile import EXTENSIONS, MECHANISMS, ServerProfile
from trio_worker.capture.session import ServerSession
from trio_worker.capture.spool import HeldOctets, Spool
from trio_worker.capture.store import MemoryStore, Store
from trio_worker.records import define

SIZE_LIMIT_BYTES = 10 * 1024 * 1024
# Connections that may wait to be accepted: enough for a burst of clients.
BACKLOG = 1024
# Each costs up to 0.2 MB. More than all workers of a machine open.
MAX_CLIENTS = 1000


@define
class CatcherPortTaken(Exception):  # noqa: N818 - it says what happened, in the words of the message
    """Another program listens on the catcher's address already."""

    host: str
    port: int

    def __str__(self) -> str:
        taken = f"{self.host}:{self.port} is taken by another program"
        return f"{taken}: stop it, or set capture.listen and smtp.port to another port"


@asynccontextmanager
async def open_catcher(  # noqa: PLR0913 - each is one property of the relay to play; most callers give one
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    store: Store | None = None,
    faults: InjectedFaults = NO_FAULTS,
    extensions: frozenset[str] = EXTENSIONS,
    size_limit_bytes: int = SIZE_LIMIT_BYTES,
    tls: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    credentials: tuple[str, str] | None = None,
    mechanisms: tuple[str, ...] = MECHANISMS,
    require_auth: bool = False,
    auth_in_clear: bool | None = None,
    accepts_data_without_recipients: bool = False,
    seed: int = 0,
    before_input: Callable[[], None] = lambda: None,
    open_file: Callable[[], IO[bytes]] = BytesIO,
) -> AsyncIterator[Catcher]:
    """Listen and catch mails for the block; at its end every connection is closed at once.

    ``port`` 0 means any free one; `Catcher.port` says which. ``store`` is a `MemoryStore` by default. ``extensions``
    are the EHLO keywords offered; STARTTLS only with a ``tls`` context, AUTH only with ``credentials`` (user,
    password), and without TLS only if ``auth_in_clear``, by default if there is no ``tls``. ``seed`` is that of the
    random numbers for ``faults``. ``before_input`` is called before each input is processed, and
    ``open_file`` for the beginning of a large message.

    Raises `CatcherPortTaken`, or OSError if it cannot listen for another reason.
    """
    if implicit_tls and tls is None:
        raise ValueError("implicit_tls needs a tls context")
    profile = ServerProfile(
        extensions=extensions,
        size_limit_bytes=size_limit_bytes,
        has_tls=tls is not None,
        credentials=credentials,
        mechanisms=mechanisms,
        require_auth=require_auth,
        auth_in_clear=tls is None if auth_in_clear is None else auth_in_clear,
        accepts_data_without_recipients=accepts_data_without_recipients,
    )
    listeners = await _listen(host, port)
    chaos = Chaos(SeededDice(seed).roll, faults)
    bound_port = listeners[0].socket.getsockname()[1]
    catcher = Catcher(host, bound_port, profile, MemoryStore() if store is None else store, chaos)
    async with trio.open_nursery() as connections:
        handler = _ConnectionHandler(catcher, tls, implicit_tls, before_input, connections, open_file)
        connections.start_soon(trio.serve_listeners, handler.serve, listeners)
        yield catcher
        connections.cancel_scope.cancel()


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise CatcherPortTaken(host, port) from problem
        raise
    if port == 0:  # a host name with several addresses would get several ports
        for surplus in listeners[1:]:
            surplus.socket.close()
        del listeners[1:]
    return listeners


@define(eq=False)
class _ConnectionHandler:
    """Serves the connections of one catcher."""

    catcher: Catcher
    tls: ssl.SSLContext | None
    implicit_tls: bool
    before_input: Callable[[], None]
    writers: trio.Nursery
    open_file: Callable[[], IO[bytes]]
    held: HeldOctets = field(factory=HeldOctets)
    large_message: trio.Lock = field(factory=trio.Lock)

    async def serve(self, tcp: trio.SocketStream) -> None:
        """Serve one client until it disconnects; a broken connection is no error."""
        catcher = self.catcher
        if catcher.connections_open >= MAX_CLIENTS:
            async with tcp:
                with suppress(trio.BrokenResourceError):  # RFC 5321, 3.8
                    await tcp.send_all(b"421 4.3.2 Too many connections\r\n")
            return
        catcher.connections_opened += 1
        spool = Spool(self.held, self.open_file)
        session = ServerSession(
            catcher.profile, catcher.chaos, catcher.connections_opened, tls=self.implicit_tls, spool=spool
        )
        connection = ClientConnection(tcp, session, self.writers)
        catcher.admit(connection)
        try:
            with connection.scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._converse(connection)
        finally:
            connection.close_nowait()
            catcher.forget(connection)
            spool.clear()

    async def _converse(self, connection: ClientConnection) -> None:
        if self.implicit_tls:
            await connection.start_tls(self._certified())
        self.before_input()
        actions = await self._noted(connection.session.open())
        while await self._perform(connection, actions):
            received = await connection.receive()
            if not received:
                return
            self.before_input()
            actions = await self._take(connection, received)

    async def _take(self, connection: ClientConnection, received: bytes) -> list[ServerAction]:
        """Give octets to the session, and note what it asks for."""
        if not connection.session.spool.is_large:
            return await self._noted(self._received(connection, received))
        # Each large message is whole in memory from its last octet until it is stored: one at a time.
        async with self.large_message:
            return await self._noted(self._received(connection, received))

    def _received(self, connection: ClientConnection, received: bytes) -> list[ServerAction]:
        try:
            return connection.session.receive(received)
        except OSError as problem:  # the beginning of the message cannot be read again
            self.catcher.problem = problem
            return [Drop()]

    async def _noted(self, actions: list[ServerAction]) -> list[ServerAction]:
        """Note actions, and return those that are still to do; if a mail cannot be stored the connection is reset."""
        if not await self.catcher.note(actions):
            return [Drop()]
        return [action for action in actions if not isinstance(action, Keep | Violation | LoginTried)]

    async def _perform(self, connection: ClientConnection, actions: list[ServerAction]) -> bool:
        """Perform the actions of the session in order; return False if the connection ended."""
        read_at = due = trio.current_time()
        for action in actions:
            match action:
                case Send(payload):
                    await connection.send(payload, due)
                case DelayReplies(seconds):
                    due = max(due, read_at + seconds)
                case Keep() | Violation() | LoginTried():
                    pass
                case StartTls() | Close() | Drop() | Stall():
                    await connection.flush()
                    return await self._turn(connection, action)
                case _:
                    assert_never(action)
        return True

    async def _turn(self, connection: ClientConnection, action: StartTls | Close | Drop | Stall) -> bool:
        """Start TLS, or end the connection; return False if it ended."""
        match action:
            case StartTls():
                await connection.start_tls(self._certified())
                connection.session.tls_started()
                return True
            case Close():
                if await connection.close_in_order():
                    await self._noted(connection.session.receive(b"?"))
            case Drop():
                connection.reset()
            case Stall(reads):
                await connection.stall(reads=reads)
            case _:
                assert_never(action)
        return False

    def _certified(self) -> ssl.SSLContext:
        """Return the TLS context. Without one TLS is never offered, so this is not called (else RuntimeError)."""
        if self.tls is None:
            raise RuntimeError("TLS was started without a context")
        return self.tls
