"""What a mail costs, counted: calls to Redis, crossings of the bridge, writes to the relay, Python calls.

The bounds do not depend on the machine; they guard against work that comes back unseen.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.support.jobs import job_bytes
from tests.support.relay import CHUNKED, FakeTransport, session_on
from tests.support.workers import WorkerMaker
from trio_worker import bridge
from trio_worker.fleet.report import Reporter
from trio_worker.smtp.options import PoolOptions
from trio_worker.smtp.session import Session

MAILS = 600


class Relay:
    """Answers every write at once, and keeps count of them."""

    def __init__(self) -> None:
        self.transports: list[FakeTransport] = []

    async def open(self) -> Session:
        transport = FakeTransport(delay_seconds=0.0)
        self.transports.append(transport)
        return session_on(transport, CHUNKED)

    @property
    def writes(self) -> int:
        return sum(len(transport.written) for transport in self.transports)


async def loaded(workers: WorkerMaker, relay: Relay, depth: int, number_workers: int) -> Reporter:
    """A worker before a full queue."""
    for start in range(0, MAILS, 100):
        await workers.push(*(job_bytes(number) for number in range(start, start + 100)))
    pool = PoolOptions(max_size=5, min_idle=0, pipeline_depth=depth)
    reporter = workers.make(evolve(workers.options(1), number_workers=number_workers, pool=pool))
    reporter.worker.open_with = relay.open
    return reporter


@pytest.mark.parametrize(("depth", "number_workers", "writes"), [(1, 20, 1.0), (8, 10, 0.5)])
async def test_a_mail_costs_few_calls_to_redis_and_one_write_to_the_relay_or_less(
    workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch, depth: int, number_workers: int, writes: float
) -> None:
    """Claims and settlements travel together; a connection's first mail waits for its recipients: two writes."""
    # On a slow machine fewer mails are done in the few milliseconds that settlements gather.
    monkeypatch.setattr("trio_worker.worker.settling.GATHERING_SECONDS", 0.1)
    crossings = 0
    call = bridge.call_inline

    async def counted(*words: Any) -> Any:
        nonlocal crossings
        crossings += 1
        return await call(*words)

    for place in ("trio_worker.redis.client.call_inline", "trio_worker.bridge.call_inline"):
        monkeypatch.setattr(place, counted)
    relay = Relay()
    reporter = await loaded(workers, relay, depth, number_workers)
    calls_before, crossings_before = workers.client.calls, crossings
    with trio.fail_after(60):
        assert await reporter.run() == 0

    quits = len(relay.transports)
    assert (workers.client.calls - calls_before) / MAILS <= 0.15
    assert (crossings - crossings_before) / MAILS <= 0.2
    assert (relay.writes - 2 * quits) / MAILS <= writes


async def test_a_mail_costs_a_bounded_number_of_python_calls(workers: WorkerMaker) -> None:
    """From its claim to its settlement, everything in between included."""
    relay = Relay()
    reporter = await loaded(workers, relay, 8, 10)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        await reporter.run()
    finally:
        sys.setprofile(None)
    assert calls / MAILS <= 220
