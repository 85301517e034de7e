"""Trio. A small HTTP server for ``/metrics``, ``/livez`` and ``/readyz``, with h11; it runs until the drain is over.

An answer needs neither Redis nor the relay, so that a probe never waits. The time, the size and the number of
connections are limited, so that a stranger who finds the port cannot overload the worker.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import h11
import trio
from attrs import field

from trio_worker import __version__
from trio_worker.own_files import make_own_folder, make_safe_folder, replace_own_file
from trio_worker.records import define, frozen
from trio_worker.telemetry.options import shown_address, split_address, split_addresses
from trio_worker.telemetry.probe import address_path, asked_address, written_addresses

# A scraper sends its request at once; a slower client is not a scraper. It may be slow to read: megabytes for a modem.
HEADER_SECONDS = 1.0
SEND_SECONDS = 5.0
MAX_CONNECTIONS = 32
MAX_HEADER_BYTES = 8192
# A connection costs an idle worker 0.6 ms, and a busy one up to 1.6 ms: a flood takes some 4 % of its mails. Those who
# should ask do so once in some seconds, and behind a full queue they still have their turn within a second.
CONNECTIONS_PER_SECOND = 25
WAITING_CONNECTIONS = 16
# How old an answer may be: nobody looks more often than this.
ANSWER_AGE_SECONDS = 0.1
# A request has one or two pieces; more would be a way to wake the worker often.
_MAX_READS = 8
_MAX_HEADER_LINES = 64
_LEFTOVER_BYTES = 65_536
_HEADER_END = re.compile(rb"\n\r?\n")
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPT_AGAIN_SECONDS = 0.1
_TEXT = "text/plain; charset=utf-8"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@frozen
class HttpResponse:
    """The response of one path."""

    status: int
    content_type: str
    body: bytes


# Paths with their responses; a function is called for each request.
Pages: TypeAlias = Mapping[str, Callable[[], HttpResponse]]


class ListenTakenError(OSError):
    """Another process uses the address; the message says what to do."""


def page_of_json(status: int, document: Mapping[str, Any]) -> HttpResponse:
    """Return an answer that holds one JSON object."""
    return HttpResponse(status, "application/json", json.dumps(document).encode() + b"\n")


def page_of_text(status: int, text: str) -> HttpResponse:
    """Return an answer of plain text."""
    return HttpResponse(status, _TEXT, text.encode())


@asynccontextmanager
async def serve_pages(listen: str, pages: Pages) -> AsyncIterator[str]:
    """Serve pages for the block; yields the addresses, with the chosen port in place of port 0.

    Each address has its own connections and its own rate, so that a flood at one leaves the others as they are. Raises
    `ListenTakenError` if another process uses an address, and OSError if one cannot be used.
    """
    opened: list[tuple[str, list[trio.SocketListener]]] = []
    try:
        for address in split_addresses(listen):
            listeners, shown = await _listen(address, shown_address(address))
            opened.append((shown, listeners))
        async with trio.open_nursery() as serving:
            for _, listeners in opened:
                desk = _Desk(pages)
                for listener in listeners:
                    serving.start_soon(desk.serve, listener)
            yield ", ".join(shown for shown, _ in opened)
            serving.cancel_scope.cancel()
    finally:
        for _, listeners in opened:
            for listener in listeners:
                listener.socket.close()
        for shown, _ in opened:
            if isinstance(path := split_address(shown), Path):
                with suppress(OSError):
                    path.unlink()


def probed_address(shown: str) -> str:
    """Return the address that `health` asks, of those that `serve_pages` yields, so that it holds in every folder."""
    address = asked_address(shown)
    path = split_address(address)
    return f"unix:{path.absolute()}" if isinstance(path, Path) else address


@contextmanager
def write_address(folder: Path, address: str) -> Iterator[None]:
    """Keep the address in a file in ``folder`` for the block, so that ``health`` finds it.

    Files of ended processes are removed. Raises OSError if the folder cannot be written.
    """
    make_own_folder(folder)
    for path, written in written_addresses(str(folder)).items():
        if not written:
            with suppress(OSError):
                Path(path).unlink()
    own = Path(address_path(str(folder), os.getpid()))
    # Written atomically: a worker that starts now would remove an empty file as that of an ended process.
    replace_own_file(own, f"{address}\n".encode())
    try:
        yield
    finally:
        with suppress(OSError):
            own.unlink()


async def _listen(address: tuple[str, int] | Path, listen: str) -> tuple[list[trio.SocketListener], str]:
    if_taken = f"{listen} is taken: give each worker of this host its own, with port 0 or a unix socket"
    if isinstance(address, Path):
        return [await _listen_unix(address, if_taken)], listen
    host, port = address
    try:
        # A short queue: who waits behind hundreds of a flood has gone when it is their turn.
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=WAITING_CONNECTIONS)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ListenTakenError(if_taken) from error
        raise
    bound = listeners[0].socket.getsockname()[1]
    return listeners, f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"


async def _listen_unix(path: Path, if_taken: str) -> trio.SocketListener:
    """Listen on a unix socket; the socket of an ended process is replaced."""
    await _free(path, if_taken)
    opened = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await trio.to_thread.run_sync(make_safe_folder, path.parent, 0o755)
        await opened.bind(str(path))
        os.chmod(path, 0o660)  # noqa: PTH101  our socket
        opened.listen(MAX_CONNECTIONS)
    except BaseException:
        opened.close()
        raise
    return trio.SocketListener(opened)


async def _free(path: Path, if_taken: str) -> None:
    """Remove the socket of an ended process; a socket that answers stays."""
    place = trio.Path(path)
    if not await place.exists() or not await place.is_socket():
        return
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(str(path))
        except ConnectionRefusedError:
            await place.unlink()
        else:
            raise ListenTakenError(if_taken)


@define(eq=False)
class _Desk:
    """Answers the requests at one address: few at a time, and at a rate that costs the worker little.

    A connection that is too many takes the place of the oldest one whose request is unfinished, else of the oldest one.
    Answers are made at most every `ANSWER_AGE_SECONDS`.
    """

    pages: Pages
    _reading: dict[trio.CancelScope, None] = field(factory=dict)  # oldest first
    _answering: dict[trio.CancelScope, None] = field(factory=dict)  # the same
    _made: dict[tuple[str, bool], tuple[float, bytes]] = field(factory=dict)  # when, and the octets
    _next_at: float = -inf

    async def serve(self, listener: trio.SocketListener) -> None:
        """Accept connections until cancelled."""
        async with trio.open_nursery() as connections:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # accept(2): a connection that ended before, or no descriptor is free
                    await trio.sleep(_ACCEPT_AGAIN_SECONDS if error.errno in _OUT_OF_DESCRIPTORS else 0)
                    continue
                self._make_room()
                connections.start_soon(self._serve_one, stream)
                await self._pace()

    async def _pace(self) -> None:
        """Wait if more than `CONNECTIONS_PER_SECOND` were accepted; the system lets the others wait."""
        now = trio.current_time()
        self._next_at = max(self._next_at, now - MAX_CONNECTIONS / CONNECTIONS_PER_SECOND) + 1 / CONNECTIONS_PER_SECOND
        await trio.sleep_until(self._next_at) if self._next_at > now else None

    def _make_room(self) -> None:
        if len(self._reading) + len(self._answering) >= MAX_CONNECTIONS:
            crowd = self._reading or self._answering
            oldest = next(iter(crowd))
            del crowd[oldest]
            oldest.cancel()

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        """Answer one request and close: a scraper that asks every ten seconds needs no open connection."""
        wire = b""
        try:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                with _counted(self._reading, HEADER_SECONDS):
                    wire = self._answer_to(await _read_header(stream))
                if wire:
                    with _counted(self._answering, SEND_SECONDS):
                        await _send(stream, wire)
        finally:
            await trio.aclose_forcefully(stream)

    def _answer_to(self, received: bytes) -> bytes:
        if received.count(b"\n") > _MAX_HEADER_LINES:
            return _written(page_of_text(431, "too many header lines\n"))
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        connection.receive_data(received)
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            return _written(page_of_text(error.error_status_hint, "not a request\n"))
        if not isinstance(request, h11.Request):
            return _written(page_of_text(431 if len(received) >= MAX_HEADER_BYTES else 400, "not a request\n"))
        if connection.their_state is not h11.DONE and isinstance(connection.next_event(), h11.Data):
            return _written(page_of_text(413, "no request has a body here\n"))
        return self._page(request)

    def _page(self, request: h11.Request) -> bytes:
        path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
        make = self.pages.get(path)
        if make is None:
            return _written(page_of_text(404, f"not found; the pages are {', '.join(self.pages)}\n"))
        if request.method not in {b"GET", b"HEAD"}:
            return _written(page_of_text(405, "GET or HEAD\n"))
        key, now = (path, request.method == b"HEAD"), trio.current_time()
        made_at, wire = self._made.get(key, (-inf, b""))
        if now - made_at >= ANSWER_AGE_SECONDS:
            made_at, wire = self._made[key] = (now, _written(make(), is_head=key[1]))
        return wire


@contextmanager
def _counted(crowd: dict[trio.CancelScope, None], seconds: float) -> Iterator[None]:
    """Count a connection in its crowd for the block, which has so many seconds."""
    with trio.move_on_after(seconds) as scope:
        crowd[scope] = None
        try:
            yield
        finally:
            crowd.pop(scope, None)


async def _read_header(stream: trio.SocketStream) -> bytes:
    """Return what a client sent up to the end of its header; less if that is too long or came in too many pieces."""
    received = b""
    for _ in range(_MAX_READS):
        chunk = await stream.receive_some(MAX_HEADER_BYTES - len(received))
        received += chunk
        if not chunk or _HEADER_END.search(received) or len(received) >= MAX_HEADER_BYTES:
            break
    return received


async def _send(stream: trio.SocketStream, wire: bytes) -> None:
    await stream.send_all(wire)
    # Closing with unread data would reset the connection and lose the answer.
    await stream.send_eof()
    for _ in range(_MAX_READS):
        if not await stream.receive_some(_LEFTOVER_BYTES):
            break


def _written(answer: HttpResponse, *, is_head: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} \r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"Server: trio-worker/{__version__}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if is_head else answer.body)
