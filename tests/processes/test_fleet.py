"""Workers seen and steered from elsewhere, by commands, signals and keys: real processes, a real terminal."""

from __future__ import annotations

import json
import os
import signal
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.processes import Program, Programs, patience, push, told
from tests.support.terminal import open_window
from trio_worker.capture.catcher import Catcher
from trio_worker.queue.keys import keys_of
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry.heartbeat import Heartbeat, write_heartbeat
from trio_worker.worker.phase import Phase

SECRET = "ann.secret@example.org"
# A worker that sends heartbeats ten times as often, so that tests need not wait long.
QUICK = """
import sys
from trio_worker.fleet import presence
presence.BEAT_SECONDS /= 10
sys.argv = ["trio-worker", *sys.argv[1:]]
from trio_worker.__main__ import main
main()
"""


async def running(programs: Programs) -> tuple[Program, str]:
    """Start a worker; return it and its name once it is seen."""
    worker = await programs.start_python(QUICK, "run", "--no-dashboard")
    while True:
        program = await programs.start("worker", "list", "--json")
        await program.end()
        workers = json.loads(program.printed)["workers"]
        if workers:
            return worker, workers[0]["worker"]


async def test_worker_is_seen_and_steered_by_commands(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Listed, quieted, resumed and drained from another shell; every face says the same figures."""
    with patience():
        worker, name = await running(programs)
        await push(real_redis, 5)
        await relay.wait_for_mails(5)
        top = json.loads(await told(programs, "top", "--json"))
        status = json.loads(await told(programs, "status", "--json"))
        assert top["schema"] == "trio-worker/snapshot/2"
        assert top["jobs"]["waiting"] == status["counts"]["waiting"] == 0
        assert [each["worker"] for each in top["workers"]] == [each["worker"] for each in status["workers"]] == [name]
        assert status["health"] == "healthy"
        assert "Registration" in status["workers"][0]["types"]
        assert "Nothing: no job waits" in await told(programs, "why")

        assert f"{name}: quiet" in await told(programs, "worker", "quiet", name)
        await real_redis.command("RPUSH", "jobs", job_bytes(9))
        assert f"{name}: claiming" in await told(programs, "worker", "resume", "--all")
        await relay.wait_for_mails(6)
        await told(programs, "worker", "quiet", "nobody:1", code=3)
        assert f"{name}: gone" in await told(programs, "worker", "drain", name)
        assert await worker.end() == 0
    assert worker.ledger["sent"] == 6
    await told(programs, "worker", "list", code=3)


async def test_worker_is_looked_into_from_elsewhere(
    programs: Programs, real_redis: RedisClient, relay: Catcher, work_folder: Path
) -> None:
    """Its tasks, a lower log level for a while, and what it says to the relay: asked from another shell, masked."""
    with patience():
        worker, name = await running(programs)

        tasks = await told(programs, "worker", "tasks", name)
        assert tasks.startswith(f"{name}: running, 0 in hand")
        assert any(line.lstrip().startswith("trio_worker.fleet.presence.Presence.run") for line in tasks.splitlines())
        assert "  worker.py:" in tasks or "  presence.py:" in tasks
        await told(programs, "worker", "tasks", "nobody:1", code=3)

        assert f"{name}: debug" in await told(programs, "worker", "log-level", "debug", "--all", "--for", "5m")
        await told(programs, "worker", "log-level", "loud", "--all", code=2)
        await told(programs, "worker", "log-level", "debug", "--all", "--for", "forever", code=2)

        # One that does not answer: what the other says is shown meanwhile.
        silent = write_heartbeat(
            Heartbeat("silent:1", "1.2.3", time.time(), Phase.RUNNING, number_workers=1, max_connections=1)
        )
        await real_redis.run_script("beat", keys_of("jobs"), "silent:1", silent, 60_000, 0)
        trace = await programs.start("smtp", "trace", "--json", "--for", "1m", "--timeout", "600")
        while "tracing" not in str(await real_redis.command("HVALS", "{jobs}:answers")):
            pass
        await real_redis.command("RPUSH", "jobs", job_bytes(1, SECRET))
        await relay.wait_for_mails(1)
        while "message of" not in str(await real_redis.command("XRANGE", "{jobs}:latest", "-", "+")):
            pass
        await trace.until_printed('"message of')
        trace.process.send_signal(signal.SIGINT)
        assert await trace.end() == 130
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.end() == 0

    said = [json.loads(line)["exchange"] for line in trace.printed.splitlines()]
    assert [each["said"].split("<")[0] for each in said if each["connection_id"]][:2] == ["MAIL FROM:", "RCPT TO:"]
    assert SECRET not in trace.printed
    assert "a…t@example.org" in trace.printed
    log = (work_folder / "logs" / "worker.log").read_text()
    assert "Claimed job" in log


async def test_outcomes_are_followed_from_elsewhere(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Tail sees what becomes of jobs, and no address in clear; rates are there line by line."""
    with patience():
        worker, name = await running(programs)
        tail = await programs.start("tail", "--json", "--for", "30")
        while not await real_redis.command("EXISTS", "{jobs}:watch"):
            pass
        sent = 0
        while "worker" not in tail.printed:
            # Until the worker knows from its heartbeat that there is a watcher.
            await real_redis.command("RPUSH", "jobs", job_bytes(sent, SECRET))
            sent += 1
            with trio.move_on_after(0.3):
                await tail.until_printed("worker")
        line = json.loads(tail.printed.splitlines()[0])
        assert (line["worker"], line["disposition"], line["email_type"]) == (name, "sent", "Registration")
        assert SECRET not in tail.printed
        tail.signal(signal.SIGINT)
        assert await tail.end() == 130

        assert "sent/s" in await told(programs, "stats", "--count", "1", "--interval", "1")
        assert "uncertain" in await told(programs, "stats", "--last", "5")
        worker.signal(signal.SIGTERM)
        assert await worker.end() == 0


async def test_signals_show_and_quiet(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """SIGUSR1 prints the tasks and the ledger; SIGUSR2 stops claiming, and again goes on."""
    with patience():
        worker, name = await running(programs)
        worker.signal(signal.SIGUSR2)
        await until(lambda: "Worker quiet" in programs.log)
        await push(real_redis, 2)
        assert json.loads(await told(programs, "status", "--json"))["counts"]["waiting"] == 2
        worker.signal(signal.SIGUSR1)
        assert worker.process.stderr is not None
        # What came before is the line that names configuration and Redis.
        while "in hand" not in worker.complained or "gate.py:" not in worker.complained:
            worker.complained += (await worker.process.stderr.receive_some()).decode()
        worker.signal(signal.SIGUSR2)
        await relay.wait_for_mails(2)
        worker.signal(signal.SIGTERM)
        assert await worker.end() == 0

    assert f"{name}: running, quiet, 0 in hand" in worker.complained
    assert "gate.py:" in worker.complained
    assert worker.ledger["sent"] == 2


async def test_trial_decides_whether_the_rest_is_retried(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """A relay that still refuses costs one mail; one that works again gets all."""
    relay.faults = faults("rcpt=550")
    with patience():
        worker, _ = await running(programs)
        await push(real_redis, 6)
        await until_dead(programs, 6)
        complained = await complaint(programs, "dead", "retry", "--all", "--trial", "1", "--yes", code=5)
        assert "the other 5 jobs were not retried" in complained
        await until_dead(programs, 6)
        relay.faults = faults("")
        assert "6 dead letters are due again" in await told(programs, "dead", "retry", "--all", "--trial", "1", "--yes")
        await relay.wait_for_mails(6)
        worker.signal(signal.SIGTERM)
        assert await worker.end() == 0


async def until_dead(programs: Programs, count: int) -> None:
    while json.loads(await told(programs, "status", "--json"))["counts"]["dead"] != count:
        pass


async def complaint(programs: Programs, *words: str, code: int) -> str:
    program = await programs.start(*words)
    assert await program.end() == code, (words, program.printed, program.complained)
    return program.complained


async def until(is_so: Callable[[], bool]) -> None:
    """Look until it is so; the patience of the test bounds it."""
    while not is_so():
        await trio.lowlevel.checkpoint()


async def test_keys_of_a_running_worker(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """Pages, freezing, a pause that is typed, and q, which asks and drains; the terminal is as before."""
    with patience():
        process, window, (outside, before) = await open_window(programs, "run")
        await window.until("1-5 pages")
        await push(real_redis, 3)
        await window.until("sent      Registration")
        window.press("?")
        await window.until("exit; a worker asks, and drains first")
        window.press("?4")
        await window.until("FAILURES")
        window.press("1 ")
        await window.until("FROZEN")
        window.press(" p")
        await window.until("pause the queue for 15 minutes, because:")
        window.press("relay maintenance\r")
        await window.until("paused for 15m00s")
        await window.until("PAUSED")
        assert "relay maintenance" in str(await real_redis.command("GET", "{jobs}:pause"))
        window.press("presume\r")
        await window.until("resumed")
        window.press("q")
        await window.until("type quit to drain this worker and exit:")
        window.press("\r")
        await window.until("still running")
        window.press("qquit\r")
        assert await process.wait() == 0
    assert termios.tcgetattr(outside) == before
    os.close(outside)
    os.close(window.fd)


async def test_top_looks_and_does_not_touch(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """The same screen for all workers; the key that pauses only says how it could."""
    with patience():
        worker, name = await running(programs)
        process, window, (outside, before) = await open_window(programs, "top")
        await window.until("WORKERS")
        await window.until(name.rpartition(":")[2])
        window.press("p")
        await window.until("changes nothing")
        assert not await real_redis.command("EXISTS", "{jobs}:pause")
        process.send_signal(signal.SIGTSTP)
        await until(lambda: os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)[1] != 0)
        assert termios.tcgetattr(outside)[3] == before[3]
        process.send_signal(signal.SIGCONT)
        window.seen = ""
        await window.until("WORKERS")
        window.press("q")
        assert await process.wait() == 0
        worker.signal(signal.SIGTERM)
        assert await worker.end() == 0
    assert termios.tcgetattr(outside) == before
    os.close(outside)
    os.close(window.fd)


async def test_frame_is_written_as_a_picture(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """For a page or a bug report; a missing folder is an error."""
    with patience():
        await told(programs, "top", "--svg", "frame.svg")
        assert (programs.folder / "frame.svg").read_text("utf-8").startswith("<svg")
        await told(programs, "top", "--svg", "no/such/frame.svg", code=2)
        assert "no worker is heard" in await told(programs, "top", "--once")


@pytest.mark.parametrize("words", [("stats", "--json"), ("stats", "--last", "1440"), ("worker", "quiet")])
async def test_wrong_usage_ends_with_2(
    words: tuple[str, ...], programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """What cannot be done is said at once."""
    with patience():
        await told(programs, *words, code=2)
