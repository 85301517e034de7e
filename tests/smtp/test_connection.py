"""One connection against the strict catcher, with faults at every stage."""

from __future__ import annotations

import os
import socket
import ssl
from functools import partial
from types import SimpleNamespace

import pytest
import trio
import trio.testing
import trustme
from attrs import evolve

from tests.support.bridge import Complaints
from tests.support.faults import faults
from tests.support.relay import CHUNKED, FakeTransport, session_on
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.options import RelayOptions, Timeouts
from trio_worker.smtp.outcome import Accepted, NotSent, Outcome, Refused, Uncertain, Unsendable
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.smtp.session import Session, open_session

MAIL = Envelope("us@example.com", ("a@example.org",), b"Subject: x\r\n\r\n.hello\r\n")
AWAITING = evolve(MAIL, awaits_recipients=True)
LARGE = evolve(MAIL, content=b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n" + b"z" * 900 + b"\r\n" * 4_000_000)
PATIENCE = Timeouts(5, 5, 5)
MODES = ["PIPELINING,CHUNKING", "PIPELINING", "CHUNKING", ""]


async def connect(
    catcher: Catcher, nursery: trio.Nursery, mode: str = MODES[0], timeouts: Timeouts = PATIENCE
) -> Connection:
    """Open a connection to the catcher, and watch it as the pool does."""
    ignored = tuple(word for word in ("PIPELINING", "CHUNKING") if word not in mode.split(","))
    options = RelayOptions(host=catcher.host, port=catcher.port, tls="none", ignore_ehlo=ignored)
    opened = await open_session(Relay(options, timeouts, tls_context(options)))
    assert isinstance(opened, Session), opened
    connection = Connection(1, opened, timeouts)
    nursery.start_soon(connection.watch)
    return connection


@pytest.mark.parametrize("mode", MODES)
async def test_a_mail_arrives_as_it_was_in_every_mode(
    bridge: Complaints, nursery: trio.Nursery, catcher: Catcher, mode: str
) -> None:
    """Byte for byte, its leading dots too, and the strict peer has nothing to say."""
    connection = await connect(catcher, nursery, mode)
    for envelope in (MAIL, AWAITING, MAIL):
        assert isinstance(await connection.deliver(envelope), Accepted)
    await connection.close()

    assert [mail.content for mail in catcher.mails] == [MAIL.content] * 3
    assert [mail.used_bdat for mail in catcher.mails] == ["CHUNKING" in mode] * 3


@pytest.mark.parametrize("mode", MODES)
async def test_a_refused_mail_leaves_the_connection_good(
    bridge: Complaints, nursery: trio.Nursery, catcher: Catcher, mode: str
) -> None:
    """The next mail over it is delivered: the refused one's sender does not stand."""
    connection = await connect(catcher, nursery, mode)
    for stage, code in (("rcpt", 550), ("data", 451), ("final", 552)):
        catcher.faults = faults(f"{stage}={code}:first1")
        outcome = await connection.deliver(MAIL)
        if stage == "data" and "CHUNKING" in mode:
            continue  # there is no DATA to refuse
        assert isinstance(outcome, Refused)
        assert outcome.reply.code == code
        assert isinstance(await connection.deliver(MAIL), Accepted)
    await connection.close()


EXPECTED: list[tuple[str, str, type[Outcome]]] = [
    (mode, f"{stage}={action}", NotSent if stage != "final" or action == "421" else Uncertain)
    for mode in MODES
    for stage in ("mail", "rcpt", "data", "final")
    for action in ("drop", "421", "stall", "accept-drop")
    if (action != "accept-drop" or stage == "final") and not (stage == "data" and "CHUNKING" in mode)
]


@pytest.mark.case("C10", "C12")
@pytest.mark.parametrize(("mode", "text", "kind"), EXPECTED)
async def test_a_connection_lost_at_any_stage_tells_what_became_of_the_mail(
    bridge: Complaints, nursery: trio.Nursery, mode: str, text: str, kind: type[Outcome]
) -> None:
    """Not sent while that can be proven, uncertain from the last byte on; never a false success."""
    impatient = Timeouts(5, 0.3, 0.3)
    async with open_catcher(faults=faults(text)) as catcher:
        connection = await connect(catcher, nursery, mode, impatient)
        with trio.fail_after(20):
            outcome = await connection.deliver(AWAITING)

        assert type(outcome) is kind
        assert connection.end
        assert catcher.total == (1 if "accept" in text else 0)
        assert isinstance(await connection.deliver(MAIL), NotSent)


@pytest.mark.case("C27")
@pytest.mark.parametrize("mode", MODES)
async def test_a_reset_that_is_not_answered_hides_no_refusal(
    bridge: Complaints, nursery: trio.Nursery, mode: str
) -> None:
    """The refused mail has its 550; only the next one finds the connection silent, and was not sent."""
    async with open_catcher(faults=faults("rcpt=550:first1 rset=stall")) as catcher:
        connection = await connect(catcher, nursery, mode, Timeouts(5, 0.3, 0.3))
        refused = await connection.deliver(AWAITING)
        assert isinstance(refused, Refused)
        assert refused.reply.code == 550
        # Where the refusal left no sender standing no RSET is owed.
        following = await connection.deliver(AWAITING)
        assert isinstance(following, Accepted | NotSent)
        assert bool(connection.end) == isinstance(following, NotSent)
        assert ("RSET" in str(catcher.commands)) == isinstance(following, NotSent)
        connection.abort()


@pytest.mark.case("C33")
@pytest.mark.parametrize("mode", MODES)
async def test_a_relay_that_stops_reading_is_given_up(bridge: Complaints, nursery: trio.Nursery, mode: str) -> None:
    """Its window is shut in the middle of the content: at the deadline the mail is known not to be sent."""
    async with open_catcher(faults=faults("body=stall"), size_limit_bytes=50_000_000) as catcher:
        connection = await connect(catcher, nursery, mode, Timeouts(5, 0.3, 5))
        with trio.fail_after(10):
            outcome = await connection.deliver(evolve(LARGE, awaits_recipients=True))

        assert isinstance(outcome, NotSent)
        assert outcome.loss.how is FailureKind.TIMEOUT
        assert catcher.total == 0


@pytest.mark.case("B7")
async def test_a_cancel_before_the_last_byte_keeps_the_mail_from_being_accepted(
    bridge: Complaints, nursery: trio.Nursery
) -> None:
    """The relay stops reading in the middle; a cancel aborts, and what was unsent is dropped."""
    async with open_catcher(faults=faults("body=stall"), size_limit_bytes=50_000_000) as catcher:
        connection = await connect(catcher, nursery, "PIPELINING")
        with trio.move_on_after(0.5), trio.fail_after(20):
            outcome = await connection.deliver(LARGE)

        assert isinstance(outcome, NotSent)
        assert connection.end.startswith("cancelled")
        assert catcher.total == 0


@pytest.mark.case("B5")
async def test_a_cancel_after_the_last_byte_tells_that_the_mail_may_be_out(
    bridge: Complaints, nursery: trio.Nursery
) -> None:
    """The relay may accept it: it is uncertain, this is reported at once, and the connection is never used again."""
    async with open_catcher(faults=faults("final=delay-300ms")) as catcher:
        connection = await connect(catcher, nursery)
        with trio.CancelScope() as scope, trio.fail_after(20):
            nursery.start_soon(catcher_has_content, catcher, scope)
            outcome = await connection.deliver(MAIL)

        assert isinstance(outcome, Uncertain)
        assert connection.end.startswith("cancelled")


async def catcher_has_content(catcher: Catcher, scope: trio.CancelScope) -> None:
    await catcher.wait_until(lambda: "BDAT" in str(catcher.commands))
    scope.cancel()


@pytest.mark.case("C13")
async def test_an_abort_ends_even_that(bridge: Complaints, nursery: trio.Nursery) -> None:
    """At the end of the grace the mail is uncertain, and no task waits."""
    async with open_catcher(faults=faults("final=stall")) as catcher, trio.open_nursery() as delivering:
        connection = await connect(catcher, nursery)
        found: list[Outcome] = []

        async def deliver() -> None:
            found.append(await connection.deliver(MAIL))

        delivering.start_soon(deliver)
        with trio.fail_after(20):
            await catcher.wait_until(lambda: "BDAT" in str(catcher.commands))
        connection.abort()

    assert [type(outcome) for outcome in found] == [Uncertain]


@pytest.mark.case("C4")
async def test_a_slow_drip_of_reply_bytes_does_not_extend_the_deadline(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Only a complete reply is progress."""
    transport = FakeTransport(answer=lambda _: b"")
    connection = Connection(1, session_on(transport), Timeouts(30, 60, 300))

    async def drip() -> None:
        for byte in b"250 an answer that takes its time":
            transport.say(bytes([byte]))
            await trio.sleep(5)

    nursery.start_soon(connection.watch)
    nursery.start_soon(drip)
    began = trio.current_time()
    outcome = await connection.deliver(MAIL)
    nursery.cancel_scope.cancel()

    assert isinstance(outcome, Uncertain)
    assert outcome.loss.how is FailureKind.TIMEOUT
    assert trio.current_time() - began == 60


@pytest.mark.case("C11")
async def test_what_the_kernel_did_not_take_was_not_sent(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A relay with a closed window: the deadline passes, and the mail is certain not to have been accepted."""
    connection = Connection(1, session_on(FakeTransport(is_full=True)), Timeouts(30, 60, 300))
    nursery.start_soon(connection.watch)
    outcome = await connection.deliver(MAIL)

    assert isinstance(outcome, NotSent)
    assert outcome.loss.how is FailureKind.TIMEOUT


@pytest.mark.case("C6")
async def test_an_unasked_reply_ends_an_idle_connection(autojump_clock: trio.testing.MockClock) -> None:
    """It is seen when it comes, not taken for the answer to the next command."""
    transport = FakeTransport()
    connection = Connection(1, session_on(transport), PATIENCE)
    transport.say(b"250 surprise\r\n")

    assert connection.end.startswith("garbled")
    assert transport.is_aborted


async def test_what_waits_under_tls_takes_only_the_last_mail_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The amount of plain text in unsent cipher text is unknown: an earlier mail may be out, so it is uncertain."""
    transport = FakeTransport(answer=lambda _: b"")
    below = FakeTransport(is_full=True)
    below.written = [b"x" * 5000]
    transport._ssl_protocol = SimpleNamespace(_transport=below)
    connection = Connection(1, session_on(transport), PATIENCE)
    connection.window = 2
    for _ in range(2):
        connection.begin(MAIL, trio.current_time())
        connection.flush(trio.current_time())
    connection.abort()

    assert [type(each.outcome) for each in await connection.outcomes()] == [Uncertain, NotSent]


async def test_a_cancel_decides_a_mail_before_more_of_it_leaves(autojump_clock: trio.testing.MockClock) -> None:
    """What the kernel takes between the cancel and the end of the wait cannot make it a mail that may be out."""
    transport = FakeTransport(is_full=True)
    connection = Connection(1, session_on(transport), PATIENCE)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.deliver, MAIL)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

            assert transport.is_aborted
            assert connection.end.startswith("cancelled")


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_kernel_that_goes_on_taking_is_progress(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, *, is_tls: bool
) -> None:
    """A large mail over a slow line is not given up while it moves; once it does not, it is."""
    slow = FakeTransport(answer=lambda _: b"", is_full=True)
    transport = FakeTransport(answer=lambda _: b"") if is_tls else slow
    transport._ssl_protocol = SimpleNamespace(_transport=slow) if is_tls else None
    connection = Connection(1, session_on(transport), Timeouts(30, 60, 300))
    nursery.start_soon(connection.watch)
    outcomes: list[Outcome] = []

    async def deliver() -> None:
        outcomes.append(await connection.deliver(evolve(MAIL, content=b"x" * 98 + b"\r\n")))

    began = trio.current_time()
    async with trio.open_nursery() as delivering:
        delivering.start_soon(deliver)
        await trio.testing.wait_all_tasks_blocked()
        slow.written = [b"x"] * sum(map(len, transport.written))
        while slow.written[1:]:
            await trio.sleep(10)
            slow.written = slow.written[4:] or [b"x"]
        moved_seconds = trio.current_time() - began

    assert [type(outcome) for outcome in outcomes] == [NotSent]
    assert "timeout" in connection.end
    assert 200 < moved_seconds < trio.current_time() - began <= moved_seconds + 2 * 60


async def test_mails_that_begin_together_are_one_write_and_are_told_of_when_they_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A mail that this relay cannot take is reported at once, the others together, as their replies came together."""
    transport = FakeTransport()
    connection = Connection(1, session_on(transport), PATIENCE)
    connection.window = 9
    now = trio.current_time()

    unfit = connection.begin(evolve(MAIL, needs_smtputf8=True), now)
    sent = [connection.begin(MAIL, now) for _ in range(3)]
    connection.flush(now)
    assert len(transport.written) == 1
    assert await connection.outcomes() == [unfit]
    assert isinstance(unfit.outcome, Unsendable)
    assert connection.in_flight == 3

    assert await connection.outcomes() == sent
    assert [type(each.outcome) for each in sent] == [Accepted, Accepted, Accepted]
    assert [each.seconds for each in sent] == pytest.approx([1, 1, 1], abs=0.01)
    assert (connection.window, connection.in_flight) == (12, 0)
    connection.abort()


async def test_mails_under_way_are_told_of_when_the_connection_ends() -> None:
    """Each once."""
    connection = Connection(1, session_on(FakeTransport(answer=lambda _: b"")), PATIENCE)
    connection.begin(MAIL, trio.current_time())
    connection.begin(MAIL, trio.current_time())
    connection.flush(trio.current_time())
    connection.abort()

    assert [type(each.outcome) for each in await connection.outcomes()] == [Uncertain, Uncertain]
    assert connection.take_decided() == []


async def test_who_waits_for_outcomes_can_be_woken_for_something_else(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is reported then, and nothing is lost; a task that does not wait is not woken."""
    connection = Connection(1, session_on(FakeTransport()), PATIENCE)
    connection.nudge()
    found = []

    async def wait() -> None:
        found.append(await connection.outcomes())
        found.append(await connection.outcomes())

    async with trio.open_nursery() as nursery:
        transaction = connection.begin(MAIL, trio.current_time())
        connection.flush(trio.current_time())
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        connection.nudge()
        connection.nudge()
    assert found == [[], [transaction]]


@pytest.mark.parametrize(
    ("capabilities", "rooms"),
    [
        (CHUNKED, [1, 3, 4, 4]),
        (evolve(CHUNKED, chunking=False), [1, 2, 2, 2]),
        (evolve(CHUNKED, pipelining=False), [1, 1, 1, 1]),
    ],
)
async def test_room_is_what_was_earned_and_what_the_relays_extensions_allow(
    capabilities: Capabilities, rooms: list[int]
) -> None:
    """Never more than the depth, nothing over a connection that has ended, and what is in flight takes its part."""
    connection = Connection(1, session_on(FakeTransport(), capabilities), PATIENCE)
    found = []
    for connection.window in (1, 3, 5, 70):
        found.append(connection.room(4, 0))
    assert found == rooms
    connection.begin(MAIL, trio.current_time())
    assert connection.room(4, connection.in_flight) == rooms[-1] - 1
    connection.abort()
    assert connection.room(4, 0) == 0


@pytest.mark.parametrize("is_secured", [False, True])
@pytest.mark.parametrize(("last", "kind"), [
    (b"421 4.7.0 too many errors\r\n", NotSent),
    (b"250 ok\r\n250 ok\r\n250 taken\r\n421 bye\r\n", Accepted),
    (b"", Uncertain),
])  # fmt: skip
async def test_what_a_relay_said_before_it_broke_the_connection_is_read(
    bridge: Complaints,
    nursery: trio.Nursery,
    is_secured: bool,  # noqa: FBT001
    last: bytes,
    kind: type[Outcome],
) -> None:
    """It closes with our bytes unread, so its kernel sends a reset; our next write fails before the words are read."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    peers: list[tuple[trio.SocketStream, trio.SSLStream[trio.SocketStream]]] = []

    async def serve(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, context, server_side=True)
        peers.append((stream, secured))
        peer: trio.abc.Stream = secured if is_secured else stream
        await peer.send_all(b"220 relay\r\n")
        await peer.receive_some()
        await peer.send_all(b"250-relay\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        await trio.sleep_forever()

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="localhost"))
    options = RelayOptions("localhost", listeners[0].socket.getsockname()[1], "implicit" if is_secured else "none")
    trusting = tls_context(options)
    authority.configure_trust(trusting)
    session = await open_session(Relay(options, PATIENCE, trusting))
    assert isinstance(session, Session), session
    connection = Connection(1, session, PATIENCE)
    first, second = connection.begin(MAIL, 0.0), connection.begin(MAIL, 0.0)
    connection.flush(0.0)

    # All in one step, so that nothing of it is read before the write that fails.
    stream, secured = peers[0]
    if is_secured and last:
        secured._ssl_object.write(last)
        last = secured._outgoing.read()
    own = socket.socket(fileno=os.dup(stream.socket.fileno()))
    own.send(last)
    stream.socket.close()
    own.close()
    third = connection.begin(MAIL, 0.0)
    connection.flush(0.0)
    with trio.fail_after(5):
        while connection.in_flight:
            await connection.outcomes()

    assert isinstance(first.outcome, kind)
    assert type(second.outcome) is type(third.outcome) is (NotSent if last else Uncertain)
    assert connection.end
    nursery.cancel_scope.cancel()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux lets a program say when to confirm")
async def test_replies_in_two_segments_do_not_wait_for_our_kernel(bridge: Complaints, nursery: trio.Nursery) -> None:
    """A relay without TCP_NODELAY holds the second until the first is confirmed: 40 ms for each mail, by default."""

    async def serve(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        await stream.send_all(b"220 relay\r\n")
        await stream.receive_some()
        await stream.send_all(b"250-relay\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        while await stream.receive_some():
            await stream.send_all(b"250 ok\r\n250 ok\r\n")
            await stream.send_all(b"250 taken\r\n")

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    options = RelayOptions("127.0.0.1", listeners[0].socket.getsockname()[1], "none")
    session = await open_session(Relay(options, PATIENCE, tls_context(options)))
    assert isinstance(session, Session), session
    connection = Connection(1, session, PATIENCE)
    seconds = []
    for _ in range(60):
        transaction = connection.begin(MAIL, trio.current_time())
        connection.flush(trio.current_time())
        while transaction.outcome is None:
            await connection.outcomes()
        seconds.append(transaction.seconds)
    connection.abort()
    nursery.cancel_scope.cancel()

    # A new connection confirms at once for a while; a busy machine makes some slow, and never all.
    assert min(seconds[-30:]) < 0.03
