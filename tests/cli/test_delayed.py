"""Delayed jobs as a person sees and moves them: listed, grouped, shown, retried, taken back and dropped."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.commands import SECRET, Ask, counts
from tests.support.jobs import job_bytes
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.dead_letters import read_shelf
from trio_worker.queue.operator_counts import OperatorAction, Removal
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Attempt, Cause, Record, ShelvedJob
from trio_worker.queue.settlement import Delay, Release, Settlement, Verdict
from trio_worker.redis.client import RedisClient

GREYLISTED = Cause("deferred", "451 4.7.1", "rcpt", f"<{SECRET}> greylisted")
NO_RELAY = Cause("relay", "connect", "connect", "Connection refused")


@pytest.fixture
def job_ids(ask: Ask) -> list[str]:
    """Two jobs that were greylisted, due in 20 and in 10 minutes, and one that was given back for want of a relay."""

    def record(at: float, attempts: int) -> Record:
        timeline = (Attempt(at - 9 + attempts, "deferred"),)
        return Record(at, "Registration", attempts=attempts, cause=GREYLISTED, timeline=timeline)

    async def put(client: RedisClient) -> list[str]:
        await client.command("RPUSH", "jobs", *(job_bytes(number, SECRET) for number in range(3)))
        broker = Broker(client, QueueOptions())
        claims = await broker.claim(3)
        assert isinstance(claims, Claims)
        at = claims.at
        verdicts: list[Verdict] = [
            Delay(1200.0, record(at, 1), GREYLISTED),
            Delay(600.0, record(at, 2), GREYLISTED),
            Release(Record(at - 20, "Registration"), NO_RELAY),
        ]
        await broker.settle([Settlement(job, verdict) for job, verdict in zip(claims.jobs, verdicts, strict=True)])
        return [job.job_id for job in claims.jobs]

    found: list[str] = ask(put)
    return found


def delayed(ask: Ask) -> dict[str, ShelvedJob]:
    jobs = ask(lambda client: read_shelf(client, "jobs", "delayed", 100))
    return {job.job_id: job for job in jobs}


def test_delayed_jobs_are_listed_with_those_that_are_due_first_at_the_top(
    run: Callable[..., int], job_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with why it waits, also when the relay was to blame and no attempt was spent; under headings."""
    assert run("delayed", "list") == 0
    heads, *lines, last = capsys.readouterr().out.splitlines()

    assert heads.split() == ["due", "id", "type", "attempts", "why"]
    assert [line.split()[1] for line in lines] == job_ids[::-1]
    assert "relay: connect at CONNECT Connection refused" in lines[0]
    assert "deferred: 451 4.7.1 at RCPT <a…t@example.org> greylisted" in lines[1]
    assert last == "3 of 3 delayed jobs. Details: trio-worker delayed show ID"
    assert run("delayed", "list", "--cause", "relay", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["delayed"], [job["job_id"] for job in document["jobs"]]) == (3, [job_ids[2]])


def test_delayed_jobs_are_grouped_and_shown(
    run: Callable[..., int], job_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As dead ones are."""
    assert run("delayed", "groups", "--json") == 0
    found = json.loads(capsys.readouterr().out)["groups"]
    assert [(group["count"], group["word"]) for group in found] == [(2, "deferred"), (1, "relay")]
    assert run("delayed", "groups") == 0
    heads = capsys.readouterr().out.splitlines()[0]
    assert heads.split() == ["count", "code", "cause", "type", "first", "due", "last", "due", "example"]
    assert run("delayed", "show", job_ids[0]) == 0
    shown = capsys.readouterr().out
    assert "DELAYED until" in shown
    assert SECRET not in shown
    assert run("dead", "show", job_ids[0]) == 3


def test_a_retried_delayed_job_is_due_now_and_keeps_its_attempts(
    run: Callable[..., int], job_ids: list[str], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the retry can be undone: it waits for its old time again."""
    before = delayed(ask)
    assert run("delayed", "retry", "--cause", "deferred", "--expect", "2", "--dry-run") == 0
    assert "would: Make 2 delayed jobs of jobs due now" in capsys.readouterr().out
    assert run("delayed", "retry", "--cause", "deferred", "--expect", "2", "--yes") == 0
    assert "2 delayed jobs are due now on jobs" in capsys.readouterr().out
    assert (counts(ask).delayed, counts(ask).due) == (3, 3)
    assert [delayed(ask)[job_id].record for job_id in job_ids] == [before[job_id].record for job_id in job_ids]

    assert run("delayed", "retry", "--undo", "last") == 0
    assert "2 jobs are delayed again" in capsys.readouterr().out
    assert delayed(ask) == before
    assert counts(ask).operator_counts.acts[OperatorAction.DELAYED_RETRY] == 1


def test_retries_of_delayed_jobs_are_paced(run: Callable[..., int], job_ids: list[str], ask: Ask) -> None:
    """The one that was due first goes first."""
    assert run("delayed", "retry", "--cause", "deferred", "--yes", "--rate", "0.01") == 0

    due = delayed(ask)
    assert due[job_ids[0]].at - due[job_ids[1]].at == pytest.approx(100.0)


def test_a_dropped_delayed_job_leaves_nothing(run: Callable[..., int], job_ids: list[str], ask: Ask) -> None:
    """It is no dead letter, so it counts as none that was removed."""
    assert run("delayed", "drop", job_ids[0]) == 4
    assert run("delayed", "drop", job_ids[0], "--yes") == 0

    after = counts(ask)
    assert (after.delayed, after.bodies, after.records, after.leases) == (2, 2, 2, 2)
    assert after.operator_counts.removed[Removal.DROPPED] == 0
    assert run("job", "show", job_ids[0]) == 3


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_delayed_jobs_count_by_age_and_domain(
    run: Callable[..., int], job_ids: list[str], ask: Ask, capsys: pytest.CaptureFixture[str], exact: tuple[str, ...]
) -> None:
    """Beside those that wait: a domain that greylists is late, although none of its mails waits in the list."""
    ask(lambda client: client.command("RPUSH", "jobs", job_bytes(7)))
    assert run("queue", "age", "--by", "domain", "--json", *exact) == 0
    table = json.loads(capsys.readouterr().out)

    assert (table["waiting"], table["delayed"]) == (1, 3)
    assert [(row["name"], row["total"], row["delayed"]) for row in table["rows"]] == [
        ("TOTAL", 4, 3),
        ("example.org", 3, 3),
        ("example.com", 1, 0),
    ]
    assert run("queue", "age", "--by", "domain") == 0
    heads, total, *_ = capsys.readouterr().out.splitlines()
    assert heads.split()[:3] == ["domain", "jobs", "delayed"]
    assert total.split()[:3] == ["TOTAL", "4", "3"]


def test_last_is_the_job_that_was_delayed_last(
    run: Callable[..., int], job_ids: list[str], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """For every command that takes an id; of dead and held ones it is the newest, and without any it is nobody."""
    for command in (("delayed", "show"), ("job", "show")):
        assert run(*command, "last") == 0
        assert capsys.readouterr().out.startswith(job_ids[1])
    assert run("dead", "show", "last") == 3
    assert "last: no job of jobs is dead\n" in capsys.readouterr().err

    assert run("job", "cancel", "last") == 0
    assert run("dead", "show", "last") == 0
    assert run("job", "show", "last") == 0
    assert capsys.readouterr().out.count(f"{job_ids[1]}   Registration   DEAD") == 2
    assert run("dead", "retry", "last") == 0
    assert run("job", "retry", "last") == 0
    assert run("delayed", "drop", "last", "--yes") == 0
    assert len(delayed(ask)) == 2
