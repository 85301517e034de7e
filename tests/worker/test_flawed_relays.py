"""Whole workers against relays that are out of step or say too much: no mail is buried for it, and none goes twice."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from tests.support.flawed_relay import FlawedRelay, open_flawed_relay
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.smtp.options import PoolOptions
from trio_worker.telemetry.words import trouble_words
from trio_worker.worker.breaker import Open
from trio_worker.worker.events import BreakerChanged
from trio_worker.worker.phase import Disposition

JOBS = 30


@pytest.mark.parametrize("depth", [1, 16])
async def test_a_relay_out_of_step_stops_claims_and_buries_nothing(workers: WorkerMaker, depth: int) -> None:
    """354 and 250 in one write to each DATA: the breaker has its own name for it, and no mail loses an attempt."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_flawed_relay(FlawedRelay(go_ahead=b"354 go\r\n250 taken\r\n")) as relay:
        options = workers.options(relay.port, number_workers=3, pool=PoolOptions(max_size=3, pipeline_depth=depth))
        reporter = workers.make(options, is_burst=False)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reporter.run)
                await workers.wait_until(lambda: isinstance(reporter.worker.breaker, Open) and bool(workers.jobs))
                reporter.worker.drain("the test")

    opened = next(event.breaker for event in workers.events if isinstance(event, BreakerChanged))
    assert isinstance(opened, Open)
    assert trouble_words(opened.trouble) == "answers out of step, with 250 at DATA"
    assert {job.disposition for job in workers.jobs} == {Disposition.RELEASED}
    assert reporter.board.ledger.balances
    assert sum(relay.sent_to.values()) == 0


@pytest.mark.parametrize("taken", [b"250-taken\r\n" * 50_000 + b"250 taken\r\n", b"250 " + b"x" * 500_000 + b"\r\n"])
async def test_a_final_reply_that_is_too_long_sends_no_mail_twice(workers: WorkerMaker, taken: bytes) -> None:
    """Its code counts, and the connection is dropped: each mail needs one of its own."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_flawed_relay(FlawedRelay(taken=taken)) as relay:
        options = workers.options(relay.port, number_workers=3, pool=PoolOptions(max_size=3, pipeline_depth=16))
        reporter = workers.make(options)
        with trio.fail_after(30):
            assert await reporter.run() == 0

    assert relay.sent_to == Counter(f"user{number}@example.com" for number in range(JOBS))
    assert reporter.board.ledger.settled == {Disposition.SENT: JOBS}
    assert reporter.board.ledger.uncertain == 0
    assert not [event for event in workers.events if isinstance(event, BreakerChanged)]


async def test_a_size_that_cannot_be_meant_buries_nothing(workers: WorkerMaker) -> None:
    """SIZE 1 in EHLO: the relay takes what it takes."""
    await workers.push(*(job_bytes(number) for number in range(JOBS)))
    async with open_flawed_relay(FlawedRelay(offers=("PIPELINING", "SIZE 1"))) as relay:
        reporter = workers.make(workers.options(relay.port))
        with trio.fail_after(20):
            assert await reporter.run() == 0

    assert reporter.board.ledger.settled == {Disposition.SENT: JOBS}
