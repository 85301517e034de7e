"""Opening a session: every step that can fail says what failed, and no password or mail goes out in clear."""

from __future__ import annotations

import base64
import datetime as dt
import errno
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.bridge import Complaints
from tests.support.faults import faults
from tests.support.repeating_relay import play_repeating_relay
from trio_worker.capture.server import open_catcher
from trio_worker.capture.server_profile import EXTENSIONS
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.options import RelayOptions, Timeouts
from trio_worker.smtp.outcome import Accepted, Trouble
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.smtp.reply import Stage
from trio_worker.smtp.session import Session, open_session

MAIL = Envelope("us@example.com", ("a@example.org",), b"Subject: x\r\n\r\nhello\r\n", awaits_recipients=True)
QUICK = Timeouts(connect_seconds=5, command_seconds=5, final_reply_seconds=5)
LOGIN = ("mailer", "correct horse")


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """An authority that the tests trust."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The certificate of a relay called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a worker trusts whose smtp.ca_file names the authority."""
    context = tls_context(RelayOptions())
    authority.configure_trust(context)
    return context


def relay(port: int, tls: str, context: ssl.SSLContext | None = None, **changes: Any) -> Relay:
    options = evolve(RelayOptions(host="localhost", port=port, tls=tls), **changes)
    return Relay(options, QUICK, context or tls_context(options))


def login(**changes: Any) -> dict[str, Any]:
    return {"username": LOGIN[0], "password": LOGIN[1], **changes}


async def session_of(to: Relay) -> Session:
    found = await open_session(to)
    assert isinstance(found, Session), found
    return found


async def trouble(to: Relay) -> Trouble:
    found = await open_session(to)
    assert isinstance(found, Trouble), found
    return found


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_a_session_carries_mail_whatever_its_encryption(
    bridge: Complaints, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, tls: str
) -> None:
    """Plain, STARTTLS and implicit TLS end in the same conversation."""
    context = None if tls == "none" else server_tls
    async with open_catcher(tls=context, implicit_tls=tls == "implicit") as catcher:
        session = await session_of(relay(catcher.port, tls, client_tls))
        connection = Connection(1, session, QUICK)
        for _ in range(3):
            assert isinstance(await connection.deliver(MAIL), Accepted)
        await connection.close()

        assert [mail.tls for mail in catcher.mails] == [tls != "none"] * 3
        assert (session.tls == "") == (tls == "none")
        assert (session.certificate_ends_at is None) == (tls == "none")
        assert catcher.violations == ()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_each_login_mechanism_works_under_tls(
    bridge: Complaints, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, mechanism: str
) -> None:
    """The one that is offered is used."""
    async with open_catcher(tls=server_tls, credentials=LOGIN, mechanisms=(mechanism,), require_auth=True) as catcher:
        connection = Connection(1, await session_of(relay(catcher.port, "starttls", client_tls, **login())), QUICK)

        assert isinstance(await connection.deliver(MAIL), Accepted)
        assert [mail.user for mail in catcher.mails] == [LOGIN[0]]
        await connection.close()


RIGHT = b64encode(b"\0mailer\0correct horse")
WRONG = b"535 5.7.8 wrong"


def asks_after_the_command(words: list[bytes]) -> bytes:
    """A relay that takes no login with the command."""
    if len(words) > 2:
        return b"501 5.5.4 AUTH PLAIN takes no argument"
    return b"334 " if words[0] == b"AUTH" else b"235 in" if words == [RIGHT] else WRONG


def asks_again(words: list[bytes]) -> bytes:
    """A relay that asks although it has the login."""
    return b"334 " if words[0] == b"AUTH" else b"235 in" if words == [RIGHT] else WRONG


def knows_no_way(words: list[bytes]) -> bytes:
    """A relay that offers what it does not have."""
    return b"504 5.5.4 unknown"


