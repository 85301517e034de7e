"""The clients of Redis on a real server: an aborted call says so, and nothing is left behind."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import trio
import trustme
from attrs import evolve
from redis import exceptions

from proving_ground import Valkey
from tests.support.bridge import Complaints
from trio_worker.bridge import call
from trio_worker.redis.blocking import open_blocking_client, run_blocking
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import open_redis_client
from trio_worker.redis.connection import TcpConnection
from trio_worker.redis.errors import REASON_CHARS
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.tls import tls_fault
from trio_worker.redis.url import RedisUrlError


async def test_a_write_on_a_connection_that_was_broken_off_fails_at_once(bridge: Complaints, valkey_url: str) -> None:
    """No writer is left waiting for a closed socket, of which asyncio would complain (Python 3.12 and later)."""
    async with open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:

        async def write_after_abort() -> None:
            connection = await client.client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                connection.abort()
                await connection.send_command("PING")
            finally:
                await client.client.connection_pool.release(connection)

        with pytest.raises(exceptions.ConnectionError, match="aborted"):
            await call(write_after_abort)
        assert await client.command("PING") in (b"PONG", True)


@asynccontextmanager
async def deaf_server(deaf_from: bytes) -> AsyncIterator[str]:
    """The URL of a server that answers OK to every command until it meets that word; then it reads nothing more."""

    async def serve(stream: trio.SocketStream) -> None:
        async for chunk in stream:
            if deaf_from in chunk:
                await trio.sleep_forever()
            await stream.send_all(b"+OK\r\n" * chunk.count(b"*"))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}?protocol=2"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("words", [("GET", "a"), ("APPEND", "a", b"x" * 20_000_000)])
async def test_a_server_that_goes_deaf_is_given_up_at_the_deadline(
    bridge: Complaints, monkeypatch: pytest.MonkeyPatch, words: tuple[str | bytes, ...]
) -> None:
    """Both if it does not answer, and if it does not even read."""
    monkeypatch.setattr("trio_worker.redis.client.CALL_SECONDS", 0.2)
    async with deaf_server(str(words[0]).encode()) as url, open_redis_client(RedisOptions(url=url), 5.0) as client:
        with trio.fail_after(4):
            answer = await client.command(*words)

    assert isinstance(answer, Unavailable)
    assert not answer.is_refusal
    assert "Timeout" in answer.reason


@asynccontextmanager
async def repeating_server() -> AsyncIterator[int]:
    """The port of a server that refuses every command, and repeats all that it has read."""

    async def serve(stream: trio.SocketStream) -> None:
        read = b""
        async for chunk in stream:
            read += chunk.replace(b"\r\n", b" ")
            await stream.send_all(b"-ERR you said %b\r\n" % read * chunk.count(b"*"))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("scheme", "given"),
    [
        ("redis://mailer:s3cr%2Bt-word@{}", {}),
        ("redis://{}", {"username": "mailer", "password": "s3cr+t-word"}),
        ("redis://{}/0?password=s3cr%2Bt-word", {}),
        ("redis+sentinel://mailer:s3cr%2Bt-word@{}/primary", {}),
        ("redis+cluster://mailer:s3cr%2Bt-word@{}", {}),
    ],
)
async def test_a_server_that_repeats_the_login_shows_no_password(
    bridge: Complaints, scheme: str, given: dict[str, str]
) -> None:
    """Also a Sentinel or a node of a cluster that is asked for the primary; the reason is short, too."""
    async with repeating_server() as port:
        options = RedisOptions(url=scheme.format(f"127.0.0.1:{port}"), **given)
        async with open_redis_client(options, 5.0) as client:
            for _ in range(3):
                found = await client.command("GET", "x" * 2000)
                assert isinstance(found, Unavailable)
                assert "s3cr" not in found.reason
                assert len(found.reason) <= REASON_CHARS
        assert "s3cr" not in repr(client.secrets)


async def test_a_wait_is_broken_off_while_its_connection_is_being_opened(bridge: Complaints) -> None:
    """A server that does not answer the first command delays no caller."""
    async with deaf_server(b"SETINFO") as url, open_redis_client(RedisOptions(url=url), 5.0) as client:
        with trio.fail_after(4), trio.move_on_after(0.1) as scope:
            await client.wait("jobs", 5.0)
        assert scope.cancelled_caught


async def test_a_connection_that_was_broken_off_costs_no_call(bridge: Complaints, valkey_url: str) -> None:
    """The call right after it runs on a new connection."""
    async with open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:
        assert await client.command("SET", "a", "1")
        client.abort_calls()
        assert await client.command("GET", "a") == b"1"


async def test_a_connection_that_cannot_be_opened_keeps_no_call_from_one_that_is_open(
    bridge: Complaints, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no file descriptor left, calls go over the connections that there are, and not to the one that is gone."""

    async def no_descriptor(_connection: TcpConnection) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(client.command, "BLPOP", "nothing", 0.05)
        free: list[Any] = client.client.connection_pool._available_connections
        assert len(free) == 2
        free[-1].abort()
        monkeypatch.setattr(TcpConnection, "_connect", no_descriptor)

        assert [await client.command("PING") in (b"PONG", True) for _ in range(3)] == [True] * 3
        # Two calls at once are one too many; neither of those that follow may pay for that.
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(client.command, "BLPOP", "nothing", 0.05)
        assert [await client.command("PING") in (b"PONG", True) for _ in range(3)] == [True] * 3


