"""Was Ann's mail sent? A worker keeps receipts where it is asked to, for every recipient of a mail, and no address."""

from __future__ import annotations

import json

import pytest
import trio

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import HistoryOptions
from trio_worker.queue.receipt import Receipt, mark_of
from trio_worker.queue.sent import SentSearch, find_sent
from trio_worker.worker.events import Settled
from trio_worker.worker.phase import Disposition

KEY = "a random text"
ANN, BOB = "ann.secret@example.org", "bob@example.org"


async def send(workers: WorkerMaker, catcher: Catcher, *jobs: bytes, history: HistoryOptions) -> None:
    """Run a worker until it has sent every job."""
    await workers.push(*jobs)
    reporter = workers.make(workers.options(catcher.port, history=history), is_burst=False)

    def sent() -> int:
        settled = [event for event in workers.events if isinstance(event, Settled)]
        return sum(job.disposition is Disposition.SENT for event in settled for job in event.jobs)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        with trio.fail_after(30):
            await workers.wait_until(lambda: sent() == len(jobs))
        reporter.worker.drain("the test is over")


async def receipts(workers: WorkerMaker, **wanted: str) -> list[Receipt]:
    answer = await find_sent(workers.client, "jobs", SentSearch(**wanted), 0.0)
    assert isinstance(answer, tuple)
    return answer[0]


async def test_a_sent_mail_leaves_a_receipt_with_the_relays_words(any_workers: WorkerMaker, catcher: Catcher) -> None:
    """Found by its recipient and by the producer's id; Redis has no address of it any more."""
    history = HistoryOptions(days=3, key=KEY)
    await send(any_workers, catcher, job_bytes(email=ANN, id="ORDER-17"), job_bytes(2), history=history)

    (found,) = await receipts(any_workers, mark=mark_of(ANN, KEY))
    assert [found] == await receipts(any_workers, producer_id="ORDER-17")
    assert found.relay == f"127.0.0.1:{catcher.port}"
    assert found.reply.startswith("250 ")
    assert found.mail_id.startswith("id-")
    assert f"<{found.mail_id}@" in catcher.mails[0].content.decode() + catcher.mails[1].content.decode()
    kept = await any_workers.client.command("XRANGE", keys_of("jobs").history, "-", "+")
    assert len(kept) == 2  # type: ignore[arg-type]
    assert b"ann.secret" not in repr(kept).encode()


async def test_a_mail_that_was_parted_has_a_receipt_for_all(workers: WorkerMaker, catcher: Catcher) -> None:
    """Also for who got it at an earlier attempt than the last."""
    catcher.faults = faults("rcpt=452:first1")
    fields = {"to": [ANN, BOB], "subject": "x", "text": "y"}
    job = json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": fields}}).encode()

    await send(workers, catcher, job, history=HistoryOptions(days=3, key=KEY))

    assert len(catcher.mails) == 2
    (found,) = await receipts(workers, mark=mark_of(ANN, KEY))
    assert found.marks == (mark_of(ANN, KEY), mark_of(BOB, KEY))


@pytest.mark.parametrize("history", [HistoryOptions(), HistoryOptions(key=KEY)])
async def test_without_days_nothing_is_kept(workers: WorkerMaker, catcher: Catcher, history: HistoryOptions) -> None:
    """As by default: a receipt costs time and memory."""
    await send(workers, catcher, job_bytes(1), history=history)

    assert await workers.client.command("EXISTS", keys_of("jobs").history) == 0
