"""A relay that drops what is sent ahead of its answer gets one mail at a time: learnt once, shared, and forgotten."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
import trio.testing

from tests.support.flawed_relay import Ahead, FlawedRelay, open_flawed_relay
from tests.support.jobs import job_bytes
from tests.support.pool import MAIL, Opener
from tests.support.relay import FakeTransport, session_on
from tests.support.workers import WorkerMaker
from trio_worker.fleet.report import Reporter
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.connection import AHEAD_SECONDS, Connection
from trio_worker.smtp.depth import ONE_AT_A_TIME_SECONDS
from trio_worker.smtp.events import ConnectionEvent, DepthLimited, DepthRestored
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.options import PoolOptions, Timeouts
from trio_worker.smtp.outcome import Accepted, Loss, NotSent
from trio_worker.smtp.pool import open_pool
from trio_worker.smtp.reply import Stage
from trio_worker.worker.events import BreakerChanged
from trio_worker.worker.phase import Disposition

JOBS = 60
PIPELINED = Capabilities(pipelining=True)
DROPPED = Loss(FailureKind.AHEAD, Stage.MAIL, "dropped")


def deep_worker(workers: WorkerMaker, relay: FlawedRelay) -> Reporter:
    options = workers.options(relay.port, number_workers=6, pool=PoolOptions(max_size=3, pipeline_depth=64))
    return workers.make(options)


@pytest.mark.case("C35")
@pytest.mark.parametrize("ahead", ["503", "dropped"])
async def test_every_mail_goes_once_to_a_relay_that_drops_what_is_sent_ahead(
    workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch, ahead: Ahead
) -> None:
    """One mail on each connection finds it out, at no cost; nothing is uncertain, and claiming never stops."""
    monkeypatch.setattr("trio_worker.smtp.connection.AHEAD_SECONDS", 0.1)
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_flawed_relay(FlawedRelay(ahead=ahead)) as relay:
        reporter = deep_worker(workers, relay)
        with trio.fail_after(20):
            assert await reporter.run() == 0

        assert relay.sent_to == Counter(f"user{number}@example.com" for number in range(JOBS))
        assert 0 < relay.lost_ahead <= 3 * 3  # MAIL, RCPT and DATA, at most once on each connection
    ledger = reporter.board.ledger
    assert (ledger.settled[Disposition.SENT], ledger.settled[Disposition.DEAD], ledger.uncertain) == (JOBS, 0, 0)
    assert ledger.balances
    assert len([event for event in workers.events if isinstance(event, DepthLimited)]) == 1
    assert not [event for event in workers.events if isinstance(event, BreakerChanged)]
    assert [job.attempt for job in workers.jobs if job.disposition is Disposition.SENT] == [1] * JOBS


async def test_a_relay_that_answers_what_is_sent_ahead_keeps_its_depth(workers: WorkerMaker) -> None:
    """Its mails ride on one another, two at a time without CHUNKING."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_flawed_relay(FlawedRelay()) as relay:
        reporter = deep_worker(workers, relay)
        with trio.fail_after(20):
            assert await reporter.run() == 0

    assert reporter.board.ledger.settled == {Disposition.SENT: JOBS}
    assert reporter.worker.state().depth == 64