async def test_a_port_without_a_server_is_unavailable(bridge: Complaints) -> None:
    """It is a value, not an exception, and it says what happened."""
    async with open_redis_client(RedisOptions(url="redis://127.0.0.1:1"), 5.0) as client:
        answer = await client.command("PING")

    assert isinstance(answer, Unavailable)
    assert not answer.is_refusal


async def test_a_url_that_cannot_be_used_is_refused(bridge: Complaints) -> None:
    """The message names the key and not the password."""
    with pytest.raises(RedisUrlError, match=r"redis\.url") as refused:
        async with open_redis_client(RedisOptions(url="http://:secret@127.0.0.1"), 5.0):
            pass
    assert "secret" not in str(refused.value)


@asynccontextmanager
async def tls_before(
    url: str, certificate: trustme.LeafCert, of_clients: trustme.CA | None = None
) -> AsyncIterator[int]:
    """A port where TLS is spoken before the server of a plain URL; ``of_clients`` must have signed the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if of_clients is not None:
        of_clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host
    assert port

    async def forward(source: trio.abc.ReceiveStream, target: trio.abc.SendStream, over: trio.CancelScope) -> None:
        async for chunk in source:
            await target.send_all(chunk)
        over.cancel()

    async def serve(outside: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            async with await trio.open_tcp_stream(host, port) as inside, trio.open_nursery() as both:
                both.start_soon(forward, outside, inside, both.cancel_scope)
                both.start_soon(forward, inside, outside, both.cancel_scope)
        except* trio.BrokenResourceError:
            pass  # the client did not like the certificate, or has left

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1"))
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_connection_tells_who_we_are_and_reads_no_file_for_it(
    bridge: Complaints, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIENT INFO names redis-py and its version, which is known from the start."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: pytest.fail("a file was read"))
    async with open_redis_client(RedisOptions(url=valkey_url), 5.0) as client:
        said = await client.command("CLIENT", "INFO")

    assert f"lib-name=redis-py lib-ver={redis.__version__}" in str(said)


async def test_a_rediss_url_speaks_tls_to_a_server_it_trusts(
    bridge: Complaints, valkey_url: str, tmp_path: Path
) -> None:
    """redis.ca_file names the authority; scripts, calls and the blocking wait all go through it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with tls_before(valkey_url, authority.issue_cert("localhost")) as port:
        login = valkey_url.partition("//")[2].rpartition("@")[0]
        options = RedisOptions(url=f"rediss://{login}@localhost:{port}", ca_file=str(tmp_path / "ca.pem"))
        async with open_redis_client(options, 5.0) as client:
            await client.command("FLUSHALL")
            assert await client.command("RPUSH", "jobs", "x") == 1
            assert await client.wait("jobs", 1.0) is True


