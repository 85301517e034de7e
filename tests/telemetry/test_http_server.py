"""The HTTP server of metrics and health: real sockets, hostile clients, addresses that are taken."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.telemetry import http_server as web
from trio_worker.telemetry import probe
from trio_worker.telemetry.http_server import (
    HttpResponse,
    ListenTakenError,
    Pages,
    page_of_json,
    page_of_text,
    probed_address,
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


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_half_open_connections_do_not_keep_a_probe_waiting(address: str) -> None:
    """The oldest unfinished request makes room for the newest: a worker with many of them does not look dead."""
    held = [await connect(address) for _ in range(2 * web.MAX_CONNECTIONS)]
    for number, stream in enumerate(held):
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"GET /livez HTTP/1.1\r\n" if number % 2 else b"")
    with trio.fail_after(20):
        for _ in range(20):
            assert (await exchange(address, GET)).endswith(b"ok\n")
    for stream in held:
        await trio.aclose_forcefully(stream)


async def test_who_does_not_read_its_answer_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that have their answer and stay, or that take none of it."""
    monkeypatch.setattr(web, "SEND_SECONDS", 3600.0)
    pages: Pages = {**PAGES, "/metrics": lambda: page_of_text(200, "x" * 10_000_000)}
    async with serve_pages("127.0.0.1:0", pages) as address:
        held = [await connect(address) for _ in range(web.MAX_CONNECTIONS)]
        for stream in held:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(20):
            assert (await exchange(address, GET)).endswith(b"ok\n")
        for stream in held:
            await trio.aclose_forcefully(stream)


async def test_a_slow_request_has_little_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed without an answer."""
    monkeypatch.setattr(web, "HEADER_SECONDS", 0.1)
    async with await connect(address) as slow:
        await slow.send_all(b"GET /livez HTTP/1.1\r\n")
        with trio.fail_after(20):
            assert await slow.receive_some() == b""


@pytest.mark.parametrize("line", [b"a:b\r\n", b"\t\r\n"])
async def test_a_request_of_many_lines_is_refused_unread(address: str, line: bytes) -> None:
    """Thousands of short header lines would cost milliseconds each time."""
    answer = await exchange(address, b"GET /livez HTTP/1.1\r\n" + line * 1000 + b"\r\n")

    assert answer.split(b" ")[1] == b"431"


async def test_a_request_in_many_pieces_is_refused(nursery: trio.Nursery) -> None:
    """Each piece wakes the worker."""
    asked, answers = trio.testing.memory_stream_pair()
    read: list[bytes] = []

    async def receive() -> None:
        read.append(await web._read_header(answers))  # type: ignore[arg-type]  # a stream is a stream

    nursery.start_soon(receive)
    for octet in GET:
        await asked.send_all(bytes([octet]))
        await trio.testing.wait_all_tasks_blocked()

    assert read == [GET[: web._MAX_READS]]


async def test_answers_are_made_at_most_ten_times_a_second(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of requests costs the figures once; later ones are new."""
    made: list[float] = []

    def page() -> HttpResponse:
        made.append(trio.current_time())
        return page_of_text(200, f"{len(made)}\n")

    async with serve_pages("127.0.0.1:0", {"/metrics": page}) as counted:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        monkeypatch.setattr(web, "ANSWER_AGE_SECONDS", 3600.0)
        assert {(await exchange(counted, request))[-2:] for _ in range(10)} == {b"1\n"}
        monkeypatch.setattr(web, "ANSWER_AGE_SECONDS", 0.0)
        assert (await exchange(counted, request)).endswith(b"2\n")


async def test_connections_are_accepted_at_a_rate(autojump_clock: trio.testing.MockClock) -> None:
    """After a burst only so many a second, whatever comes; an idle time gives the burst back."""
    accepted: list[float] = []

    @define
    class Crowd:
        async def accept(self) -> trio.abc.Stream:
            accepted.append(trio.current_time())
            await trio.lowlevel.checkpoint()
            return trio.testing.memory_stream_pair()[0]

    with trio.move_on_after(10):
        await web._Desk(PAGES).serve(Crowd())  # type: ignore[arg-type]  # all that it does is accept

    rate, burst = web.CONNECTIONS_PER_SECOND, web.MAX_CONNECTIONS
    assert sum(at < accepted[0] + 0.001 for at in accepted) <= burst + 1
    assert 10 * rate <= len(accepted) <= 10 * rate + burst + 1


async def test_each_of_several_addresses_is_served(tmp_path: Path) -> None:
    """A network address for scrapers, and a unix socket for probes, which `health` asks first."""
    listen = f"127.0.0.1:0, unix:{tmp_path}/w.sock"
    async with serve_pages(listen, PAGES) as addresses:
        tcp, unix = addresses.split(", ")
        for each in (tcp, unix):
            assert await trio.to_thread.run_sync(probe.ask, each, "/livez") == (200, "ok")
        assert probe.addresses_of(addresses, "") == [unix]
        assert probed_address(addresses) == unix
        assert probed_address(f"{tcp}, 10.0.0.1:9464") == tcp
    assert not (tmp_path / "w.sock").exists()


async def test_if_one_address_is_taken_none_is_served(address: str, tmp_path: Path) -> None:
    """And nothing is left behind."""
    with pytest.raises(ListenTakenError):
        async with serve_pages(f"unix:{tmp_path}/w.sock, {address}", PAGES):
            pass
    assert not (tmp_path / "w.sock").exists()


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
