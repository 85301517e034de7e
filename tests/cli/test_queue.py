"""``queue``, ``job find`` and the ways off the shelves in bulk, as a person types them, on a real Valkey."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from tests.support.commands import CAUSES, SECRET, Ask, bury, counts, push
from tests.support.jobs import job_bytes
from trio_worker.cli.enqueue import unknown_to_workers
from trio_worker.fleet.overview import DAY_MINUTES
from trio_worker.queue.history import MinuteSample, write_sample
from trio_worker.queue.keys import keys_of
from trio_worker.telemetry.feed import FeedOutcome, write_outcome
from trio_worker.telemetry.heartbeat import Heartbeat, WorkerSeen, write_heartbeat
from trio_worker.worker.events import Disposition, Phase, SettledJob


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
    """Everybody who looks is told; it ends by itself, or at once."""
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
    assert capsys.readouterr().err == "line 1: unknown_type: $.task_type: email is not known; it must be Email\n"


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
    """A worker of another version may tell no types, and then nobody knows; a Message needs no templates."""
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


@pytest.mark.parametrize(("typed", "code"), [("all", 0), ("y", 4), ("", 4)])
def test_all_of_them_has_to_be_typed(
    run: Callable[..., int], ask: Ask, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """Also for a single one; a filter wants a plain yes, and that only before it moves more than one."""
    bury(ask, CAUSES[:1])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: typed)

    assert run("dead", "retry", "--all") == code
    assert counts(ask).dead == bool(code)


def test_all_of_them_without_a_terminal_wants_a_yes(run: Callable[..., int], ask: Ask) -> None:
    """Nobody could have typed it."""
    bury(ask, CAUSES[:1])

    assert run("dead", "retry", "--all") == 4
    assert run("dead", "retry", "--all", "--yes") == 0


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
        ring += [str(minute % DAY_MINUTES), write_sample(evolve(MinuteSample(minute, *(0,) * 10), waiting=waiting))]
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
        ring += [str(minute % DAY_MINUTES), write_sample(evolve(MinuteSample(minute, *(0,) * 10), waiting=waiting))]
    ask(lambda redis: redis.command("HSET", keys_of("jobs").minutes, *ring))

    ages = []
    for words in (("queue", "list"), ("status",)):
        assert run(*words) == 0
        ages += re.findall(r"~\d+m", capsys.readouterr().out)

    assert len(ages) == 2
    assert ages[0] == ages[1]


@pytest.mark.parametrize("span", ["0.2", "0.2s"])
def test_a_number_of_seconds_is_a_duration_where_it_was_one(run: Callable[..., int], ask: Ask, span: str) -> None:
    """Scripts that wrote seconds go on; people write a unit."""
    assert run("tail", "--for", span) == 0
    assert run("tail", "--for", "soon") == 2


def tell(ask: Ask, line: FeedOutcome) -> None:
    ask(lambda redis: redis.command("XADD", keys_of("jobs").latest, "*", "outcome", write_outcome(line)))


def test_tail_begins_now(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier watcher was told, minutes ago, does not look as if it happened now."""
    for job_id, seconds_ago in (("old", 300.0), ("new", 1.0)):
        line = FeedOutcome(time.time() - seconds_ago, SettledJob(job_id, Disposition.SENT), "a:1")
        tell(ask, line)

    assert run("tail", "--for", "0.2") == 0
    shown = capsys.readouterr().out
    assert "new" in shown
    assert "old" not in shown


def test_waiting_for_an_empty_queue(run: Callable[..., int], ask: Ask) -> None:
    """At once where it is empty; 75 where nobody works."""
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