@pytest.mark.parametrize(("mechanism", "reply_to", "commands", "is_open"), [
    ("PLAIN", asks_after_the_command, 3, True),
    ("PLAIN", asks_again, 2, True),
    ("PLAIN", lambda words: b"235 in" if words[-1] == RIGHT else WRONG, 1, True),
    ("PLAIN", lambda _: WRONG, 1, False),
    ("PLAIN", lambda _: b"454 4.7.0 later", 1, False),
    ("PLAIN", lambda _: b"334 ", 2, False),
    ("PLAIN", knows_no_way, 2, False),
    ("LOGIN", lambda words: {b"AUTH": b"334 VXNlcm5hbWU6", b"bWFpbGVy": b"334 UGFzc3dvcmQ6"}.get(words[0], b"235 in")
     if len(words) < 3 else b"501 5.5.4 AUTH LOGIN takes no argument", 3, True),
    ("LOGIN", lambda _: WRONG, 1, False),
    ("LOGIN", lambda words: b"334 " if words[0] == b"AUTH" else WRONG, 2, False),
    ("LOGIN", lambda _: b"334 ", 3, False),
])  # fmt: skip
async def test_a_relay_may_ask_for_the_login(
    bridge: Complaints,
    nursery: trio.Nursery,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    mechanism: str,
    reply_to: Callable[[list[bytes]], bytes],
    commands: int,
    is_open: bool,  # noqa: FBT001
) -> None:
    """It takes the login with the command or when it asks; after a refusal of the login itself no other is tried."""
    said: list[list[bytes]] = []

    async def serve(stream: trio.SocketStream) -> None:
        inside = trio.SSLStream(stream, server_tls, server_side=True)
        await inside.send_all(b"220 relay\r\n")
        await inside.receive_some()
        await inside.send_all(b"250-relay\r\n250 AUTH " + mechanism.encode() + b"\r\n")
        with suppress(trio.BrokenResourceError):
            while line := await inside.receive_some():
                said.append(bytes(line).split())
                await inside.send_all(reply_to(said[-1]) + b"\r\n")

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="localhost"))
    to = relay(listeners[0].socket.getsockname()[1], "implicit", client_tls, **login())
    with trio.fail_after(20):
        found = await open_session(to)
    nursery.cancel_scope.cancel()

    assert len(said) == commands
    assert isinstance(found, Session) == is_open
    if isinstance(found, Session):
        found.transport.abort()
    else:
        assert (found.how, found.stage) == (FailureKind.LOGIN, Stage.AUTH)


