"""``held``, ``dead`` and ``job show`` as a person types them, on a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.support.commands import CAUSES, SECRET, Ask, bury
from tests.support.jobs import job_bytes
from trio_worker.bridge import open_bridge
from trio_worker.cli.job_text import job_lines
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.operator_counts import OperatorAction, Removal
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Attempt, Cause, Failed, Record, Said, ShelvedJob
from trio_worker.queue.settlement import Bury, Delay, Hold, Settlement, Verdict
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions

CAUSE = Cause("uncertain", "", "final", f"eof at final: bye {SECRET}")
ATTEMPTS = (
    Attempt(1_700_000_000.0, "delayed", "451 4.3.0", "rcpt"),
    Attempt(1_700_000_060.0, "uncertain", "", "final"),
)
SAID = (Said(1_700_000_000.0, f"later, {SECRET}", 7, 0.088),)


@pytest.fixture
def job_ids(valkey_url: str) -> list[str]:
    """Two held jobs, one dead, one delayed, one leased, in this order."""
    return trio.run(_put, valkey_url)


async def _put(url: str) -> list[str]:
    async with open_bridge(print), open_redis_client(RedisOptions(url=url), 5.0) as client:
        await client.command("FLUSHALL")
        await client.command("RPUSH", "jobs", *(job_bytes(number, SECRET) for number in range(5)))
        broker = Broker(client, QueueOptions())
        claims = await broker.claim(5)
        assert isinstance(claims, Claims)
        record = Record(claims.at, "Registration", attempts=2, uncertain=1, cause=CAUSE, timeline=ATTEMPTS, said=SAID)
        verdicts: list[Verdict] = [
            Hold(record, CAUSE),
            Hold(record, CAUSE),
            Bury(record, CAUSE),
            Delay(600.0, record, CAUSE),
        ]
        entries = [Settlement(job, verdict).stored for job, verdict in zip(claims.jobs, verdicts, strict=False)]
        await broker.settle(entries)
        return [job.job_id for job in claims.jobs]


def counts_at(url: str) -> Counts:
    async def look() -> Counts:
        async with open_bridge(print), open_redis_client(RedisOptions(url=url), 5.0) as client:
            return await _counted(client)

    return trio.run(look)


async def _counted(client: RedisClient) -> Counts:
    counted = await count_jobs(client, "jobs")
    assert isinstance(counted, Counts)
    assert counted.balances
    return counted


def test_held_jobs_are_listed_and_shown_without_addresses(
    run: Callable[..., int], job_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Why, where in the conversation, and every attempt; the address only when revealed."""
    assert run("held", "list") == 0
    listed = capsys.readouterr().out
    assert run("held", "show", job_ids[0]) == 0
    shown = capsys.readouterr().out

    assert "2 of 2 held jobs" in listed
    assert job_ids[0] in listed
    assert "HELD since" in shown
    assert "uncertain   FINAL" in shown
    assert "451 4.3.0 RCPT  (connection 7, 88ms)  later, a…t@example.org" in shown
    assert f"Message-ID <{job_ids[0]}@example.com>" in shown
    assert "to        a…t@example.org" in shown
    assert SECRET not in listed + shown
    assert run("held", "show", job_ids[0], "--reveal") == 0
    assert SECRET in capsys.readouterr().out