@pytest.mark.parametrize(("name", "is_trusted", "words"), [
    ("elsewhere.example", True, "another host name than that in redis.url (Hostname mismatch"),
    ("localhost", False, "not trusted (unable to get local issuer certificate): set redis.ca_file"),
])  # fmt: skip
async def test_a_rediss_server_that_is_not_trusted_is_refused(
    bridge: Complaints, valkey_url: str, tmp_path: Path, name: str, words: str, *, is_trusted: bool
) -> None:
    """A certificate for another name, or of an unknown authority; the reason is given."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with tls_before(valkey_url, authority.issue_cert(name)) as port:
        options = RedisOptions(url=f"rediss://localhost:{port}", ca_file=str(tmp_path / "ca.pem") if is_trusted else "")
        async with open_redis_client(options, 5.0) as client:
            answer = await client.command("PING")

    assert isinstance(answer, Unavailable)
    assert words in answer.reason


@pytest.mark.parametrize("is_one_file", [True, False])
async def test_a_server_that_asks_for_a_certificate_gets_ours(
    bridge: Complaints, valkey_url: str, tmp_path: Path, *, is_one_file: bool
) -> None:
    """redis.cert_file and redis.key_file, or both in one file; both clients show it, and without it nothing goes."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ours = authority.issue_cert("worker.example")
    ours.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    login = valkey_url.partition("//")[2].rpartition("@")[0]
    async with tls_before(valkey_url, authority.issue_cert("localhost"), authority) as port:
        strange = RedisOptions(url=f"rediss://{login}@localhost:{port}", ca_file=str(tmp_path / "ca.pem"))
        if is_one_file:
            known = evolve(strange, cert_file=str(tmp_path / "both.pem"))
        else:
            known = evolve(strange, cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"))

        def asked(options: RedisOptions) -> Any:
            with open_blocking_client(options) as client:
                return run_blocking(client.command("ECHO", "x"))

        async with open_redis_client(known, 5.0) as client:
            answers = [await client.command("ECHO", "x"), await trio.to_thread.run_sync(asked, known)]
        async with open_redis_client(strange, 5.0) as client:
            refused = [await client.command("ECHO", "x"), await trio.to_thread.run_sync(asked, strange)]

    assert answers == [b"x", b"x"]
    assert all(isinstance(answer, Unavailable) for answer in refused)


async def test_a_renewed_certificate_is_used_without_a_restart(
    bridge: Complaints, valkey_url: str, tmp_path: Path
) -> None:
    """The files are read for each opening: certificates of some hours are renewed while a worker runs."""
    authority, ours = trustme.CA(), tmp_path / "ours.pem"
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trustme.CA().issue_cert("w.example").private_key_and_cert_chain_pem.write_to_path(str(ours))
    login = valkey_url.partition("//")[2].rpartition("@")[0]
    async with tls_before(valkey_url, authority.issue_cert("localhost"), authority) as port:
        options = RedisOptions(
            url=f"rediss://{login}@localhost:{port}", ca_file=str(tmp_path / "ca.pem"), cert_file=str(ours)
        )
        async with open_redis_client(options, 5.0) as client:
            refused = await client.command("ECHO", "x")
            authority.issue_cert("w.example").private_key_and_cert_chain_pem.write_to_path(str(ours))
            answer = await client.command("ECHO", "x")

    assert isinstance(refused, Unavailable)
    assert answer == b"x"


@contextmanager
def tls_for_known_clients(certificate: trustme.LeafCert, of_clients: trustme.CA) -> Iterator[int]:
    """A port that ends TLS with the alert of OpenSSL if a client has no certificate; it answers nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    of_clients.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), client:
                context.wrap_socket(client, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(("signed_by", "reason"), [
    (None, "Redis asks for a certificate of this client: set redis.cert_file and redis.key_file"),
    (trustme.CA(), "Redis does not know the authority that signed redis.cert_file"),
])  # fmt: skip
async def test_what_a_server_says_of_our_certificate_is_told_although_it_comes_late(
    bridge: Complaints, tmp_path: Path, signed_by: trustme.CA | None, reason: str
) -> None:
    """With TLS 1.3 it says so after our handshake, while the login is written: both clients read it all the same."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    if signed_by is not None:
        signed_by.issue_cert("w.example").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "ours.pem"))
    with tls_for_known_clients(authority.issue_cert("localhost"), authority) as port:
        options = RedisOptions(
            url=f"rediss://localhost:{port}",
            password="secret",
            ca_file=str(tmp_path / "ca.pem"),
            cert_file=str(tmp_path / "ours.pem") if signed_by else "",
        )

        def asked() -> list[Any]:
            with open_blocking_client(options) as client:
                return [run_blocking(client.command("ECHO", "x")) for _ in range(5)]

        async with open_redis_client(options, 5.0) as client:
            answers = [await client.command("ECHO", "x") for _ in range(5)]
        answers += await trio.to_thread.run_sync(asked)

    assert answers == [Unavailable(reason, is_unsent=True)] * 10


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca_file": "no.pem"}, "redis.ca_file: no.pem: No such file"),
        ({"cert_file": "no.pem"}, "redis.cert_file: no.pem: No such file"),
        ({"cert_file": "ca.pem"}, "redis.cert_file: ca.pem: "),
        ({"cert_file": "other.pem", "key_file": "no.pem"}, "redis.key_file: no.pem: No such file"),
        ({"cert_file": "no.pem", "key_file": "key.pem"}, "redis.cert_file: no.pem: No such file"),
        ({"cert_file": "other.pem", "key_file": "key.pem"}, "redis.key_file: key.pem: is not the key of"),
    ],
)
def test_a_file_that_cannot_be_used_for_tls_is_named_with_its_setting(
    work_folder: Path, files: dict[str, str], words: str
) -> None:
    """One that is missing, has no key, or has the key of another certificate; and without rediss:// none is read."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    authority.issue_cert("a.example").cert_chain_pems[0].write_to_path("other.pem")
    authority.issue_cert("b.example").private_key_pem.write_to_path("key.pem")

    assert words in tls_fault(RedisOptions(url="rediss://localhost", **files))
    assert tls_fault(RedisOptions(url="redis://localhost", **files)) == ""


async def test_a_unix_url_speaks_through_a_socket(bridge: Complaints, tmp_path: Path) -> None:
    """A server on this machine needs no port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = Valkey(tmp_path / "v", taken.getsockname()[1], ("--unixsocket", "run.sock"))
    server.start()
    try:
        async with open_redis_client(RedisOptions(url=f"unix://{tmp_path}/v/run.sock"), 5.0) as client:
            assert await client.command("RPUSH", "jobs", "x") == 1
            assert await client.wait("jobs", 1.0) is True
    finally:
        server.kill()


async def test_a_password_that_redis_needs_and_was_not_given_is_told_as_that(
    bridge: Complaints, tmp_path: Path
) -> None:
    """At a unix socket redis-py tells it as a connection that failed, in words that no operator knows (HELLO)."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = Valkey(tmp_path / "v", taken.getsockname()[1], ("--unixsocket", "run.sock"))
    server.start()
    try:
        with server.client() as owner:
            owner.config_set("requirepass", "secret")
        async with open_redis_client(RedisOptions(url=f"unix://{tmp_path}/v/run.sock"), 5.0) as client:
            answer = await client.command("PING")
    finally:
        server.kill()

    assert isinstance(answer, Unavailable)
    assert answer.is_login
    assert "needs a password" in answer.reason
