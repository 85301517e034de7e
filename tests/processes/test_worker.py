"""Workers as processes: signals, kills, several on one queue, the log, the ledger. Real Valkey, real SMTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.queue.audit import find_strays
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.redis.client import RedisClient

LEDGER = re.compile(
    r"(?P<claimed>[\d,]+) claimed = (?P<sent>[\d,]+) sent \+ (?P<delayed>[\d,]+) delayed \+ (?P<dead>[\d,]+) dead \+ "
    r"(?P<held>[\d,]+) held \+ (?P<released>[\d,]+) released \+ (?P<fenced>[\d,]+) fenced \+ "
    r"(?P<unsettled>[\d,]+) unsettled; (?P<uncertain>[\d,]+) uncertain"
)
PATIENCE_SECONDS = 90


@define
class Program:
    """A worker process; what it printed and how it ended."""

    process: trio.Process
    printed: str = ""
    complained: str = ""

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def until_printed(self, word: str) -> None:
        """Read what it prints until that word has come."""
        stream = self.process.stdout
        assert stream is not None
        while word not in self.printed:
            chunk = await stream.receive_some()
            assert chunk, self.printed
            self.printed += chunk.decode()

    async def end(self) -> int:
        """Read what it prints to its end, and return its exit code."""
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, "printed", self.process.stdout)
                nursery.start_soon(self._read, "complained", self.process.stderr)
            return await self.process.wait()

    async def _read(self, into: str, stream: trio.abc.ReceiveStream | None) -> None:
        assert stream is not None
        async for chunk in stream:
            setattr(self, into, getattr(self, into) + chunk.decode())

    @property
    def ledger(self) -> dict[str, int]:
        found = LEDGER.search(self.printed)
        assert found is not None, (self.printed, self.complained)
        sums = {name: int(count.replace(",", "")) for name, count in found.groupdict().items()}
        parts = ("sent", "delayed", "dead", "held", "released", "fenced", "unsettled")
        assert sums["claimed"] == sum(sums[part] for part in parts)
        return sums


@define
class Programs:
    """Starts workers in a folder and ends those that a failed test left."""

    folder: Path
    config: Path
    started: list[trio.Process] = field(factory=list)

    async def start(self, *words: str) -> Program:
        return await self._start("-m", "trio_worker", *words)

    async def start_python(self, code: str, *words: str) -> Program:
        """Start a program of some lines that runs the command line in the end."""
        return await self._start("-c", code, *words)

    async def _start(self, *words: str) -> Program:
        command = [sys.executable, *words, "--config", str(self.config)]
        root = str(Path(__file__).parents[2])
        process = await trio.lowlevel.open_process(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": root},
            start_new_session=True,
        )
        self.started.append(process)
        return Program(process)

    async def run(self, *words: str) -> Program:
        program = await self.start("run", "--no-dashboard", *words)
        assert await program.end() == 0, (program.printed, program.complained)
        return program

    @property
    def log(self) -> str:
        return (self.folder / "logs" / "worker.log").read_text("utf-8")


@pytest.fixture
async def relay() -> AsyncIterator[Catcher]:
    """A strict relay that keeps many mails."""
    async with open_catcher() as catcher:
        yield catcher
    assert catcher.violations == ()


@pytest.fixture
def programs(real_redis: RedisClient, valkey_url: str, relay: Catcher, tmp_path: Path) -> Iterator[Programs]:
    """Workers with a short lease on the real Valkey and that relay."""
    config = tmp_path / "worker.toml"
    config.write_text(
        f'profile = "production"\n[redis]\nurl = "{valkey_url}"\n[queue]\nlease_seconds = 2\n'
        f'[smtp]\nport = {relay.port}\ntls = "none"\n[retry]\nbase_seconds = 0.1\ncap_seconds = 0.2\n'
    )
    made = Programs(tmp_path, config)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process._proc.wait()
        assert process.poll() is not None  # which closes its descriptor too


async def push(client: RedisClient, count: int) -> set[str]:
    emails = {f"user{number}@example.com" for number in range(count)}
    await client.command("RPUSH", "jobs", *(job_bytes(number) for number in range(count)))
    return emails


def times_sent(relay: Catcher) -> Counter[str]:
    return Counter(recipient for mail in relay.mails for recipient in mail.recipients)


async def assert_clean(client: RedisClient) -> Counts:
    counted = await count_jobs(client, "jobs")
    assert isinstance(counted, Counts)
    assert counted.balances
    assert [stray async for stray in find_strays(client, "jobs")] == []
    return counted


@contextmanager
def patience() -> Iterator[None]:
    with trio.fail_after(PATIENCE_SECONDS):
        yield


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
    assert program.complained == ""


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
    """What was in hand stays leased, and another worker sends it; each mail that may go twice is counted."""
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
    """A refused login does not wait for its back-off when somebody has mended the secret."""
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
        await program.until_printed("-> 33\nwith the next start: metrics.listen\n")
        programs.config.write_text(more + "\n[retry]\nbase_seconds = 'x'\n")
        program.signal(signal.SIGHUP)
        await program.until_printed("settings not taken: ")
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
    assert complained == b""


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
    """It says what the command does; none takes a secret as an argument, where `ps` would show it to everybody."""
    from trio_worker.cli import app  # noqa: PLC0415  the command line is imported by few tests

    app([*words, "--help"])
    told = capsys.readouterr().out
    assert "Usage: trio-worker " + " ".join(words) in told
    assert not re.search(r"--\S*(password|secret|login)", told)
