"""The HTTP server of metrics and health: real sockets, hostile clients, addresses that are taken."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.telemetry import http_server as web
from trio_worker.telemetry import probe
from trio_worker.telemetry.http_server import (
    ListenTakenError,
    Pages,
    page_of_json,
    page_of_text,
    serve_pages,
    write_address,
)
from trio_worker.telemetry.options import split_address

PAGES: Pages = {
    "/livez": lambda: page_of_text(200, "ok\n"),
    "/readyz": lambda: page_of_json(503, {"ready": False}),
}


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where two pages are served."""
    async with serve_pages("127.0.0.1:0", PAGES) as address:
        yield address


async def connect(address: str) -> trio.SocketStream:
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def exchange(address: str, sent: bytes) -> bytes:
    """Send bytes and return all that comes back before the server closes."""
    async with await connect(address) as stream:
        await stream.send_all(sent)
        return b"".join([chunk async for chunk in stream])


async def test_pages_are_served_with_their_status(address: str) -> None:
    """One request, one answer, and the connection is over."""
    live = await exchange(address, b"GET /livez?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    ready = await exchange(address, b"GET /readyz HTTP/1.0\r\n\r\n")

    assert live.startswith(b"HTTP/1.1 200 ")
    assert live.endswith(b"\r\n\r\nok\n")
    assert ready.startswith(b"HTTP/1.1 503 ")
    assert json.loads(ready.partition(b"\r\n\r\n")[2]) == {"ready": False}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"DELETE /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"413"),
        (b"HELO there\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_what_is_no_good_request_gets_its_status(address: str, sent: bytes, status: bytes) -> None:
    """A clear refusal, and the server goes on."""
    assert (await exchange(address, sent)).split(b" ")[1] == status
    assert b"200" in await exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_head_has_no_body(address: str) -> None:
    """It has the length of the body."""
    answer = await exchange(address, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_client_that_leaves_harms_nobody(address: str) -> None:
    """Nothing sent, half a request, a reset: each is the end of that connection only."""
    for sent in (b"", b"GET /li"):
        stream = await connect(address)
        await stream.send_all(sent)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(stream)

    assert b"ok" in await exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_slow_clients_are_few_and_have_little_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection above the limit is closed at once; the others time out."""
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.3)
    slow = [await connect(address) for _ in range(web.MAX_CONNECTIONS)]
    for stream in slow:
        await stream.send_all(b"GET /livez HTTP/1.1\r\n")
    refused = await connect(address)
    with trio.fail_after(60):
        assert await refused.receive_some() == b""
        for stream in slow:
            assert await stream.receive_some() == b""
            await stream.aclose()
    await refused.aclose()

    assert b"ok" in await exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_taken_address_says_what_to_do(address: str, tmp_path: Path) -> None:
    """The error of a second worker on a host names port 0 and unix sockets."""
    with pytest.raises(ListenTakenError, match="port 0 or a unix socket"):
        async with serve_pages(address, PAGES):
            pass
    listen = f"unix:{tmp_path}/w.sock"
    async with serve_pages(listen, PAGES):
        with pytest.raises(ListenTakenError):
            async with serve_pages(listen, PAGES):
                pass


async def test_unix_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    """After a crash the file is still there, and no process answers; at the end it is removed."""
    path = tmp_path / "folder" / "w.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serve_pages(f"unix:{path}", PAGES) as address:
        assert await trio.to_thread.run_sync(probe.ask, address, "/livez") == (200, "ok")
    assert not path.exists()


async def test_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    """A file that is not a socket belongs to another program."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        async with serve_pages(f"unix:{path}", PAGES):
            pass
    assert path.read_text() == "mine"


@given(st.text(max_size=30))
def test_any_address_is_understood_or_refused(listen: str) -> None:
    """Any text in the configuration gives an address or a ValueError."""
    try:
        address = split_address(listen)
    except ValueError:
        return
    assert isinstance(address, Path) or 0 <= address[1] <= 65_535


def test_address_is_told_while_it_is_served_and_those_of_the_dead_are_swept(tmp_path: Path) -> None:
    """One file for each process; what is no such file is left alone."""
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
    left = Path(probe.address_path(str(tmp_path), int(gone)))
    left.write_text("127.0.0.1:1\n")
    others = [tmp_path / name for name in ("metrics-.address", "worker.journal", "notes")]
    for other in others[1:]:
        other.write_text("mine")
    with write_address(tmp_path, "127.0.0.1:4711"):
        assert [told for told in probe.written_addresses(str(tmp_path)).values() if told] == ["127.0.0.1:4711"]
        assert not left.exists()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "worker.journal"]
