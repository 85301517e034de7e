"""Our name in EHLO: what is configured, what the host is called, or its address."""

from __future__ import annotations

import socket

import pytest
import trio

from tests.support.bridge import Complaints
from trio_worker.smtp.ehlo_name import address_literal, ehlo_name
from trio_worker.smtp.options import RelayOptions, Timeouts, is_full_name
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.smtp.session import open_session


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mail.example.com", True),
        ("a-1.b", True),
        ("vm", False),
        ("localhost", False),
        ("localhost.localdomain", False),
        ("mail.localhost", False),
        ("", False),
        ("a..b", False),
        ("-a.b", False),
        ("bücher.example", False),
        ("a_b.example", False),
        ("a" * 64 + ".b", False),
    ],
)
def test_a_full_name_is_that_of_one_machine(name: str, *, expected: bool) -> None:
    """With a domain, in the letters of host names, and not the one that each machine has."""
    assert is_full_name(name) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ("fe80::1%eth0", "[IPv6:fe80::1]"),
        ("::ffff:192.0.2.1", "[192.0.2.1]"),
    ],
)
def test_an_address_is_written_as_a_literal(address: str, expected: str) -> None:
    """RFC 5321, 4.1.3."""
    assert address_literal(address) == expected


async def test_the_name_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting; else the host's own full name; else that of the resolver; else the address."""
    resolved = {"known": "known.example.com", "local": "localhost.localdomain"}

    def getaddrinfo(name: str, _port: None, *, flags: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        assert flags == socket.AI_CANONNAME
        if name not in resolved:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(0, 0, 0, resolved[name], ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        found = []
        for host in ("mail.example.org", "known", "local", "bare"):
            monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
            found.append(await ehlo_name("", bound))
        configured = await ehlo_name("mx.example.net", bound)

    assert found == ["mail.example.org", "known.example.com", "[127.0.0.1]", "[127.0.0.1]"]
    assert configured == "mx.example.net"


@pytest.mark.parametrize(
    ("setting", "expected"), [("mx.example.net", b"EHLO mx.example.net\r\n"), ("", b"EHLO [127.0.0.1]\r\n")]
)
async def test_a_session_says_it(
    setting: str, expected: bytes, bridge: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the wire, as the relay reads it."""
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    lines: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 relay\r\n")
        async for received in stream:
            lines.append(bytes(received))
            await stream.send_all(b"250 relay\r\n" if received.startswith(b"EHLO") else b"221 bye\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        options = RelayOptions(port=listener.socket.getsockname()[1], tls="none", ehlo_name=setting)
        session = await open_session(Relay(options, Timeouts(), tls_context(options)))
        session.transport.abort()  # type: ignore[union-attr]
        nursery.cancel_scope.cancel()

    assert lines[0] == expected
