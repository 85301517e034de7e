"""Large jobs do not stop the loop: they go one after another, and everybody else goes on between two of them."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.support.workers import WorkerMaker
from tests.worker.test_worker import counts, dead, recipients, run
from trio_worker.capture.catcher import Catcher
from trio_worker.mail import composer as composing
from trio_worker.queue.settlement import Release
from trio_worker.smtp.options import PoolOptions
from trio_worker.worker.phase import Disposition
from trio_worker.worker.turns import BIG_OCTETS, TURN_OCTETS, Turns


def message(number: int, octets: int = 0, **fields: Any) -> bytes:
    payload = {"to": f"user{number}@example.com", "subject": "x", "text": "y" * octets, **fields}
    return json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": payload}}).encode()


async def test_a_turn_begins_after_a_round_of_the_loop_for_each_who_waits() -> None:
    """In the order in which they asked, one in each round; small jobs share a turn without a wait."""
    turns, rounds, taken = Turns(), 0, []

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            await trio.lowlevel.checkpoint()
            rounds += 1

    async def take(name: int) -> None:
        await turns.take(TURN_OCTETS)
        taken.append((name, rounds))

    assert all(turns.take_nowait(TURN_OCTETS // 4) for _ in range(4))
    assert not turns.take_nowait(1)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as takers:
            for name in range(5):
                takers.start_soon(take, name)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(count_rounds)
        nursery.cancel_scope.cancel()
    began = [at for _, at in taken]
    assert sorted(taken) == sorted(taken, key=lambda each: each[1])
    assert len(taken) == 5
    assert began == sorted(began)


async def test_only_one_big_job_is_in_a_thread_and_the_lock_of_the_interpreter_is_shared() -> None:
    """Two at a time would only take longer each; the switch interval is short meanwhile, and as before after it."""
    turns, at_once, most, before = Turns(), 0, 0, sys.getswitchinterval()
    intervals = set()

    def make() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        intervals.add(sys.getswitchinterval())
        at_once -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(turns.in_thread, make)

    assert most == 1
    assert max(intervals) < before
    assert sys.getswitchinterval() == before


async def test_mails_go_on_while_a_big_one_is_made(
    workers: WorkerMaker, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those on the only connection, and those of the same claim."""
    are_sent = threading.Event()
    draft = composing._draft_of_message

    def slow(content: Any) -> Any:
        if len(content.text) > BIG_OCTETS:
            assert are_sent.wait(30), "the others waited for the big one"
        return draft(content)

    monkeypatch.setattr(composing, "_draft_of_message", slow)
    await workers.push(message(0, BIG_OCTETS + 1), *(message(number, 100) for number in range(1, 21)))
    options = evolve(workers.options(catcher.port), number_workers=2, pool=PoolOptions(max_size=1, min_idle=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, workers.make(options))
        with trio.fail_after(30):
            await catcher.wait_for_mails(20)
        are_sent.set()

    assert len(recipients(catcher)) == 21


async def test_a_stop_does_not_wait_for_a_big_one_and_gives_it_back(
    workers: WorkerMaker, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is left to itself; the job goes back to the queue without an attempt."""
    began, may_end = threading.Event(), threading.Event()
    draft = composing._draft_of_message

    def stuck(content: Any) -> Any:
        began.set()
        may_end.wait(60)
        return draft(content)

    monkeypatch.setattr(composing, "_draft_of_message", stuck)
    await workers.push(message(0, BIG_OCTETS + 1))
    reporter = workers.make(workers.options(catcher.port), is_burst=False)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(30):
                await trio.to_thread.run_sync(began.wait)
            reporter.worker.hurry()
    finally:
        may_end.set()

    assert reporter.board.ledger.settled[Disposition.RELEASED] == 1
    after = await counts(workers.client)
    assert (after.delayed, after.dead, catcher.total) == (1, 0, 0)


async def test_a_bomb_of_each_size_is_dead_by_its_own_name(workers: WorkerMaker, catcher: Catcher) -> None:
    """A type's budget, a fault of the JSON in a big job and one in a small job: the reasons are those of any job."""
    fields = b'"email":"a@example.com","username":"ann","token":"t"'
    bomb = b'{"task_type":"Email","data":{"email_type":"%b","data":{%b%b}}}'
    repeated = b',"a":1' * 20_000
    keys = b"".join(b',"k%d":1' % number for number in range(90_000))
    await workers.push(
        bomb % (b"Registration", fields, repeated),
        bomb % (b"Message", b'"to":"a@example.com","subject":"x","text":"y"', repeated),
        bomb % (b"Registration", fields, repeated[:600]),
        bomb % (b"Message", b'"to":"a@example.com","subject":"x","text":"y"', keys),
        message(1, 0, to=["a@example.com"] * 101),
        message(2),
    )
    await run(workers.make(workers.options(catcher.port)))

    letters = await dead(workers.client)
    found = {job.cause.word: job.cause.text for job in letters if keys not in job.body}
    assert [job.cause.text for job in letters if keys in job.body] == ["$: has more than 25,000 values"]
    assert set(found) == {"over_budget", "not_json", "bad_field"}
    assert "mail.types.Registration.max_job_bytes" in found["over_budget"]
    assert "$.data.data.a: occurs more than once" in found["not_json"]
    assert "more than 100 recipients" in found["bad_field"]
    assert recipients(catcher) == {"user2@example.com": 1}
    assert {job.email_type for job in workers.jobs} == {"Registration", "Message", ""}
    assert not any(isinstance(job.disposition, Release) for job in workers.jobs)