def test_an_empty_shelf_is_called_empty(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """It offers nothing to show; in JSON it is a list of none."""
    assert run("dead", "list") == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "no dead letters\n")
    assert run("dead", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == []


def test_exported_jobs_can_be_pushed_again(
    run: Callable[..., int], ask: Ask, capsysbinary: pytest.CaptureFixture[bytes], work_folder: Path
) -> None:
    """Whatever bytes were pushed come back the same, and nothing is taken meanwhile."""
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


def test_retry_of_a_group_with_an_undo(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the group goes back, as many as were seen, and it can be taken back."""
    bury(ask, CAUSES)
    assert run("dead", "retry", "--code", "550", "--yes", "--expect", "4") == 4
    assert counts(ask).dead == 4
    assert run("dead", "retry", "--code", "550", "--expect", "3", "--dry-run") == 0
    assert run("dead", "retry", "--code", "550", "--expect", "3", "--yes", "--rate", "0.1", "--json") == 0
    batch = json.loads(capsys.readouterr().out.split("\n", 1)[1])["batch"]
    assert (counts(ask).dead, counts(ask).delayed) == (1, 3)

    assert run("dead", "retry", "--undo", batch) == 0
    assert (counts(ask).dead, counts(ask).delayed) == (4, 0)
    assert run("dead", "retry", "--undo", "nosuch") == 3


def test_a_trial_does_not_wait_for_a_paused_queue(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused at once, says why, and nothing has moved."""
    bury(ask, CAUSES)
    assert run("queue", "pause", "--reason", "relay maintenance", "--by", "ana") == 0

    assert run("dead", "retry", "--code", "550", "--trial", "1", "--yes") == 4
    assert "jobs is paused: relay maintenance (ana), until " in capsys.readouterr().err
    assert counts(ask).dead == 4


def test_retry_names_exactly_one_way_to_choose(run: Callable[..., int], ask: Ask) -> None:
    """Ids, or a filter, or all: two of them are a mistake, and none is no wish."""
    (job_id, *_) = bury(ask, CAUSES)
    assert run("dead", "retry") == 2
    assert run("dead", "retry", job_id, "--code", "550") == 2
    assert run("dead", "retry", "--all", "--code", "550") == 2
    assert run("dead", "retry", "--code", "999") == 3


def test_dead_letters_are_exported_with_their_bytes(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str], work_folder: Path
) -> None:
    """One a line, and a line in the log that somebody has them."""
    bury(ask, CAUSES)
    assert run("dead", "export", "--cause", "refused") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert [line["cause"]["word"] for line in lines] == ["refused"] * 3
    assert all(line["body_base64"] for line in lines)
    assert 'command="dead export"' in (work_folder / "worker.log").read_text()


def test_job_is_found_by_whom_it_is_for_and_nobody_is_named(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address is compared in memory; ids of producers and Message-IDs find their jobs as well."""
    ids = bury(ask, CAUSES)
    push(ask, job_bytes(9, id="order-9"))
    assert run("job", "find", "--to", SECRET.upper()) == 0
    told = capsys.readouterr()
    assert all(job_id in told.out for job_id in ids)
    assert SECRET not in (told.out + told.err).lower()
    assert run("job", "find", "--id", "order-9") == 0
    assert "waits at position 1" in capsys.readouterr().out
    assert run("job", "find", "--message-id", f"<{ids[0]}@example.com>") == 0
    found = capsys.readouterr()
    assert ids[0] in found.out
    assert "job show ID" in found.err
    assert run("job", "find", "--to", "nobody@example.net") == 3
    nothing = capsys.readouterr().err
    assert nothing.startswith("0 found; ")
    assert "job show ID" not in nothing
    assert run("job", "find") == 2


def test_where_nothing_is_found_no_command_shows_more_of_it(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """How to see one is said beside ids; without any there is none to give."""
    bury(ask, CAUSES)
    for words in (("dead", "list"), ("job", "find"), ("dead", "list", "--type", "Nothing"), ("capture", "ls")):
        found = run(*words, *(("--type", "Registration") if words == ("job", "find") else ())) == 0
        told = "".join(capsys.readouterr())

        assert found
        assert (" show " in told) == (words[-1] in {"list", "find"}), words


def test_job_is_sent_now(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """A dead one comes back with a new first attempt."""
    (job_id, *_) = bury(ask, CAUSES[:1])
    assert run("job", "retry", job_id) == 0
    assert "was dead, is due now, attempt 1" in capsys.readouterr().out
    assert counts(ask).due == 1
    assert run("job", "retry", job_id) == 0
    assert run("job", "retry", "nosuch") == 3


def test_delayed_job_is_cancelled_and_comes_back(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody sends it, it is a dead letter that says why, and retry undoes it; what is dead is not cancelled again."""
    (job_id, dead_id) = bury(ask, CAUSES[:2])
    run("job", "retry", job_id)
    assert run("job", "cancel", job_id, "--dry-run") == 0
    assert "would: cancel 1 job of jobs" in capsys.readouterr().out
    assert counts(ask).delayed == 1

    assert run("job", "cancel", job_id) == 0
    assert f"to undo: trio-worker job retry {job_id}" in capsys.readouterr().out
    assert (counts(ask).delayed, counts(ask).dead) == (0, 2)
    assert run("job", "show", job_id) == 0
    shown = capsys.readouterr().out
    assert "DEAD since" in shown
    assert "cancelled" in shown
    assert run("job", "cancel", job_id, dead_id) == 4
    assert run("job", "cancel", "nosuch") == 4
    assert run("job", "cancel") == 2
    assert run("job", "retry", job_id) == 0
    assert counts(ask).due == 1


def test_job_is_cancelled_by_the_producers_id_wherever_it_is(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that waits in the list leaves it, the others stay in their order, and what comes back is what was pushed."""
    raw = job_bytes(2, SECRET, id="order-9")
    push(ask, job_bytes(1), raw, job_bytes(3), raw)
    assert run("job", "cancel", "--id", "order-9", "--no-input") == 4
    assert run("job", "cancel", "--id", "order-9", "--expect", "1", "--yes") == 4
    assert counts(ask).waiting == 4

    assert run("job", "cancel", "--id", "order-9", "--yes", "--json") == 0
    told = capsys.readouterr().out
    cancelled = json.loads(told[told.index("{") :])["cancelled"]
    assert len(cancelled) == 2
    assert ask(lambda client: client.command("LRANGE", "jobs", 0, -1)) == [job_bytes(1), job_bytes(3)]
    assert counts(ask).balances
    assert ask(lambda client: client.command("HGET", "{jobs}:body", cancelled[0])) == raw
    assert run("dead", "groups") == 0
    assert "cancelled" in capsys.readouterr().out
    assert run("job", "cancel", "--id", "order-9") == 4
    assert run("job", "cancel", "--id", "nosuch") == 3
