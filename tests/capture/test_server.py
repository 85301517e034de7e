"""The mail catcher over real sockets on the loopback interface, driven by plain trio streams."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trustme
from attrs import define

from tests.support.faults import faults
from trio_worker.capture import server as server_module
from trio_worker.capture.actions import CaughtMail
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import CatcherPortTaken, open_catcher
from trio_worker.capture.server_profile import EXTENSIONS
from trio_worker.capture.store import MemoryStore

PATIENCE_SECONDS = 60
CONTENT = b"Subject: hello\r\n\r\none line\r\n"
START = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
MAIL = START + b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT


@contextmanager
def patience() -> Iterator[None]:
    with trio.fail_after(PATIENCE_SECONDS):
        yield


@define
class Client:
    """A client that sends exactly the given octets."""

    stream: trio.abc.Stream
    received: bytes = b""

    async def say(self, octets: bytes, replies: int = 1) -> list[int]:
        """Send octets, wait for this number of replies, return their codes."""
        await self.stream.send_all(octets)
        return await self.hear(replies)

    async def hear(self, replies: int = 1) -> list[int]:
        codes: list[int] = []
        while len(codes) < replies:
            line, end, rest = self.received.partition(b"\r\n")
            if end:
                self.received = rest
                codes += [int(line[:3])] if line[3:4] == b" " else []
                continue
            more = bytes(await self.stream.receive_some())
            if not more:
                raise EOFError(codes)
            self.received += more
        return codes

    async def hears_the_end(self) -> bool:
        """Tell whether the server ended its side in order; a reset raises trio.BrokenResourceError."""
        return not self.received and not await self.stream.receive_some()


OPENED: list[trio.SocketStream] = []


@pytest.fixture(autouse=True)
def no_client_is_left() -> Iterator[None]:
    """Close what tests opened and left to their end."""
    yield
    while OPENED:
        descriptor = OPENED.pop().socket.detach()
        if descriptor >= 0:
            os.close(descriptor)


async def connect(catcher: Catcher, *, greeted: bool = True) -> Client:
    OPENED.append(await trio.open_tcp_stream(catcher.host, catcher.port))
    client = Client(OPENED[-1])
    if greeted:
        assert await client.hear() == [220]
        assert await client.say(b"EHLO client.example\r\n") == [250]
    return client


@asynccontextmanager
async def caught(text: str = "") -> AsyncIterator[tuple[Catcher, Client]]:
    async with open_catcher(faults=faults(text)) as catcher:
        yield catcher, await connect(catcher)


async def test_a_mail_is_caught() -> None:
    """What a client sends is there, exactly, once it has its reply."""
    with patience():
        async with caught() as (catcher, client):
            codes = await client.say(MAIL, 3)

            assert codes == [250, 250, 250]
            assert catcher.mails == (
                CaughtMail("a@example.com", ("b@example.com",), CONTENT, connection_id=1, used_bdat=True),
            )
            assert catcher.total == 1
            assert catcher.violations == ()
            assert catcher.commands == {1: ("EHLO", "MAIL", "RCPT", "BDAT")}


async def test_many_mails_on_many_connections_are_counted_exactly() -> None:
    """Ten connections with fifty pipelined mails each make five hundred mails, and no violation."""
    with patience():
        async with open_catcher(store=MemoryStore(max_mails=20)) as catcher:
            async with trio.open_nursery() as clients:
                for _ in range(10):
                    clients.start_soon(send_fifty, catcher)
            mails = await catcher.wait_for_mails(500)

            assert catcher.total == 500
            assert len(mails) == 20
            assert catcher.violations == ()
            assert catcher.connections_opened == 10


async def send_fifty(catcher: Catcher) -> None:
    client = await connect(catcher)
    assert await client.say(MAIL + (b"RSET\r\n" + MAIL) * 49, 3 + 4 * 49) == [250] * 199
    assert await client.say(b"QUIT\r\n") == [221]


async def test_waiting_for_mails_wakes_up() -> None:
    """wait_for_mails returns as soon as the mail is there, and at once when it was there before."""
    with patience():
        async with caught() as (catcher, client), trio.open_nursery() as nursery:
            nursery.start_soon(client.say, MAIL, 3)
            first = await catcher.wait_for_mails(1)
            again = await catcher.wait_for_mails(1)

            assert first == again == catcher.mails


async def test_quit_ends_in_order_and_the_connection_is_gone() -> None:
    """After QUIT the client sees the end, and the catcher counts no open connection."""
    with patience():
        async with caught() as (catcher, client):
            assert catcher.connections_open == 1
            codes = await client.say(b"QUIT\r\n")

            assert codes == [221]
            assert await client.hears_the_end()
            await client.stream.aclose()
            await catcher.wait_until(lambda: catcher.connections_open == 0)


async def test_input_after_quit_is_seen() -> None:
    """A client that goes on after the reply to QUIT breaks a rule."""
    with patience():
        async with caught() as (catcher, client):
            await client.say(b"QUIT\r\n")
            await client.stream.send_all(b"NOOP\r\n")
            await client.stream.aclose()
            await catcher.wait_until(lambda: bool(catcher.violations))

            assert [violation.rule for violation in catcher.violations] == ["RFC 5321 4.1.1.10"]


@pytest.mark.parametrize("octets", [b"", b"MAIL FR", START + b"DATA\r\n", START + b"BDAT 99 LAST\r\nhalf"])
async def test_a_client_that_vanishes_is_forgotten(octets: bytes) -> None:
    """A client that leaves at any moment, in order or not, raises nothing and leaves no mail."""
    with patience():
        async with caught() as (catcher, client):
            await client.stream.send_all(octets)
            await client.stream.aclose()
            await catcher.wait_until(lambda: catcher.connections_open == 0)

            assert catcher.total == 0
            assert catcher.connections_opened == 1


async def test_drop_all_resets_every_connection() -> None:
    """drop_all aborts all clients at once; the catcher goes on for the next one."""
    with patience():
        async with open_catcher() as catcher:
            clients = [await connect(catcher) for _ in range(3)]
            catcher.drop_all()
            catcher.drop_all()

            for client in clients:
                with pytest.raises(trio.BrokenResourceError):
                    await client.hears_the_end()
            assert await (await connect(catcher)).say(b"NOOP\r\n") == [250]


async def test_leaving_the_block_closes_everything() -> None:
    """When the catcher closes, its clients see the end and its port is free."""
    with patience():
        async with open_catcher() as catcher:
            client = await connect(catcher)

        with pytest.raises(OSError, match="attempts to connect"):
            await trio.open_tcp_stream(catcher.host, catcher.port)
        assert await client.hears_the_end()


@pytest.mark.parametrize(("stage", "replies"), [("mail", 0), ("rcpt", 1), ("data", 2), ("body", 2), ("final", 2)])
async def test_a_drop_is_a_reset_after_the_replies_before_it(stage: str, replies: int) -> None:
    """Drop resets the connection; what was answered before arrives, and nothing is kept."""
    with patience():
        async with caught(f"{stage}=drop") as (catcher, client):
            codes = await client.say(MAIL, replies)

            assert codes == [250] * replies
            with pytest.raises(trio.BrokenResourceError):
                await client.hears_the_end()
            assert catcher.total == 0


async def test_accept_drop_keeps_the_mail() -> None:
    """accept-drop resets the connection although the mail is kept."""
    with patience():
        async with caught("final=accept-drop") as (catcher, client):
            await client.say(MAIL, 2)

            with pytest.raises(trio.BrokenResourceError):
                await client.hears_the_end()
            assert catcher.total == 1


async def test_a_stall_never_answers_and_ends_with_the_client() -> None:
    """Stall answers nothing more, and notices that the client gave up."""
    with patience():
        async with caught("final=stall") as (catcher, client):
            await client.say(MAIL, 2)
            with trio.move_on_after(0.05) as silence:
                await client.hear()
            await client.stream.aclose()
            await catcher.wait_until(lambda: catcher.connections_open == 0)

            assert silence.cancelled_caught
            assert catcher.total == 0


async def test_a_stall_in_mid_content_blocks_the_writer() -> None:
    """body=stall stops reading, so that a client with a large mail cannot even write it."""
    with patience():
        async with caught("body=stall") as (_catcher, client):
            with trio.move_on_after(0.2) as blocked:
                await client.stream.send_all(START + b"BDAT 9000000 LAST\r\n" + bytes(9_000_000))

            assert blocked.cancelled_caught


async def test_a_421_after_every_five_mails_arrives_and_closes() -> None:
    """mail=421:after5 gives the sixth mail of each connection a 421 that arrives, pipelined input or not."""
    with patience():
        async with open_catcher(faults=faults("mail=421:after5")) as catcher:
            for _ in range(2):
                client = await connect(catcher)
                codes = await client.say(MAIL * 9, 16)
                assert codes == [250] * 15 + [421]
                assert await client.hears_the_end()

            assert catcher.total == 10
            assert catcher.violations == ()


async def test_refused_connections() -> None:
    """connect=421 greets with a refusal, connect=drop not at all."""
    with patience():
        async with open_catcher(faults=faults("connect=421")) as catcher:
            refused = await connect(catcher, greeted=False)
            assert await refused.hear() == [421]
            assert await refused.hears_the_end()

            catcher.faults = faults("connect=drop")
            dropped = await connect(catcher, greeted=False)
            with pytest.raises(trio.BrokenResourceError):
                await dropped.hears_the_end()


async def test_a_slow_relay_is_late_once_for_each_group() -> None:
    """Groups of commands are answered each 800 ms after its own reading, however many are on their way."""
    with patience():
        async with caught() as (catcher, client):
            catcher.faults = faults("every=delay-800ms")
            began = trio.current_time()
            for group in range(5):
                await client.stream.send_all(b"RSET\r\n" * 5)
                await until_heard(catcher, 1 + 5 * (group + 1))
            await client.hear(25)
            took_seconds = trio.current_time() - began

            assert 0.8 <= took_seconds < 3.2


async def until_heard(catcher: Catcher, commands: int) -> None:
    await catcher.wait_until(lambda: len(catcher.commands[1]) == commands)


async def test_what_is_late_still_comes_before_the_end() -> None:
    """A delayed 221 arrives before the connection is closed."""
    with patience():
        async with caught("quit=delay-50ms") as (_catcher, client):
            assert await client.say(b"QUIT\r\n") == [221]
            assert await client.hears_the_end()


async def test_late_replies_of_a_client_that_left_are_dropped() -> None:
    """A client that does not wait for a late reply does no harm."""
    with patience():
        async with caught("every=delay-50ms") as (catcher, client):
            await client.stream.send_all(b"NOOP\r\n")
            await client.stream.aclose()
            await catcher.wait_until(lambda: catcher.connections_open == 0)
            replacement = await connect(catcher)

            assert await replacement.say(b"NOOP\r\n") == [250]


class FullDisk:
    """A store that has no room."""

    mails = ()
    total = 0

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        del mails
        raise OSError(errno.ENOSPC, "no room")


async def test_a_mail_that_cannot_be_stored_is_not_acknowledged() -> None:
    """When the store fails the client gets no 250, but a reset, and the catcher says why."""
    with patience():
        async with open_catcher(store=FullDisk()) as catcher:
            client = await connect(catcher)
            await client.stream.send_all(MAIL)

            with pytest.raises(trio.BrokenResourceError):
                await client.hears_the_end()
            assert catcher.problem is not None
            assert catcher.problem.errno == errno.ENOSPC


async def test_a_port_that_is_taken_is_an_error_of_its_own() -> None:
    """Where another program listens, the error names the address and says what to do."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with (
        patience(),
        pytest.raises(CatcherPortTaken, match=f"127.0.0.1:{port} is taken.*capture.listen and smtp.port to"),
    ):
        async with open_catcher(port=port):
            pass
    await listeners[0].aclose()


