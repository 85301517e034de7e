"""Workers as processes: signals, kills, several on one queue, the log, the ledger. Real Valkey, real SMTP."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import Counter

import pytest
import trio

from tests.support.catcher import times_sent
from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.processes import Program, Programs, assert_clean, patience, push
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.redis.client import RedisClient

# Which configuration and which Redis a command uses, on standard error.
WORLD = re.compile(r".*: queue jobs, Redis \S+\n")


async def test_a_burst_sends_everything_and_prints_a_ledger_that_balances(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """One line in the log for each mail, and no address, name's token or body in anything it writes."""
    emails = await push(real_redis, 60)
    program = await programs.run("--burst")

    assert set(times_sent(relay)) == emails
    assert program.ledger["sent"] == 60
    assert sum("Completed job" in line for line in programs.log.splitlines()) == 60
    for secret in ("user7@example.com", "secret7", "http://localhost:8081"):
        assert secret not in programs.log + program.printed + program.complained
    assert WORLD.fullmatch(program.complained)


@pytest.mark.case("B3")
async def test_sigterm_in_the_middle_ends_in_time_and_a_second_run_finishes(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Exit 0, the ledger balances, and every recipient has the mail exactly once."""
    relay.faults = faults("every=delay-50ms")
    emails = await push(real_redis, 150)
    program = await programs.start("run", "--no-dashboard")
    with patience():
        await relay.wait_for_mails(40)
    program.signal(signal.SIGTERM)
    assert await program.end() == 0

    assert program.ledger["sent"] == relay.total < 150
    assert program.ledger["unsettled"] == program.ledger["uncertain"] == 0
    await programs.run("--burst")
    assert times_sent(relay) == Counter(emails)
    assert (await assert_clean(real_redis)).known == 0


@pytest.mark.case("B12")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_third_signal_ends_at_once_and_loses_nothing(
    number: signal.Signals, code: int, programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Jobs in flight stay leased, and another worker sends them; each mail that may go twice is counted."""
    relay.faults = faults("final=stall")
    emails = await push(real_redis, 10)
    program = await programs.start("run", "--no-dashboard")
    with patience():
        await relay.wait_until(lambda: relay.connections_opened == 10)
    while program.process.poll() is None:
        program.signal(number)
        with trio.move_on_after(0.02):
            await program.process.wait()
    assert await program.end() == code

    relay.faults = faults("")
    second = await programs.run("--burst")
    assert set(times_sent(relay)) == emails
    assert 1 <= second.ledger["uncertain"] <= 10
    assert (await assert_clean(real_redis)).known == 0


@pytest.mark.case("B12")
async def test_the_second_signal_shortens_the_grace(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Two seconds later it is out with 0, and what waited for its final reply is uncertain."""
    relay.faults = faults("final=stall")
    await push(real_redis, 3)
    program = await programs.start("run", "--no-dashboard")
    with patience():
        await relay.wait_until(lambda: relay.connections_opened >= 3)
    program.signal(signal.SIGTERM)
    program.signal(signal.SIGINT)
    began = trio.current_time()
    assert await program.end() == 0

    assert trio.current_time() - began < 25
    assert program.ledger["uncertain"] + program.ledger["released"] >= 3


@pytest.mark.case("A1")
async def test_a_killed_workers_jobs_are_sent_by_another(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """After the lease; nothing is lost, and there are no more duplicates than were counted."""
    relay.faults = faults("every=delay-20ms")
    emails = await push(real_redis, 200)
    program = await programs.start("run", "--no-dashboard")
    with patience():
        await relay.wait_for_mails(50)
    program.signal(signal.SIGKILL)
    assert await program.end() == -signal.SIGKILL
    await programs.run("--burst")

    assert set(times_sent(relay)) == emails
    after = await assert_clean(real_redis)
    assert (after.known, after.waiting) == (0, 0)
    # Ten at work, and at most as many that were done and gathered to be settled together.
    assert sum(times_sent(relay).values()) - 200 <= after.uncertain <= 20


@pytest.mark.case("A24")
async def test_two_processes_share_a_queue(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """Each mail goes out once, and both send some."""
    relay.faults = faults("every=delay-50ms")
    emails = await push(real_redis, 300)
    both = [await programs.start("run", "--no-dashboard", "--burst") for _ in range(2)]
    ended = []
    async with trio.open_nursery() as nursery:

        async def end(program: Program) -> None:
            ended.append(await program.end())

        for program in both:
            nursery.start_soon(end, program)

    assert ended == [0, 0]
    assert times_sent(relay) == Counter(emails)
    assert all(program.ledger["sent"] > 0 for program in both)


async def test_a_changed_password_is_read_on_sighup(programs: Programs, real_redis: RedisClient) -> None:
    """After a refused login, a corrected secret is tried without waiting for the back-off."""
    secret = programs.folder / "secret"
    secret.write_text("wrong\n")
    async with open_catcher(credentials=("mailer", "right")) as relay:
        text = re.sub(
            r"port = \d+",
            f'port = {relay.port}\nusername = "mailer"\npassword_file = "{secret}"',
            programs.config.read_text(),
        )
        programs.config.write_text(text)
        await push(real_redis, 3)
        program = await programs.start("run", "--no-dashboard")
        with patience():
            await relay.wait_until(lambda: relay.logins_tried == 1)
            secret.write_text("right\n")
            while relay.total < 3:
                program.signal(signal.SIGHUP)
                with trio.move_on_after(0.2):
                    await relay.wait_for_mails(3)
        program.signal(signal.SIGTERM)
        assert await program.end() == 0
        assert relay.violations == ()
    assert program.ledger["sent"] == 3


async def test_limits_are_read_on_sighup_and_a_fault_changes_nothing(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """It says what was taken, what waits for the next start, and why nothing was."""
    good = programs.config.read_text()
    program = await programs.start("run", "--no-dashboard")
    with patience():
        more = "number_workers = 33\n" + re.sub(r"number_workers = \d+\n", "", good)
        await program.until_printed("running")
        programs.config.write_text(more + '\n[metrics]\nlisten = "127.0.0.1:0"\n')
        program.signal(signal.SIGHUP)
        await program.until_printed("-> 33\nafter a restart: metrics.listen\n")
        programs.config.write_text(more + "\n[retry]\nbase_seconds = 'x'\n")
        program.signal(signal.SIGHUP)
        await program.until_printed("settings not changed: ")
        await push(real_redis, 1)
        await relay.wait_for_mails(1)
    program.signal(signal.SIGTERM)
    assert await program.end() == 0
    assert programs.log.count("Settings read") == programs.log.count("Settings not taken") == 1


async def test_a_journal_that_cannot_be_read_keeps_the_worker_from_claiming(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """It says which file and what to do, and exits with 78."""
    folder = programs.folder / "var" / "journal"
    folder.mkdir(parents=True)
    (folder / "1-a.journal").write_text("damaged\n")
    await push(real_redis, 1)
    program = await programs.start("run", "--burst")

    assert await program.end() == 78
    assert "1-a.journal:1: is damaged" in program.complained
    assert (await assert_clean(real_redis)).waiting == 1


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ('url = "redis://127.0.0.1:1"', 69, ""),
        ('url = "http://127.0.0.1"', 78, "must begin with redis://"),
        ('url = "redis://127.0.0.1:1"\nurk = 1', 78, "redis.urk: no such key. Did you mean redis.url?"),
    ],
)
async def test_what_keeps_a_worker_from_working_is_said_without_a_traceback(
    change: str, code: int, words: str, programs: Programs
) -> None:
    """Redis that is not there, a wrong URL, a wrong key."""
    text = re.sub(r'url = "[^"]*"', change, programs.config.read_text()) + "[shutdown]\ngrace_seconds = 0.2\n"
    programs.config.write_text(text)
    program = await programs.start("run", "--no-dashboard", "--burst")

    assert await program.end() == code
    assert words in program.complained
    assert "Traceback" not in program.complained


@pytest.mark.case("E6")
async def test_a_reader_that_goes_away_does_not_end_the_worker(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """As in ``run | head -1``: the mails are sent all the same."""
    emails = await push(real_redis, 20)
    program = await programs.start("run", "--no-dashboard", "--burst")
    assert program.process.stdout is not None
    await program.process.stdout.aclose()
    with patience():
        assert await program.process.wait() == 0
    assert set(times_sent(relay)) == emails


@pytest.mark.parametrize(
    "words",
    [
        ("config", "show"),
        ("status",),
        ("top", "--once"),
        ("stats", "--interval", "1"),
        ("dead", "export"),
        ("queue", "list"),
    ],
)
async def test_a_command_whose_reader_has_left_ends_without_a_traceback(
    programs: Programs, real_redis: RedisClient, words: tuple[str, ...]
) -> None:
    """As behind `| head -1`; the exit code is the one of SIGPIPE."""
    await real_redis.command("RPUSH", "jobs", "no job")
    if words[0] == "dead":
        await programs.run("--burst")
    program = await programs.start(*words)
    stream = program.process.stdout
    assert stream is not None
    await stream.aclose()
    complained = b""
    assert program.process.stderr is not None
    with patience():
        async for chunk in program.process.stderr:
            complained += chunk
        assert await program.process.wait() == 141
    assert WORLD.fullmatch(complained.decode())


async def test_a_reader_that_leaves_before_the_last_lines_is_no_trouble_either() -> None:
    """What is buffered is written before Python ends, which would complain of it: `schema | head -5` did."""
    program = """
import os
from trio_worker import __main__ as program

reader, writer = os.pipe()
os.dup2(writer, 1)
os.close(writer)

def run():
    print("the last line")
    os.close(reader)
    return 0

program._run = run
program.main()
"""
    with patience():
        ended = await trio.run_process(
            [sys.executable, "-c", program],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )

    assert (ended.returncode, ended.stderr) == (141, b"")


async def test_status_and_enqueue_agree_with_what_was_pushed(programs: Programs, real_redis: RedisClient) -> None:
    """Good lines are pushed, bad ones named by their line, and the exit code says that it was only part."""
    lines = [job_bytes(1).decode(), "{nonsense", job_bytes(2).decode(), '{"task_type": "Email"}']
    jobs = programs.folder / "jobs.ndjson"
    jobs.write_text("\n".join(lines) + "\n")
    program = await programs.start("enqueue", str(jobs))

    assert await program.end() == 5
    assert "2 jobs pushed" in program.printed
    assert ":2:" in program.complained or "2:" in program.complained
    status = await programs.start("status", "--json")
    assert await status.end() == 0
    assert json.loads(status.printed)["counts"]["waiting"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["enqueue"],
        ["status"],
        ["audit"],
        ["doctor"],
        ["dead", "list"],
        ["held", "list"],
        ["job", "show"],
        ["config", "check"],
    ],
)
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the command does; no command takes a secret as an argument, which `ps` would show to all users."""
    from trio_worker.cli.command_line import app  # noqa: PLC0415  the command line is imported by few tests

    app([*words, "--help"])
    told = capsys.readouterr().out
    assert "Usage: trio-worker " + " ".join(words) in told
    assert not re.search(r"--\S*(password|secret|login)", told)
