"""The time of a push is kept over delays, releases, crashes and retries: push to sent is the whole time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trio

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.fleet.report import Reporter
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.dead_letters import read_shelf, retry_shelved
from trio_worker.queue.job_id import first_claimed_at, new_id_prefix
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import Bury, Delay, Release, Settlement, Verdict
from trio_worker.telemetry.quantiles import Quantiles
from trio_worker.worker.events import SettledJob
from trio_worker.worker.phase import Disposition

AGE_SECONDS = 5000.0
NOW = datetime.now(UTC).timestamp()
CAUSE = Cause("deferred", "451", "rcpt")


def pushed_long_ago(not_before: str | None = None) -> bytes:
    at = datetime.now(UTC) - timedelta(seconds=AGE_SECONDS)
    return job_bytes(enqueued_at=at.isoformat(), not_before=not_before)


async def send_all(workers: WorkerMaker, catcher: Catcher) -> tuple[Reporter, SettledJob]:
    """Run a worker until the one job is sent; return its reporter and what it said of the sent mail."""
    reporter = workers.make(workers.options(catcher.port), is_burst=False)

    def sent() -> list[SettledJob]:
        return [job for job in workers.jobs if job.disposition is Disposition.SENT]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(30):
            await workers.wait_until(lambda: bool(sent()))
        reporter.worker.drain("the test is over")
    (job,) = sent()
    return reporter, job


def latency(reporter: Reporter) -> Quantiles:
    return reporter.snapshot().latency


async def claim_before(workers: WorkerMaker, verdict: Verdict | None) -> str:
    """Claim the job as another worker that settles so, or that dies with it; return its id."""
    broker = Broker(workers.client, QueueOptions(lease_seconds=0.01 if verdict is None else 60.0))
    claims = await broker.claim(1)
    assert isinstance(claims, Claims)
    if verdict is not None:
        await broker.settle([Settlement(claims.jobs[0], verdict)])
    return claims.jobs[0].job_id


async def test_a_greylisted_mail_counts_from_its_push_and_not_from_its_last_attempt(
    workers: WorkerMaker, catcher: Catcher
) -> None:
    """Its delays are in the figure: greylisting makes it worse, not better."""
    catcher.faults = faults("rcpt=451:first1")
    await workers.push(pushed_long_ago())

    reporter, sent = await send_all(workers, catcher)

    assert sent.attempt == 2
    assert sent.latency_seconds is not None
    assert AGE_SECONDS < sent.latency_seconds < AGE_SECONDS + 60
    seen = latency(reporter)
    assert seen.count == 1
    assert seen.p95 == pytest.approx(AGE_SECONDS, rel=0.1)


@pytest.mark.parametrize(
    "verdict",
    [None, Delay(0.0, Record(NOW, attempts=1), CAUSE), Release(Record(NOW), CAUSE)],
    ids=["crashed", "delayed by an older version", "released by an older version"],
)
async def test_a_mail_whose_record_lacks_the_push_counts_from_what_its_producer_wrote(
    workers: WorkerMaker, catcher: Catcher, verdict: Verdict | None
) -> None:
    """A worker that died wrote no record, an older version none with this key."""
    await workers.push(pushed_long_ago())
    await claim_before(workers, verdict)

    _, sent = await send_all(workers, catcher)

    assert sent.latency_seconds is not None
    assert AGE_SECONDS < sent.latency_seconds < AGE_SECONDS + 60


async def test_a_mail_that_nobody_dated_counts_from_its_first_claim(workers: WorkerMaker, catcher: Catcher) -> None:
    """Its id tells when that was."""
    await workers.push(job_bytes())
    job_id = await claim_before(workers, Delay(0.2, Record(4e9, attempts=1), CAUSE))

    _, sent = await send_all(workers, catcher)

    assert sent.job_id == job_id
    assert sent.latency_seconds is not None
    assert 0.15 < sent.latency_seconds < 60


async def test_a_retried_dead_letter_counts_from_its_push(workers: WorkerMaker, catcher: Catcher) -> None:
    """Its age begins anew, which is for the limits of retries; the mail is late all the same."""
    await workers.push(job_bytes())
    record = Record(1.0, attempts=9, pushed_at=workers_clock() - AGE_SECONDS)
    job_id = await claim_before(workers, Bury(record, CAUSE))
    await retry_shelved(workers.client, "jobs", "dead", [job_id], workers_clock())

    _, sent = await send_all(workers, catcher)

    assert sent.latency_seconds is not None
    assert AGE_SECONDS < sent.latency_seconds < AGE_SECONDS + 60


async def test_a_mail_pushed_ahead_of_its_time_counts_from_that_time(workers: WorkerMaker, catcher: Catcher) -> None:
    """A recap that was ordered a day before is not a day late."""
    due = datetime.now(UTC) - timedelta(seconds=3)
    await workers.push(pushed_long_ago(due.isoformat()))

    _, sent = await send_all(workers, catcher)

    assert sent.latency_seconds is not None
    assert 3 <= sent.latency_seconds < 60


async def test_the_age_of_a_job_whose_worker_died_begins_with_its_push(workers: WorkerMaker, catcher: Catcher) -> None:
    """Or a link would be sent that has expired; and the record keeps the push for later attempts."""
    catcher.faults = faults("rcpt=550")
    await workers.push(pushed_long_ago())
    await claim_before(workers, None)
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(30):
            await workers.wait_until(lambda: any(job.disposition is Disposition.DEAD for job in workers.jobs))
        reporter.worker.drain("the test is over")

    letters = await read_shelf(workers.client, "jobs", "dead", 1)
    assert isinstance(letters, list)
    record = letters[0].record
    assert record.pushed_at == record.born == pytest.approx(workers_clock() - AGE_SECONDS, abs=60)


def test_an_id_tells_when_it_was_made() -> None:
    """And an id of another form tells nothing."""
    assert first_claimed_at(new_id_prefix() + "001") == pytest.approx(workers_clock(), abs=60)
    assert first_claimed_at("") is first_claimed_at("job-1") is first_claimed_at("JOB4567890123") is None


def workers_clock() -> float:
    return datetime.now(UTC).timestamp()