async def test_a_name_with_several_addresses_gets_one_port() -> None:
    """Localhost with port 0 listens on one port only."""
    with patience():
        async with open_catcher(host="localhost") as catcher:
            assert await (await connect(catcher)).say(b"NOOP\r\n") == [250]


async def test_an_address_that_is_not_ours_is_an_os_error() -> None:
    """An address that this machine does not have is no port that is taken."""
    with patience(), pytest.raises(OSError, match="assign"):
        async with open_catcher(host="192.0.2.1", port=1025):
            pass


async def test_only_the_latest_logs_are_kept() -> None:
    """Of many connections the latest two hundred have their commands remembered."""
    with patience():
        async with open_catcher() as catcher:
            for _ in range(201):
                client = await connect(catcher, greeted=False)
                await client.hear()
                await client.stream.aclose()

            assert list(catcher.commands) == list(range(2, 202))


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_starttls_login_and_mail(certificate: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """STARTTLS, then a login, then a mail that knows of both."""
    with patience():
        async with open_catcher(tls=certificate, credentials=("ann", "secret"), require_auth=True) as catcher:
            client = await connect(catcher)
            assert await client.say(b"STARTTLS\r\n") == [220]
            secure = Client(trio.SSLStream(client.stream, trusting, server_hostname="localhost"))
            assert await secure.say(b"EHLO client.example\r\n") == [250]
            assert await secure.say(b"AUTH PLAIN AGFubgB3cm9uZw==\r\n") == [535]
            assert await secure.say(b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n") == [235]
            assert await secure.say(MAIL, 3) == [250, 250, 250]
            assert await secure.say(b"QUIT\r\n") == [221]
            assert await secure.hears_the_end()

            assert [(mail.tls, mail.user) for mail in catcher.mails] == [(True, "ann")]
            assert catcher.logins_tried == 2
            assert catcher.violations == ()


async def test_plaintext_across_starttls_is_discarded(certificate: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """Commands smuggled behind STARTTLS are neither answered nor obeyed under TLS."""
    with patience():
        async with open_catcher(tls=certificate) as catcher:
            client = await connect(catcher)
            assert await client.say(b"STARTTLS\r\nEHLO evil\r\n") == [220]
            secure = Client(trio.SSLStream(client.stream, trusting, server_hostname="localhost"))

            assert await secure.say(b"MAIL FROM:<a@b>\r\n") == [503]
            assert catcher.violations[0].rule == "RFC 3207 4"


async def test_implicit_tls(certificate: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """With implicit TLS the greeting itself comes under TLS; a 421 arrives and the connection ends in order."""
    with patience():
        async with open_catcher(tls=certificate, implicit_tls=True, faults=faults("mail=421")) as catcher:
            tcp = (await connect(catcher, greeted=False)).stream
            client = Client(trio.SSLStream(tcp, trusting, server_hostname="localhost"))
            assert await client.hear() == [220]
            assert await client.say(b"EHLO client.example\r\n") == [250]

            assert await client.say(START) == [421]
            assert await client.hears_the_end()


async def test_a_failed_handshake_ends_the_connection_only(certificate: ssl.SSLContext) -> None:
    """A client that does not speak TLS after STARTTLS loses its connection, nothing else happens."""
    with patience():
        async with open_catcher(tls=certificate) as catcher:
            client = await connect(catcher)
            await client.say(b"STARTTLS\r\n")
            await client.stream.send_all(b"EHLO in the clear\r\n")
            await catcher.wait_until(lambda: catcher.connections_open == 0)

            assert await (await connect(catcher)).say(b"NOOP\r\n") == [250]


async def test_drop_all_works_under_tls(certificate: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    """drop_all resets encrypted connections too."""
    with patience():
        async with open_catcher(tls=certificate, extensions=EXTENSIONS) as catcher:
            client = await connect(catcher)
            await client.say(b"STARTTLS\r\n")
            secure = Client(trio.SSLStream(client.stream, trusting, server_hostname="localhost"))
            await secure.say(b"EHLO client.example\r\n")
            catcher.drop_all()

            with pytest.raises(trio.BrokenResourceError):
                await secure.hears_the_end()


async def test_implicit_tls_needs_a_context() -> None:
    """Asking for implicit TLS without a certificate is a mistake of the caller."""
    with pytest.raises(ValueError, match="tls context"):
        async with open_catcher(implicit_tls=True):
            pass


async def test_one_connection_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 421, and the others go on; the next one is welcome when one of them has ended."""
    monkeypatch.setattr(server_module, "MAX_CLIENTS", 2)
    with patience():
        async with open_catcher() as catcher:
            first, second = await connect(catcher), await connect(catcher)
            async with await trio.open_tcp_stream("127.0.0.1", catcher.port) as third:
                assert b"".join([chunk async for chunk in third]).startswith(b"421 4.3.2 ")
            assert await first.say(b"QUIT\r\n") == [221]
            await catcher.wait_until(lambda: catcher.connections_open == 1)
            assert await (await connect(catcher)).say(MAIL, 3) == [250] * 3
            assert await second.say(MAIL, 3) == [250] * 3