async def test_a_refused_login_is_one_attempt_and_says_so(
    bridge: Complaints, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Three mechanisms are offered; only one is tried, because relays lock accounts."""
    async with open_catcher(tls=server_tls, credentials=LOGIN) as catcher:
        found = await trouble(relay(catcher.port, "starttls", client_tls, **login(password="wrong")))

        assert (found.how, found.stage) == (FailureKind.LOGIN, Stage.AUTH)
        assert found.reply is not None
        assert found.reply.code == 535
        assert catcher.logins_tried == 1


async def test_a_password_never_goes_out_in_clear(bridge: Complaints) -> None:
    """Without TLS only a mechanism that does not show it is used."""
    async with open_catcher(credentials=LOGIN, mechanisms=("PLAIN", "LOGIN")) as catcher:
        found = await trouble(relay(catcher.port, "none", **login()))

        assert found.how is FailureKind.LOGIN
        assert "PLAIN" in found.reason
        assert catcher.logins_tried == 0
    async with open_catcher(credentials=LOGIN) as catcher:
        await session_of(relay(catcher.port, "none", **login()))

        assert catcher.logins_tried == 1


@pytest.mark.case("C22")
async def test_stripped_starttls_is_refused(bridge: Complaints, client_tls: ssl.SSLContext) -> None:
    """Somebody between us and the relay may have taken the offer out: no login, no mail."""
    async with open_catcher(credentials=LOGIN) as catcher:
        found = await trouble(relay(catcher.port, "starttls", client_tls, **login()))

        assert (found.how, found.stage) == (FailureKind.TLS, Stage.STARTTLS)
        assert (catcher.logins_tried, catcher.total) == (0, 0)


@pytest.mark.case("C24")
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    bridge: Complaints, server_tls: ssl.SSLContext, tls: str
) -> None:
    """The trouble names the certificate, for each way in which the library reports it."""
    async with open_catcher(tls=server_tls, implicit_tls=tls == "implicit") as catcher:
        found = await trouble(relay(catcher.port, tls))

    assert (found.how, found.stage) == (FailureKind.TLS, Stage.CONNECT if tls == "implicit" else Stage.STARTTLS)
    assert "certificate" in found.reason


def test_only_a_relay_with_tls_needs_the_authorities_of_the_system() -> None:
    """They take long to read; without them no relay is trusted, and every certificate is checked."""
    trusted = {tls: tls_context(RelayOptions(tls=tls)) for tls in ("starttls", "implicit", "none")}

    assert trusted["starttls"].cert_store_stats() == ssl.create_default_context().cert_store_stats()
    assert trusted["implicit"].cert_store_stats() == ssl.create_default_context().cert_store_stats()
    assert trusted["none"].cert_store_stats()["x509"] == 0
    for context in trusted.values():
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.case("C24")
async def test_a_certificate_without_a_subject_alternative_name_is_refused(
    bridge: Complaints, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Its common name is no host name any more (RFC 9525)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(tz=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "server.pem"
    path.write_bytes(certificate + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    async with open_catcher(tls=context) as catcher:
        found = await trouble(relay(catcher.port, "starttls", ca_file=str(path)))

    assert found.how is FailureKind.TLS
    assert "ostname" in found.reason


@pytest.mark.case("C24")
async def test_a_certificate_for_another_name_or_time_is_refused(
    bridge: Complaints, authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    """A wrong host name and an expired certificate, each with its reason."""
    yesterday = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=1)
    for certificate, word in [
        (authority.issue_cert("elsewhere.example"), "ostname"),
        (authority.issue_cert("localhost", not_after=yesterday), "expired"),
    ]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        async with open_catcher(tls=context) as catcher:
            found = await trouble(relay(catcher.port, "starttls", client_tls))

        assert found.how is FailureKind.TLS
        assert word in found.reason


@pytest.mark.case("C3", "C21", "C22")
@pytest.mark.parametrize(("text", "how", "stage"), [
    ("connect=554", FailureKind.GREETING, Stage.GREETING),
    ("connect=421", FailureKind.GREETING, Stage.GREETING),
    ("connect=drop", FailureKind.EOF, Stage.GREETING),
    ("ehlo=550", FailureKind.GREETING, Stage.EHLO),
    ("ehlo=drop", FailureKind.EOF, Stage.EHLO),
    ("starttls=454", FailureKind.TLS, Stage.STARTTLS),
    ("starttls=drop", FailureKind.EOF, Stage.STARTTLS),
    ("auth=454", FailureKind.LOGIN, Stage.AUTH),
    ("auth=drop", FailureKind.EOF, Stage.AUTH),
])  # fmt: skip
async def test_a_step_that_the_relay_refuses_is_named(
    bridge: Complaints,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    text: str,
    how: FailureKind,
    stage: Stage,
) -> None:
    """The trouble has the step and the kind of failure, and no connection is left open."""
    async with open_catcher(tls=server_tls, credentials=LOGIN, faults=faults(text)) as catcher:
        found = await trouble(relay(catcher.port, "starttls", client_tls, **login()))

        assert (found.how, found.stage) == (how, stage)
        with trio.fail_after(20):
            await catcher.wait_until(lambda: catcher.connections_open == 0)


@pytest.mark.case("C3")
@pytest.mark.parametrize("stage", ["connect", "ehlo", "starttls", "auth"])
async def test_a_silent_relay_is_given_up_at_the_deadline(
    bridge: Complaints, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, stage: str
) -> None:
    """One deadline bounds the whole opening, and the connection is broken at it."""
    async with open_catcher(tls=server_tls, credentials=LOGIN, faults=faults(f"{stage}=stall")) as catcher:
        patient = relay(catcher.port, "starttls", client_tls, **login())
        with trio.fail_after(20):
            found = await trouble(evolve(patient, timeouts=Timeouts(connect_seconds=0.3)))
            await catcher.wait_until(lambda: catcher.connections_open == 0)

    assert found.how is FailureKind.TIMEOUT


@pytest.mark.case("C25")
async def test_implicit_tls_at_a_port_without_it_names_the_setting(
    bridge: Complaints, client_tls: ssl.SSLContext
) -> None:
    """587 and 465 are easily mixed up: OpenSSL alone says "wrong version number"."""
    async with open_catcher() as catcher:
        found = await trouble(relay(catcher.port, "implicit", client_tls))

    assert (found.how, "smtp.tls = starttls" in found.reason) == (FailureKind.TLS, True)
    assert found.stage is Stage.CONNECT


async def test_a_port_that_expects_tls_at_once_names_the_setting(
    bridge: Complaints, client_tls: ssl.SSLContext, server_tls: ssl.SSLContext
) -> None:
    """Its relay waits for our first bytes as we wait for its greeting."""
    async with open_catcher(tls=server_tls, implicit_tls=True) as catcher:
        to = relay(catcher.port, "starttls", client_tls)
        found = await trouble(evolve(to, timeouts=evolve(QUICK, connect_seconds=0.3)))

    assert (found.how, found.stage) == (FailureKind.TIMEOUT, Stage.GREETING)
    assert "smtp.tls = implicit" in found.reason


async def test_a_hanging_tls_handshake_is_given_up(bridge: Complaints) -> None:
    """The relay accepts and never speaks TLS."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(20):
        found = await trouble(evolve(relay(port, "implicit"), timeouts=Timeouts(connect_seconds=0.2)))
    await listeners[0].aclose()

    assert found.how is FailureKind.TIMEOUT


@pytest.mark.case("C23")
async def test_what_was_slipped_in_before_tls_is_not_believed(
    bridge: Complaints, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """An attacker's plain text behind the 220 of STARTTLS is no answer to the EHLO inside TLS."""
    greeted: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 relay\r\n")
        await stream.receive_some()
        await stream.send_all(b"250-relay\r\n250 STARTTLS\r\n")
        await stream.receive_some()
        await stream.send_all(b"220 go ahead\r\n250-evil\r\n250-CHUNKING\r\n250 SIZE 7\r\n")
        inside = trio.SSLStream(stream, server_tls, server_side=True)
        with suppress(trio.BrokenResourceError):
            greeted.append(bytes(await inside.receive_some()))
            await inside.send_all(b"250-relay\r\n250 PIPELINING\r\n")
            await inside.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        with trio.fail_after(20):
            found = await open_session(relay(listeners[0].socket.getsockname()[1], "starttls", client_tls))
        if isinstance(found, Session):
            assert not found.capabilities.chunking
            assert found.capabilities.pipelining
            assert greeted[0].startswith(b"EHLO ")
            found.transport.abort()
        else:
            assert found.stage in {Stage.STARTTLS, Stage.EHLO}
        nursery.cancel_scope.cancel()


@pytest.mark.case("C2")
async def test_an_address_that_swallows_everything_does_not_hold_up_the_next(bridge: Complaints) -> None:
    """A relay with two addresses, the first a black hole: the second is tried within a second."""
    async with open_catcher() as catcher:
        with socket.socket() as hole:
            # A listener whose queue is full does not answer a SYN.
            hole.bind(("127.0.0.2", catcher.port))
            hole.listen(0)
            fillers = []
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)  # noqa: FBT003  the standard library takes it so
                filler.connect_ex(("127.0.0.2", catcher.port))
                fillers.append(filler)

            class TwoAddresses(trio.abc.HostnameResolver):
                async def getaddrinfo(self, host: Any, port: Any, *_args: Any, **_more: Any) -> list[Any]:
                    assert host
                    stream = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
                    return [(*stream, ("127.0.0.2", int(port))), (*stream, ("127.0.0.1", int(port)))]

                async def getnameinfo(self, sockaddr: Any, flags: Any) -> Any:
                    raise NotImplementedError

            trio.socket.set_custom_hostname_resolver(TwoAddresses())
            session = await session_of(relay(catcher.port, "none", host="mx.example"))
            assert session.seconds > 0.2
            session.transport.abort()
            for filler in fillers:
                filler.close()


@pytest.mark.case("C1")
async def test_nobody_listening_and_no_such_name_are_told_apart(
    bridge: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connection refused names itself; an unknown name is trouble of resolving."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await trouble(relay(unused.getsockname()[1], "none", host="127.0.0.1"))

    async def no_such_name(*_args: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", no_such_name)
    unknown = await trouble(relay(25, "none", host="mx.invalid"))

    assert (refused.how, unknown.how) == (FailureKind.CONNECT, FailureKind.RESOLVE)
    assert "refused" in refused.reason
    assert "mx.invalid" in unknown.reason


async def test_a_name_that_no_host_can_have_is_trouble_of_resolving(bridge: Complaints) -> None:
    """An empty label is the codec's own error, and not one of the system."""
    found = await trouble(relay(25, "none", host="mail..example.com"))

    assert found.how is FailureKind.RESOLVE


async def test_a_lack_of_descriptors_is_our_own_trouble(bridge: Complaints, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be reported as a fault of the relay."""

    async def out_of_descriptors(*_args: object, **_more: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(trio, "open_tcp_stream", out_of_descriptors)
    found = await trouble(relay(25, "none"))

    assert (found.how, found.stage) == (FailureKind.LOCAL, Stage.CONNECT)


async def test_a_cancelled_opening_leaves_nothing_open(
    bridge: Complaints, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """A drain must not wait for a relay that is slow to greet."""
    async with open_catcher(tls=server_tls, faults=faults("ehlo=stall")) as catcher:
        with trio.move_on_after(0.2) as scope, trio.fail_after(20):
            await open_session(relay(catcher.port, "starttls", client_tls))
        with trio.fail_after(20):
            await catcher.wait_until(lambda: catcher.connections_open == 0)

    assert scope.cancelled_caught


async def test_an_ignored_extension_is_not_used(bridge: Complaints) -> None:
    """smtp.ignore_ehlo is the off switch for a relay's broken extension."""
    async with open_catcher() as catcher:
        session = await session_of(relay(catcher.port, "none", ignore_ehlo=("chunking",)))

        assert not session.capabilities.chunking
        assert session.capabilities.pipelining
        assert {"CHUNKING", "PIPELINING"} <= EXTENSIONS
        session.transport.abort()


async def test_a_sender_beyond_ascii_needs_a_relay_for_it(bridge: Complaints) -> None:
    """Without SMTPUTF8 no session is of use, and none is logged in to."""
    async with open_catcher(credentials=LOGIN, auth_in_clear=True) as catcher:
        offered = evolve(relay(catcher.port, "none"), needs_smtputf8=True)
        (await session_of(offered)).transport.abort()
        refused = evolve(relay(catcher.port, "none", ignore_ehlo=("SMTPUTF8",), **login()), needs_smtputf8=True)
        found = await trouble(refused)

        assert (found.how, found.stage) == (FailureKind.EXTENSION, Stage.EHLO)
        assert "our sender is not ASCII before the @" in found.reason
        assert all("AUTH" not in verbs for verbs in catcher.commands.values())


async def _serve(stream: trio.SocketStream, script: list[bytes]) -> None:
    """Send the parts of a script, each after something was received."""
    for part in script:
        await stream.send_all(part)
        await stream.receive_some()


@pytest.fixture
async def scripted(nursery: trio.Nursery) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A relay that says exactly what the test puts into its script."""
    script: list[bytes] = []
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def handle(stream: trio.SocketStream) -> None:
        await _serve(stream, script)

    nursery.start_soon(trio.serve_listeners, handle, listeners)
    yield listeners[0].socket.getsockname()[1], script
    nursery.cancel_scope.cancel()


@pytest.mark.case("C7")
@pytest.mark.parametrize(
    "greeting", [b"hello\r\n", b"2_0 hi\r\n", b"-20 hi\r\n", b"250-hi\r\n550 no\r\n", b"220 " + b"x" * 40_000]
)
async def test_a_greeting_that_is_no_smtp_is_trouble(
    bridge: Complaints, scripted: tuple[int, list[bytes]], greeting: bytes
) -> None:
    """No exception of the library gets past the opening."""
    port, script = scripted
    script.append(greeting)
    with trio.fail_after(20):
        found = await trouble(relay(port, "none", host="127.0.0.1"))

    assert found.stage in {Stage.GREETING, Stage.EHLO}


@pytest.mark.parametrize("refusal", [b"500 what?\r\n", b"502 5.5.1 not implemented\r\n"])
async def test_a_relay_without_ehlo_gets_helo(
    bridge: Complaints, scripted: tuple[int, list[bytes]], refusal: bytes
) -> None:
    """One command at a time, as in RFC 821; a relay that should log us in cannot, and says so."""
    port, script = scripted
    script += [b"220 old relay\r\n", refusal, b"250 hello\r\n"]
    with trio.fail_after(20):
        session = await session_of(relay(port, "none", host="127.0.0.1"))
    assert session.capabilities.keywords == ()
    session.transport.abort()


@pytest.mark.parametrize("refusal", [b"550 go away\r\n", b"421 busy\r\n"])
async def test_a_refusal_of_ehlo_is_no_reason_for_helo(
    bridge: Complaints, scripted: tuple[int, list[bytes]], refusal: bytes
) -> None:
    """A relay that knows the command and refuses us is trouble, with its words."""
    port, script = scripted
    script += [b"220 relay\r\n", refusal, b"250 hello\r\n"]
    with trio.fail_after(20):
        found = await trouble(relay(port, "none", host="127.0.0.1"))

    assert found.stage is Stage.EHLO


SECRET_FORMS = (*LOGIN, base64.b64encode(LOGIN[0].encode()).decode(), base64.b64encode(LOGIN[1].encode()).decode())


@pytest.mark.parametrize("accepts", [True, False])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_relay_that_repeats_what_it_was_sent_shows_no_secret(
    bridge: Complaints,
    nursery: trio.Nursery,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    mechanism: str,
    *,
    accepts: bool,
) -> None:
    """No trouble, step of the opening, reply to a mail or line of a trace has the password in any form."""
    listeners = await trio.open_ssl_over_tcp_listeners(0, server_tls, host="127.0.0.1", https_compatible=True)
    port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]  # of TCP
    nursery.start_soon(
        trio.serve_listeners,
        partial(play_repeating_relay, login=LOGIN, mechanism=mechanism, accepts=accepts),
        listeners,
    )
    shown: list[str] = []
    with trio.fail_after(20):
        opened = await open_session(
            relay(port, "implicit", client_tls, host="localhost", **login()), lambda _stage, says: shown.append(says)
        )
        if isinstance(opened, Session):
            shown += opened.capabilities.keywords
            connection = Connection(1, opened, QUICK)
            connection.trace(lambda line: shown.append(str(line)))
            shown.append(str(await connection.deliver(MAIL)))
            await connection.close()
            shown += [connection.end, repr(opened.secrets)]
        else:
            shown.append(str(opened))
    nursery.cancel_scope.cancel()

    assert isinstance(opened, Session) is accepts
    assert any("got" in text and "…" in text for text in shown), shown
    for secret in SECRET_FORMS[1:]:
        assert not [text for text in shown if secret.lower() in text.lower()]
    assert not any(re.search("[0-9a-f]{32}", text) for text in shown)
