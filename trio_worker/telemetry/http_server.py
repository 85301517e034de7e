"""Trio. A small HTTP server for ``/metrics``, ``/livez`` and ``/readyz``, with h11; it runs until the drain is over.

An answer needs neither Redis nor the relay, so that a probe never waits. The time, the size and the number of
connections are limited, so that a stranger who finds the port cannot overload the worker.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import h11
import trio
from attrs import frozen

from trio_worker import __version__
from trio_worker.own_files import make_own_folder, make_safe_folder, replace_own_file
from trio_worker.telemetry.options import split_address
from trio_worker.telemetry.probe import address_path, written_addresses

# A scraper sends its request at once; a slower client is not a scraper.
REQUEST_SECONDS = 5.0
MAX_CONNECTIONS = 32
MAX_HEADER_BYTES = 8192
_READ_BYTES = 4096
_MAX_LEFTOVER_BYTES = 65_536
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
    """Serve pages for the block; yields the address, with the chosen port in place of port 0.

    Raises `ListenTakenError` if another process uses the address, and OSError if it cannot be used.
    """
    address = split_address(listen)
    listeners, shown = await _listen(address, listen)
    limit = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            limit.acquire_nowait()
        except trio.WouldBlock:
            await stream.aclose()
            return
        try:
            with trio.move_on_after(REQUEST_SECONDS), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await _answer(stream, pages)
        finally:
            limit.release()
            await trio.aclose_forcefully(stream)

    try:
        async with trio.open_nursery() as connections:
            connections.start_soon(trio.serve_listeners, serve, listeners)
            yield shown
            connections.cancel_scope.cancel()
    finally:
        if isinstance(address, Path):
            with suppress(OSError):
                address.unlink()


def has_chosen_port(listen: str) -> bool:
    """Return whether the system chooses the port of an address."""
    address = split_address(listen)
    return not isinstance(address, Path) and address[1] == 0


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
    replace_own_file(own, f"{address}\n".encode("ascii"))
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
        listeners = await trio.open_tcp_listeners(port, host=host)
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


async def _answer(stream: trio.SocketStream, pages: Pages) -> None:
    """Answer one request and close: a scraper that asks every ten seconds needs no open connection."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
    try:
        answer, is_head = await _read(stream, connection, pages)
    except h11.RemoteProtocolError as error:
        answer, is_head = page_of_text(error.error_status_hint, "not a request\n"), False
    if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
        await stream.send_all(_written(connection, answer, is_head=is_head))
        # Closing with unread data would reset the connection and lose the answer.
        await stream.send_eof()
        for _ in range(_MAX_LEFTOVER_BYTES // _READ_BYTES):
            if not await stream.receive_some(_READ_BYTES):
                break


async def _read(stream: trio.SocketStream, connection: h11.Connection, pages: Pages) -> tuple[HttpResponse, bool]:
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return _page(request, pages), request.method == b"HEAD"
        elif isinstance(event, h11.Data):
            return page_of_text(413, "no request has a body here\n"), False
        else:
            raise h11.RemoteProtocolError("closed before a request", 400)


def _page(request: h11.Request, pages: Pages) -> HttpResponse:
    path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
    make = pages.get(path)
    if make is None:
        return page_of_text(404, f"not found; the pages are {', '.join(pages)}\n")
    if request.method not in {b"GET", b"HEAD"}:
        return page_of_text(405, "GET or HEAD\n")
    return make()


def _written(connection: h11.Connection, answer: HttpResponse, *, is_head: bool) -> bytes:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Server", f"trio-worker/{__version__}"),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    parts = [connection.send(h11.Response(status_code=answer.status, headers=headers))]
    if not is_head:
        parts.append(connection.send(h11.Data(data=answer.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
