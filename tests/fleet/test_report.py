"""A worker that gets orders through Redis and carries them out."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.support.fleet import KEYS, overview
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.fleet.orders import (
    Drain,
    Quiet,
    Resume,
    Trace,
    send_order,
)
from trio_worker.fleet.watch import Watch
from trio_worker.queue.claim import DEAD_LIMIT_REACHED
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.options import QueueOptions
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.redis.scripts import TRIAL
from trio_worker.telemetry.alerts import alerts, state
from trio_worker.telemetry.bottleneck import find_bottleneck
from trio_worker.worker.events import PhaseChanged, QueuePaused, QuietChanged
from trio_worker.worker.phase import Phase


@pytest.mark.usefixtures("quick_beats")
async def test_worker_obeys_from_elsewhere(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Quiet: nothing is claimed; resume: it goes on; drain: it ends with a ledger that balances, then is gone."""
    client = any_workers.client
    reporter = any_workers.make(any_workers.options(catcher.port), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            while not await client.command("ZCARD", KEYS.workers):
                pass
            await send_order(client, "jobs", Quiet(), [reporter.name])
            await any_workers.wait_until(lambda: reporter.worker.is_quiet)
            await any_workers.push(job_bytes(1))
            await wait_for_beats(client, 2)
            assert reporter.board.ledger.claimed == 0
            await send_order(client, "jobs", Resume(), [reporter.name])
            await catcher.wait_for_mails(1)
            await send_order(client, "jobs", Drain(), [reporter.name])

    assert reporter.board.ledger.balances
    assert [event.is_quiet for event in any_workers.events if isinstance(event, QuietChanged)] == [True, False]
    seen = await overview(client)
    assert seen.workers == ()
    operator_counts = seen.counts.operator_counts
    acts = (
        operator_counts.acts[act]
        for act in (OperatorAction.WORKER_QUIET, OperatorAction.WORKER_RESUME, OperatorAction.WORKER_DRAIN)
    )
    assert (*acts, sum(operator_counts.drains)) == (1, 1, 1, 1)


@pytest.mark.usefixtures("quick_beats")
async def test_a_dead_limit_that_is_reached_is_told(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """By the worker's figures, and by its heartbeat to `status` and `why`, until there are fewer dead letters."""
    client, limit = any_workers.client, QueueOptions(dead_limit=2)
    await any_workers.push(b"no job", b"no job either")
    reporter = any_workers.make(any_workers.options(catcher.port, queue=limit, number_workers=1), is_burst=False)
    watch = Watch(client, "jobs", "redis", clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            await any_workers.wait_until(lambda: QueuePaused(DEAD_LIMIT_REACHED) in any_workers.events)
            # Not before: a claim may go out before the settlement that reaches the limit.
            await any_workers.push(job_bytes(1))
            await wait_for_beats(client, 2)
            assert await watch.poll() is None
            for snapshot in (reporter.snapshot(), watch.snapshot()):
                assert state(snapshot).word == "LIMIT"
                assert [alert.word for alert in alerts(snapshot)] == ["LIMIT"]
            finding = find_bottleneck(watch.snapshot())
            assert (finding.limit, finding.reasons) == ("dead_limit", ("There are 2 dead letters.",))
            await client.command("DEL", KEYS.dead)
            await catcher.wait_for_mails(1)
            assert not reporter.snapshot().is_at_dead_limit
        reporter.worker.drain("seen")


async def test_the_first_claim_goes_before_all_reports(workers: WorkerMaker, catcher: Catcher) -> None:
    """A mail does not wait for heartbeats, figures and a look at the settings of Redis."""
    await workers.push(job_bytes(1))
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    before, begun = workers.client.calls, workers.client.calls
    doings: list[str] = []
    is_reported = trio.Event()

    def note(doing: str, _seconds: float, _unavailable: Unavailable | None) -> None:
        nonlocal begun
        doings.append(doing)
        if doing == "claim" and doings.count("claim") == 1:
            begun = workers.client.calls
        if {"beat", "pipeline"} <= set(doings):
            is_reported.set()

    workers.client.on_call = note
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            await is_reported.wait()
        reporter.worker.drain("seen")

    assert doings[:2] == [TRIAL, "claim"]
    assert begun - before == 2


async def test_a_worker_that_does_not_claim_reports_all_the_same(workers: WorkerMaker, catcher: Catcher) -> None:
    """It is on the list although there is no first claim."""
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    reporter.worker.quiet("from the start")
    doings: list[str] = []
    has_beaten = trio.Event()

    def note(doing: str, _seconds: float, _unavailable: Unavailable | None) -> None:
        doings.append(doing)
        if doing == "beat":
            has_beaten.set()

    workers.client.on_call = note
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(60):
            await has_beaten.wait()
        reporter.worker.drain("seen")

    assert "claim" not in doings


async def test_a_worker_has_stopped_when_it_is_off_the_list(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Its last event comes after the farewell, so that its end is logged, and shown, when the process ends."""
    client = any_workers.client
    await any_workers.push(job_bytes(1))
    reporter = any_workers.make(any_workers.options(catcher.port))
    reporter.poll_seconds = 60.0
    with trio.fail_after(60):
        await reporter.run()
        listed = await client.command("ZCARD", KEYS.workers)

    order = [type(event).__name__ for event in any_workers.events]
    assert listed == 0
    assert any_workers.events[-1] == PhaseChanged(Phase.STOPPED, "the queue is done")
    assert order.index("Settled") < len(order) - 1 - order[::-1].index("QueueSeen") < len(order) - 1


async def wait_for_beats(client: RedisClient, count: int) -> None:
    """Wait until the only worker has sent this number of heartbeats."""
    seen: set[str] = set()
    while len(seen) <= count:
        seen.add(str(await client.command("ZRANGE", KEYS.workers, 0, -1, "WITHSCORES")))


async def test_longer_trace_is_not_cut_off_by_a_shorter_one(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Two who trace the same worker see it for as long as each of them asked."""
    reporter = any_workers.make(any_workers.options(catcher.port))

    for seconds in (500.0, 1.0):
        reporter._carry_out(Trace(seconds))

    assert reporter._traces_until is not None
    assert reporter._traces_until > trio.current_time() + 400
