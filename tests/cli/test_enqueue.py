"""``enqueue``: what is refused, what is guessed, and what workers do not know."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import Ask, counts, push
from tests.support.jobs import job_bytes
from trio_worker.cli.enqueue import not_pushed, unknown_to_workers
from trio_worker.queue.keys import keys_of
from trio_worker.redis.calls import Unavailable
from trio_worker.telemetry.heartbeat import Heartbeat, WorkerSeen, write_heartbeat
from trio_worker.worker.phase import Phase


def test_job_that_is_written_over_several_lines_is_told_of_once(
    run: Callable[..., int], ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A document that a person has set out is no job a line, and one sentence says so; not of lines that are wrong."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(json.loads(job_bytes(1)), indent=2))
    assert run("enqueue", str(file)) == 4
    assert "one JSON document on several lines" in capsys.readouterr().err
    file.write_text("{\n{\n")
    assert run("enqueue", str(file)) == 4
    assert "on several lines" not in capsys.readouterr().err
    assert counts(ask).waiting == 0


def test_a_batch_that_redis_refused_was_not_pushed(
    run: Callable[..., int], ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing about it is unknown: Redis did nothing."""
    ask(lambda client: client.command("DEL", "jobs"))
    ask(lambda client: client.command("SET", "jobs", "no list"))
    file = tmp_path / "jobs.ndjson"
    file.write_bytes(job_bytes(1))

    assert run("enqueue", str(file)) not in {0, 5}
    told = capsys.readouterr().err
    assert "0 of 1 job pushed\n" in told
    assert "unknown" not in told
    ask(lambda client: client.command("DEL", "jobs"))


@pytest.mark.parametrize(
    ("pushed", "number", "told"),
    [
        (0, 1, "0 of 1 job pushed; it is unknown whether the next 1 job was"),
        (500, 1200, "500 of 1,200 jobs pushed; it is unknown whether the next 500 jobs were"),
        (1000, 1200, "1,000 of 1,200 jobs pushed; it is unknown whether the next 200 jobs were"),
    ],
)
def test_a_batch_without_an_answer_may_have_been_pushed(pushed: int, number: int, told: str) -> None:
    """As many jobs as were in it."""
    assert not_pushed(Unavailable("the connection broke"), pushed, number) == told


def test_a_batch_for_which_no_connection_was_opened_was_not_pushed() -> None:
    """Nothing was sent, so nothing is unknown."""
    assert not_pushed(Unavailable("nobody is there", is_unsent=True), 500, 1200) == "500 of 1,200 jobs pushed"


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        ([job_bytes(1)], 0, "1 job pushed to jobs, 0 refused; 3 now wait"),
        ([job_bytes(1), b"no job"], 5, "1 job pushed to jobs, 1 refused; 3 now wait"),
        ([b"no job"], 4, "0 jobs pushed to jobs, 1 refused\n"),
    ],
)
def test_what_enqueue_refused_tells_its_exit_code(
    run: Callable[..., int],
    ask: Ask,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lines: list[bytes],
    code: int,
    words: str,
) -> None:
    """None, some or all of the lines; what was not asked of Redis is not called 0."""
    push(ask, job_bytes(2), job_bytes(3))
    (tmp_path / "jobs.ndjson").write_bytes(b"\n".join(lines))

    assert run("enqueue", str(tmp_path / "jobs.ndjson")) == code
    assert words in capsys.readouterr().out


def test_enqueue_guesses_what_an_unknown_type_was_to_be(
    run: Callable[..., int], ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that is checked is refused with the guess; one that is not is pushed with a warning."""
    (tmp_path / "jobs.ndjson").write_bytes(job_bytes(1).replace(b"Registration", b"Registartion"))

    assert run("enqueue", str(tmp_path / "jobs.ndjson")) == 4
    assert "Registartion is not known here; did you mean Registration?" in capsys.readouterr().err
    assert run("enqueue", str(tmp_path / "jobs.ndjson"), "--unchecked") == 0
    told = capsys.readouterr()
    assert "1 job of type Registartion, which is not known here; did you mean Registration?" in told.err
    assert "1 job pushed to jobs, 0 refused; 1 now waits" in told.out


def test_enqueue_guesses_no_email_type_where_the_task_type_is_wrong(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault names the one task type there is; the email type was right."""
    (tmp_path / "jobs.ndjson").write_bytes(job_bytes(1).replace(b'"Email"', b'"email"'))

    assert run("enqueue", "--dry-run", str(tmp_path / "jobs.ndjson")) == 4
    told = capsys.readouterr().err.splitlines()
    assert told[1:] == ["line 1: unknown_type: $.task_type: email is not known; it must be Email"]


def worker_with(*types: str, seen_seconds: float = 1.0) -> WorkerSeen:
    return WorkerSeen(Heartbeat("a:1", "1.0", 0.0, Phase.RUNNING, 1, 1, types=types), seen_seconds)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ([worker_with("Registration")], "no live worker knows OrderShipped: 2 jobs will become dead letters"),
        ([worker_with("Registration"), worker_with("OrderShipped")], ""),
        ([worker_with("Registration"), worker_with("OrderShipped", seen_seconds=60)], "no live worker"),
        ([worker_with("Registration"), worker_with()], ""),
        ([], ""),
    ],
)
def test_enqueue_warns_of_a_type_that_no_worker_knows(workers: list[WorkerSeen], said: str) -> None:
    """A worker of another version may report no types, so there is no warning; a Message needs no templates."""
    warnings = unknown_to_workers(Counter(OrderShipped=2, Message=1, Registration=1), workers)

    assert len(warnings) == bool(said)
    assert all(said in warning for warning in warnings)


def test_enqueue_hears_from_workers_which_types_they_know(
    run: Callable[..., int], ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their heartbeats are read; the job is pushed all the same."""
    beat = write_heartbeat(worker_with("WeeklyRecap").beat)
    ask(lambda client: client.run_script("beat", keys_of("jobs"), "a:1", beat, 60_000, 0))
    (tmp_path / "jobs.ndjson").write_bytes(job_bytes(1))

    assert run("enqueue", str(tmp_path / "jobs.ndjson")) == 0
    assert "no live worker knows Registration: 1 job" in capsys.readouterr().err
    assert counts(ask).waiting == 1
