"""Edge. One connection to one server, over which each call blocks."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import hiredis

from trio_worker.records import define
from trio_worker.redis.deadlines import CONNECT_SECONDS
from trio_worker.redis.endpoint import Endpoint
from trio_worker.redis.tls import redis_tls_context

# One command: its words.
Command: TypeAlias = Sequence[bytes | str | float]

_READ_BYTES = 65_536


@define
class BlockingConnection:
    """An open connection; after an exception it must be closed, because a reply may be on its way."""

    endpoint: Endpoint
    _socket: socket.socket
    _reader: Any

    @classmethod
    def open(cls, endpoint: Endpoint, seconds: float = CONNECT_SECONDS) -> Self:
        """Connect and log in; OSError if either takes too long or the server cannot be reached or trusted.

        hiredis.ReplyError if the server refuses login or database.
        """
        deadline = time.monotonic() + seconds
        connection = cls(endpoint, _connected(endpoint, deadline), hiredis.Reader())
        try:
            connection._greet(_left(deadline))
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def is_silent(self) -> bool:
        """Whether the server has neither closed the connection nor sent something that nobody asked for."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not self._reader.has_data() and not poll.poll(0)

    def _greet(self, seconds: float) -> None:
        for answer in self.ask(_greeting_of(self.endpoint), seconds):
            if isinstance(answer, hiredis.ReplyError):
                raise answer

    def ask(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        """Send commands and return their answers; a refusal is a `hiredis.ReplyError` in the list.

        OSError if the connection ends, or if not all answers come within ``seconds``.
        """
        if not commands:
            return []
        deadline = time.monotonic() + seconds
        self._socket.settimeout(seconds)
        try:
            self._send(b"".join(map(_packed, commands)))
            return [self._answer(deadline) for _ in commands]
        except TimeoutError:
            raise TimeoutError(f"Timeout reading from {self.endpoint}") from None

    def _send(self, packed: bytes) -> None:
        try:
            self._socket.sendall(packed)
        except TimeoutError:
            raise
        except OSError:
            # What the server said before it closed the connection tells more: that it wants a certificate, for example.
            received = self._socket.recv(_READ_BYTES)
            if not received:
                raise
            self._reader.feed(received)

    def _answer(self, deadline: float) -> Any:
        while (answer := self._reader.gets()) is False:  # RESP2 has no false
            self._socket.settimeout(_left(deadline))
            received = self._socket.recv(_READ_BYTES)
            if not received:
                raise ConnectionError("Connection closed by server.")
            self._reader.feed(received)
        return answer

    def close(self) -> None:
        """Close the connection at once."""
        self._socket.close()


def _packed(command: Command) -> bytes:
    first = command[0]
    # As redis-py does, for commands of two words.
    words = first.encode().split() if isinstance(first, str) else [first]
    packed: bytes = hiredis.pack_command((*words, *command[1:]))
    return packed


def _greeting_of(endpoint: Endpoint) -> list[Command]:
    """Return the commands of a new connection; all travel together."""
    greeting: list[Command] = []
    if endpoint.password:
        # As redis-py does. Without a name a server whose default user has no password would refuse any.
        greeting.append(("AUTH", endpoint.username or "default", endpoint.password))
    if endpoint.client_name:
        greeting.append(("CLIENT", "SETNAME", endpoint.client_name))
    if endpoint.database:
        greeting.append(("SELECT", endpoint.database))
    return greeting


def _connected(endpoint: Endpoint, deadline: float) -> socket.socket:
    try:
        connected = _unix_socket(endpoint.path, deadline) if endpoint.path else _tcp_socket(endpoint, deadline)
    except TimeoutError:
        raise TimeoutError(f"Timeout connecting to {endpoint}") from None
    except OSError as error:
        is_known = error.errno is not None and error.errno in errno.errorcode
        reason = os.strerror(error.errno or 0) if is_known else str(error)
        raise OSError(f"Error {error.errno} connecting to {endpoint}. {reason}.") from error
    if not endpoint.is_tls:
        return connected
    try:
        context = redis_tls_context(endpoint.ca_file, endpoint.cert_file, endpoint.key_file)
        connected.settimeout(_left(deadline))
        return context.wrap_socket(connected, server_hostname=endpoint.host)
    except BaseException:
        connected.close()
        raise


def _unix_socket(path: str, deadline: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    return _made_to_connect(made, path, deadline)


def _tcp_socket(endpoint: Endpoint, deadline: float) -> socket.socket:
    """Return a socket that is connected to the first of the host's addresses that takes connections."""
    refused: OSError | None = None
    for family, kind, protocol, _, address in _addresses_of(endpoint, deadline):
        try:
            return _made_to_connect(socket.socket(family, kind, protocol), address, deadline)
        except OSError as error:
            refused = error
    raise refused or OSError(f"no address for {endpoint.host}")


def _made_to_connect(made: socket.socket, address: Any, deadline: float) -> socket.socket:
    try:
        made.settimeout(_left(deadline))
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _addresses_of(endpoint: Endpoint, deadline: float) -> list[Any]:
    """Return the addresses of a host; names are resolved in a thread, because the resolver has no timeout."""
    # Python passes text through its codec for IDNA, whose tables take 2 % of the time of a command.
    host = endpoint.host.encode() if endpoint.host.isascii() else endpoint.host
    found: list[list[Any]] = []
    failed: list[OSError] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(host, endpoint.port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)

    if _is_numeric(host):
        resolve()
    else:
        thread = threading.Thread(target=resolve, daemon=True)
        thread.start()
        thread.join(_left(deadline))
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError
    return found[0]


def _is_numeric(host: str | bytes) -> bool:
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def _left(deadline: float) -> float:
    """Return the seconds until the deadline; raises TimeoutError if it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