def test_a_held_job_that_did_not_arrive_is_retried(
    run: Callable[..., int], job_ids: list[str], valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is due again; the other stays held."""
    assert run("held", "retry", job_ids[0]) == 0

    after = counts_at(valkey_url)
    assert (after.held, after.delayed, after.due) == (1, 2, 1)
    assert "1 held job is due again" in capsys.readouterr().out


def test_a_held_job_that_did_arrive_is_dropped_for_good(
    run: Callable[..., int], job_ids: list[str], valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only after a yes, because it cannot be undone; nothing of it is left."""
    assert run("held", "drop", job_ids[0]) == 4
    assert counts_at(valkey_url).held == 2
    assert run("held", "drop", job_ids[0], "--yes") == 0
    assert counts_at(valkey_url).held == 1
    assert run("held", "show", job_ids[0]) == 3
    assert run("job", "show", job_ids[0]) == 3


def test_a_dry_run_changes_nothing(
    run: Callable[..., int], job_ids: list[str], valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how many it would be."""
    assert run("dead", "drop", "--all", "--dry-run") == 0
    assert "would: Delete 1 dead letter of jobs permanently" in capsys.readouterr().out
    assert counts_at(valkey_url).dead == 1


def test_ids_that_are_not_there_are_counted_and_the_others_done(
    run: Callable[..., int], job_ids: list[str], valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dead letter is no held job; an id named twice is one."""
    assert run("held", "drop", job_ids[0], job_ids[0], job_ids[2], "--yes") == 5
    assert "1 of 2 is no held job" in capsys.readouterr().err
    assert (counts_at(valkey_url).held, counts_at(valkey_url).dead) == (1, 1)


def test_an_id_that_is_not_there_is_not_called_all(
    run: Callable[..., int], job_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """There are held jobs; that the one that was named is none is all there is to say."""
    assert run("held", "retry", job_ids[2]) == 3
    assert capsys.readouterr().err.endswith("\n1 of 1 is no held job\n")


def test_a_job_that_was_put_back_is_there_for_no_cause(
    run: Callable[..., int], job_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is due again; the cause of its death is in its timeline."""
    assert run("dead", "retry", job_ids[2]) == 0
    capsys.readouterr()
    assert run("job", "show", job_ids[2]) == 0
    shown = capsys.readouterr().out
    assert "DELAYED until" in shown
    assert "unknown" not in shown


@pytest.mark.parametrize(
    ("place", "state"), [(0, "HELD since"), (2, "DEAD since"), (3, "DELAYED until"), (4, "LEASED until")]
)
def test_a_job_is_shown_in_whatever_state_it_is(
    place: int, state: str, run: Callable[..., int], job_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its state, its attempts and its size."""
    assert run("job", "show", job_ids[place]) == 0
    shown = capsys.readouterr().out
    assert state in shown
    assert SECRET not in shown
    assert run("job", "show", job_ids[place], "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == state.split(maxsplit=1)[0].lower()
    assert document["to"] == ["a…t@example.org"]
    assert document["message_id"] == f"<{job_ids[place]}@example.com>"


def test_recipients_that_parted_are_told_apart() -> None:
    """How many have the mail, how many never will, and who is due still, masked."""
    body = message_bytes("ann@example.org", "bob@example.org", "cy@example.org")
    record = Record(0.0, "Message", due=("bob@example.org",), delivered=1, failed=(Failed("cy@example.org", "550"),))

    lines = list(
        job_lines(ShelvedJob("01a", 0.0, record, CAUSE, body, len(body)), "delayed", reveal=False, message_id="")
    )

    assert "to        a…@example.org, b…@example.org, c…@example.org" in lines
    assert "          1 delivered, 1 refused permanently; still due: b…@example.org" in lines


def message_bytes(*to: str) -> bytes:
    fields = {"to": list(to), "subject": "x", "text": "y"}
    return json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": fields}}).encode()


def test_a_job_that_is_done_is_not_shown(
    run: Callable[..., int], job_ids: list[str], valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 3, and what that may mean."""
    assert run("job", "show", "01nosuchjob") == 3
    assert "it was sent, or it is still waiting" in capsys.readouterr().err


def test_what_people_do_and_dead_letters_that_leave_are_counted(
    run: Callable[..., int], job_ids: list[str], valkey_url: str
) -> None:
    """In Redis, by whichever process: once for each command, and each dead letter by how it left."""
    assert run("dead", "retry", job_ids[2]) == 0
    assert run("held", "drop", job_ids[0], "--yes") == 0
    assert run("job", "retry", job_ids[3]) == 0
    assert run("queue", "pause", "--reason", "test") == 0
    assert run("queue", "resume") == 0
    assert run("queue", "resume") != 1  # nothing to resume: nothing is counted

    operator_counts = counts_at(valkey_url).operator_counts
    assert operator_counts.removed == {Removal.RETRIED: 1, Removal.DROPPED: 0, Removal.RELEASED: 0}
    assert {act for act, number in operator_counts.acts.items() if number} == {
        OperatorAction.DEAD_RETRY,
        OperatorAction.HELD_DROP,
        OperatorAction.JOB_RETRY,
        OperatorAction.QUEUE_PAUSE,
        OperatorAction.QUEUE_RESUME,
    }
    assert set(operator_counts.acts.values()) == {0, 1}


def test_dropped_dead_letter_is_counted_as_such(run: Callable[..., int], job_ids: list[str], valkey_url: str) -> None:
    """A drop is no retry."""
    assert run("dead", "drop", job_ids[2], "--yes") == 0

    assert counts_at(valkey_url).operator_counts.removed[Removal.DROPPED] == 1


def test_an_empty_shelf_is_called_empty(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """It offers nothing to show; in JSON it is a list of none."""
    assert run("dead", "list") == 0
    told = capsys.readouterr()
    assert (told.out, told.err.splitlines()[1:]) == ("", ["no dead letters"])
    assert run("dead", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == []


def test_dead_letters_are_grouped_by_cause(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, codes and an example; no address."""
    bury(ask, CAUSES)
    assert run("dead", "groups", "--json") == 0
    found = json.loads(capsys.readouterr().out)["groups"]
    assert [(group["count"], group["codes"], group["word"]) for group in found] == [
        (3, "550 5.1.1", "refused"),
        (1, "", "malformed"),
    ]
    assert run("dead", "groups", "--code", "4") == 3
    assert run("dead", "list", "--cause", "malformed") == 0
    assert "1 of 4 dead letters" in capsys.readouterr().out


def test_dead_letters_are_exported_with_their_bytes(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str], work_folder: Path
) -> None:
    """One in each line; the log notes that a person has them."""
    bury(ask, CAUSES)
    assert run("dead", "export", "--cause", "refused") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [line["cause"]["word"] for line in lines] == ["refused"] * 3
    assert all(line["body_base64"] for line in lines)
    assert 'command="dead export"' in (work_folder / "worker.log").read_text()
