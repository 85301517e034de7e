"""``queue`` as a person types it, on a real Valkey."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import CAUSES, SECRET, Ask, bury, counts, push
from tests.support.jobs import job_bytes
from trio_worker.fleet.overview import DAY_MINUTES
from trio_worker.queue.keys import keys_of


def test_queue_is_one_line(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, age and pause; as JSON the same."""
    push(ask, job_bytes(1, enqueued_at="2020-01-01T00:00:00Z"), job_bytes(2))
    assert run("queue", "list") == 0
    assert "open" in capsys.readouterr().out
    assert run("queue", "list", "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)

    assert (line["queue"], line["waiting"], line["paused"], line["oldest_is_estimate"]) == ("jobs", 2, None, False)
    assert line["oldest_seconds"] > 1e8


def test_pause_has_a_reason_a_person_and_an_end(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command shows it; it ends by itself, or at once with a command."""
    assert run("queue", "pause") == 2
    assert run("queue", "pause", "--reason", "relay maintenance", "--for", "30m", "--by", "ana") == 0
    assert "paused jobs for 30m" in capsys.readouterr().out
    paused = counts(ask)
    assert paused.paused == "relay maintenance (ana)"
    assert paused.pause_seconds_left == pytest.approx(1800, abs=5)
    assert run("status") == 0
    assert "paused: relay maintenance (ana)" in capsys.readouterr().out

    assert run("queue", "resume") == 0
    assert counts(ask).paused == ""
    assert run("queue", "resume") == 3


@pytest.mark.parametrize("span", ["15", "soon", "-5m", "0s"])
def test_pause_for_no_span_is_wrong_usage(run: Callable[..., int], ask: Ask, span: str) -> None:
    """A number without a unit is not guessed at."""
    assert run("queue", "pause", "--reason", "x", f"--for={span}") == 2
    assert counts(ask).paused == ""


def test_pause_for_ever_has_to_be_said(run: Callable[..., int], ask: Ask) -> None:
    """Then it has no end."""
    assert run("queue", "pause", "--reason", "x", "--for", "forever") == 0
    assert counts(ask).pause_seconds_left is None


def test_peek_shows_no_address(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str], work_folder: Path
) -> None:
    """Types, ages and domains; the job itself only with --reveal, which leaves a line in the log."""
    push(ask, job_bytes(1, SECRET), b"{", job_bytes(2))
    assert run("queue", "peek", "--limit", "2") == 0
    shown = capsys.readouterr().out
    assert "Registration" in shown
    assert "example.org" in shown
    assert "not JSON" in shown
    assert SECRET not in shown
    assert not (work_folder / "worker.log").exists()

    assert run("queue", "peek", "--reveal") == 0
    assert SECRET in capsys.readouterr().out
    audit = (work_folder / "worker.log").read_text()
    assert "Revealed" in audit
    assert 'command="queue peek"' in audit
    assert SECRET not in audit
    assert counts(ask).waiting == 3


def test_ages_are_counted(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """By type or by domain; undated jobs have a column of their own."""
    push(ask, job_bytes(1, SECRET, enqueued_at="2020-01-01T00:00:00Z"), job_bytes(2), job_bytes(3))
    assert run("queue", "age", "--by", "domain", "--json") == 0
    table = json.loads(capsys.readouterr().out)

    assert [(row["name"], row["total"]) for row in table["rows"]] == [
        ("TOTAL", 3),
        ("example.com", 2),
        ("example.org", 1),
    ]
    assert table["rows"][0]["jobs"][-2:] == [1, 2]
    assert run("queue", "age", "--by", "colour") == 2


def test_jobs_without_a_date_are_dated_by_how_many_were_pushed_by_when(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the minutes know is shown as an estimate; a job from before them has no age."""
    push(ask, *(job_bytes(number) for number in range(4)))
    this_minute = int(time.time()) // 60
    ring: list[str | bytes] = []
    for minute, waiting in ((this_minute - 20, 1), (this_minute - 10, 3), (this_minute - 1, 4)):
        ring += [str(minute % DAY_MINUTES), f"{minute} 0 0 0 0 0 0 0 {waiting} 0 0"]
    ask(lambda redis: redis.command("HSET", keys_of("jobs").minutes, *ring))
    assert run("queue", "age", "--json") == 0
    table = json.loads(capsys.readouterr().out)

    assert table["estimated"] == 3
    assert table["rows"][0]["total"] == 4
    assert table["rows"][0]["jobs"][-1] == 1
    assert run("queue", "age") == 0
    assert "~ 3 of 4 ages are estimates" in capsys.readouterr().out


def test_queue_list_estimates_the_oldest_job_as_status_does(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the same hour of minutes: a job that waits for longer than two of them is not undated."""
    push(ask, job_bytes(1))
    this_minute = int(time.time()) // 60
    ring: list[str | bytes] = []
    for minute, waiting in ((this_minute - 20, 0), (this_minute - 10, 1)):
        ring += [str(minute % DAY_MINUTES), f"{minute} 0 0 0 0 0 0 0 {waiting} 0 0"]
    ask(lambda redis: redis.command("HSET", keys_of("jobs").minutes, *ring))

    ages = []
    for words in (("queue", "list"), ("status",)):
        assert run(*words) == 0
        ages += re.findall(r"~\d+m", capsys.readouterr().out)

    assert len(ages) > 1
    assert len(set(ages)) == 1


@pytest.mark.parametrize("span", ["0.2", "0.2s"])
def test_a_number_of_seconds_is_a_duration_where_it_was_one(run: Callable[..., int], ask: Ask, span: str) -> None:
    """Scripts that wrote seconds go on; people write a unit."""
    assert run("tail", "--for", span) == 0
    assert run("tail", "--for", "soon") == 2


def test_waiting_for_an_empty_queue(run: Callable[..., int], ask: Ask) -> None:
    """0 at once if it is empty; 75 if no worker runs."""
    assert run("queue", "drain-wait") == 0
    push(ask, job_bytes(1))
    assert run("queue", "drain-wait", "--timeout", "1s") == 75


def test_waiting_in_vain_for_a_paused_queue_says_that_it_is_paused(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody would empty it meanwhile."""
    push(ask, job_bytes(1))
    assert run("queue", "pause", "--reason", "relay maintenance", "--by", "ana", "--for", "forever") == 0
    assert run("queue", "drain-wait", "--timeout", "0.6s") == 75
    assert "1 waiting, 0 leased, 0 due; paused: relay maintenance (ana), until it is resumed" in capsys.readouterr().err


def test_exported_jobs_can_be_pushed_again(
    run: Callable[..., int], ask: Ask, capsysbinary: pytest.CaptureFixture[bytes], work_folder: Path
) -> None:
    """Any pushed bytes are exported unchanged, and the export takes nothing from the list."""
    jobs = [job_bytes(1), b'{\n"two": "lines"}', b"\xff\x00", '{"é": 1}'.encode()]
    push(ask, *jobs)
    assert run("queue", "export") == 0
    (work_folder / "jobs.ndjson").write_bytes(capsysbinary.readouterr().out)
    assert run("queue", "purge", "--yes") == 0
    assert run("enqueue", "jobs.ndjson", "--unchecked") == 0

    assert ask(lambda client: client.command("LRANGE", "jobs", 0, -1)) == jobs


def test_purge_asks_and_says_what_stays(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal it refuses; it deletes what waits and nothing else."""
    bury(ask, CAUSES[:1])
    push(ask, job_bytes(1), job_bytes(2))
    assert run("queue", "purge") == 4
    assert run("queue", "purge", "--yes", "--expect", "3") == 4
    assert counts(ask).waiting == 2
    assert run("queue", "purge", "--dry-run") == 0
    assert "1 dead stay" in capsys.readouterr().out
    assert run("queue", "purge", "--yes", "--expect", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema": "trio-worker/purge/1", "purged": 2}
    assert (counts(ask).waiting, counts(ask).dead) == (0, 1)
    assert run("queue", "purge", "--yes") == 3


def test_release_is_the_way_back(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """It pauses the queue, puts the jobs back as they were, and says how to go on."""
    bury(ask, CAUSES[:2])
    push(ask, job_bytes(7))
    assert run("queue", "release", "--dead") == 4
    assert run("queue", "release", "--dead", "--yes") == 0
    assert "2 jobs are back on jobs" in capsys.readouterr().out

    assert ask(lambda client: client.command("LRANGE", "jobs", 0, -1)) == [
        job_bytes(0, SECRET),
        job_bytes(1, SECRET),
        job_bytes(7),
    ]
    assert counts(ask).paused.startswith("queue release")