async def test_the_worker_says_that_it_sends_one_mail_at_a_time(workers: WorkerMaker) -> None:
    """In its state, its snapshot and its heartbeat; and it claims no more jobs than it can send so."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_flawed_relay(FlawedRelay(ahead="503")) as relay:
        reporter = deep_worker(workers, relay)
        with trio.fail_after(20):
            await reporter.run()

    assert reporter.worker.in_flight.limit == 6
    snapshot, vitals = reporter.snapshot(), reporter.presence.vitals
    assert snapshot.depth_limit is not None
    assert "503" in snapshot.depth_limit.why
    assert snapshot.at_work_limit == 6
    beat = reporter._heartbeat(vitals)
    assert beat.depth_limit is not None
    assert (beat.depth, beat.depth_limit.why) == (1, snapshot.depth_limit.why)


async def test_silence_at_a_mail_sent_ahead_is_soon_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """Long before the time that a slow relay has for a command."""

    def answer(wire: bytes) -> bytes:
        return b"250 taken\r\n" if b"\r\n.\r\n" in wire else b"250 ok\r\n250 ok\r\n354 go\r\n"

    heard: list[Loss] = []
    transport = FakeTransport(delay_seconds=0.1, answer=answer)
    connection = Connection(1, session_on(transport, PIPELINED), Timeouts(), on_deep_loss=heard.append)
    connection.window = 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.watch)
        first, second = connection.begin(MAIL, 0.0), connection.begin(MAIL, 0.0)
        connection.flush(0.0)
        began = trio.current_time()
        while connection.in_flight:
            await connection.outcomes()
        took = trio.current_time() - began

    assert isinstance(first.outcome, Accepted)
    assert isinstance(second.outcome, NotSent)
    assert b"\r\n.\r\nMAIL" in transport.written[-1]
    assert took < 2 * AHEAD_SECONDS
    assert [loss.how for loss in heard] == [FailureKind.AHEAD]


async def test_one_mail_at_a_time_is_told_once_and_forgotten_after_an_hour(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also if more connections find it out meanwhile; then the depth of the settings is tried again."""
    events: list[ConnectionEvent] = []
    options = PoolOptions(max_size=2, min_idle=0, pipeline_depth=16)
    async with open_pool(options, Timeouts(), Opener(), events.append) as pool:
        async with pool.borrow() as one, pool.borrow() as other:
            assert isinstance(one, Connection)
            assert isinstance(other, Connection)
            for connection in (one, other):
                connection.window = 8
                connection.conversation.ahead = DROPPED
                connection._report_decided()
            assert (pool.depth, one.room(pool.depth, 0)) == (1, 1)
        assert pool.one_at_a_time is not None
        await trio.sleep(ONE_AT_A_TIME_SECONDS + 2)

        assert pool.depth == 16
    told = [event for event in events if isinstance(event, DepthLimited | DepthRestored)]
    assert told == [DepthLimited(DROPPED, ONE_AT_A_TIME_SECONDS), DepthRestored(16)]


async def test_one_mail_at_a_time_is_forgotten_when_the_settings_are_read_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The relay may just have been mended."""
    events: list[ConnectionEvent] = []
    options = PoolOptions(max_size=2, min_idle=0, pipeline_depth=16)
    async with open_pool(options, Timeouts(), Opener(), events.append) as pool:
        pool._note_deep_loss(DROPPED)
        pool.resize(options)

        assert (pool.depth, pool.one_at_a_time) == (16, None)
    assert events[1:2] == [DepthRestored(16)]


@pytest.mark.parametrize(("count", "replies", "how", "is_told"), [
    (4, b"", FailureKind.EOF, True),
    (4, b"250 ok\r\n250 ok\r\n550 no\r\n", FailureKind.RESET, True),
    (1, b"", FailureKind.EOF, False),
    (2, b"250 ok\r\n250 ok\r\n250 taken\r\n", FailureKind.EOF, False),
    (4, b"421 too many errors\r\n", FailureKind.EOF, False),
    (4, b"", FailureKind.TIMEOUT, False),
    (4, b"", FailureKind.CANCELLED, False),
])  # fmt: skip
async def test_a_connection_that_breaks_with_several_mails_in_doubt_limits_the_depth(
    autojump_clock: trio.testing.MockClock, count: int, replies: bytes, how: FailureKind, *, is_told: bool
) -> None:
    """The relay may be one that several mails break; where it says what it does nothing is in doubt."""
    heard: list[Loss] = []
    transport = FakeTransport(answer=lambda _: b"")
    connection = Connection(1, session_on(transport), Timeouts(), on_deep_loss=heard.append)
    for _ in range(count):
        connection.begin(MAIL, 0.0)
    connection.flush(0.0)
    transport.say(replies)
    connection.lose(how, "gone")

    assert len(heard) == is_told


async def test_a_relay_that_breaks_deep_connections_again_is_left_alone_for_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each time twice as long, up to an hour; settings that are read again begin anew."""
    events: list[ConnectionEvent] = []
    broken = Loss(FailureKind.EOF, Stage.FINAL, "gone")
    options = PoolOptions(max_size=2, min_idle=0, pipeline_depth=16)
    async with open_pool(options, Timeouts(), Opener(), events.append) as pool:
        for _ in range(5):
            pool._note_deep_loss(broken)
            await trio.sleep(ONE_AT_A_TIME_SECONDS + 2)
        pool.resize(options)
        pool._note_deep_loss(broken)
    told = [event.seconds for event in events if isinstance(event, DepthLimited)]
    assert told == [300, 600, 1200, 2400, 3600, 300]
