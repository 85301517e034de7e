"""Faults around a worker's process: its terminal, its descriptors, its start, what kills it. Slow ones are marked."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.support.catcher import times_sent
from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from tests.support.processes import PATIENCE_SECONDS, Programs, assert_clean, patience, push
from trio_worker.capture.catcher import Catcher
from trio_worker.queue.dead_letters import read_shelf
from trio_worker.redis.client import RedisClient

# How Python complains of a signal before it runs a line of ours.
PYTHON_STARTS = ("Could not import runpy module", "Fatal Python error")


@pytest.mark.case("B9")
async def test_a_name_server_that_hangs_does_not_hold_up_the_end(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """A drain does not wait for the look-up, and ends within the grace."""
    await push(real_redis, 2)
    slow = textwrap.dedent("""
        import socket, sys, time
        real = socket.getaddrinfo
        def hang(host, port, family=0, type=0, proto=0, flags=0):
            if host == b"relay.invalid" and not flags & socket.AI_NUMERICHOST:
                time.sleep(60)
            return real(host, port, family, type, proto, flags)
        socket.getaddrinfo = hang
        sys.argv = ["trio-worker", *sys.argv[1:]]
        from trio_worker.__main__ import main
        main()
    """)
    text = programs.config.read_text().replace("[smtp]\n", '[smtp]\nhost = "relay.invalid"\nallow_real_relay = true\n')
    programs.config.write_text(text)
    program = await programs.start_python(slow, "run", "--no-dashboard")
    with patience():
        await program.until_printed("running")
    began = trio.current_time()
    program.signal(signal.SIGTERM)
    assert await program.end() == 0
    assert trio.current_time() - began < 25
    assert (await assert_clean(real_redis)).known == 2


@pytest.mark.case("B11", "B13", "E8")
async def test_a_signal_at_any_moment_of_the_start_leaves_nothing_claimed_and_unsettled(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """It ends with 0, or with the signal before it could handle it; jobs are in the list, sent, or due again."""
    emails = await push(real_redis, 30)
    dice = random.Random(7)
    codes: Counter[int] = Counter()
    for _ in range(20):
        program = await programs.start("run", "--no-dashboard")
        with trio.move_on_after(dice.uniform(0.0, 0.9)):
            await program.process.wait()
        program.signal(dice.choice((signal.SIGTERM, signal.SIGINT)))
        code = await program.end()
        # Only what comes before our first line, while Python itself starts, may end in its words.
        is_before_us = code == 1 and program.complained.startswith(PYTHON_STARTS)
        codes[-signal.SIGINT if is_before_us else code] += 1
        assert "Traceback" not in program.complained or codes[-signal.SIGINT]
        assert (await assert_clean(real_redis)).leased == 0
    assert set(codes) <= {0, 130, -signal.SIGTERM, -signal.SIGINT}

    await programs.run("--burst")
    assert times_sent(relay) == Counter(emails)


@pytest.mark.case("B11")
async def test_a_signal_between_the_opening_and_the_work_keeps_the_worker_from_claiming(
    programs: Programs, real_redis: RedisClient
) -> None:
    """A worker that began in a scope that is cancelled would claim and settle nothing."""
    await push(real_redis, 3)
    signalled = textwrap.dedent("""
        import contextlib, os, signal, sys
        import trio
        from trio_worker.cli import run
        connect_queue = run.connect_queue
        @contextlib.asynccontextmanager
        async def open_and_be_signalled(*words, **more):
            async with connect_queue(*words, **more) as client:
                with trio.CancelScope(shield=True):
                    os.kill(os.getpid(), signal.SIGTERM)
                    await trio.testing.wait_all_tasks_blocked(0.1)
                yield client
        run.connect_queue = open_and_be_signalled
        import trio.testing
        sys.argv = ["trio-worker", *sys.argv[1:]]
        from trio_worker.__main__ import main
        main()
    """)
    program = await programs.start_python(signalled, "run", "--no-dashboard")
    assert await program.end() == 0
    assert (await assert_clean(real_redis)).waiting == 3


@pytest.mark.case("E6")
async def test_closed_standard_descriptors_do_not_become_sockets(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """With 0, 1 and 2 closed it sends as ever: nothing that is printed reaches the relay."""
    emails = await push(real_redis, 5)
    command = f"exec {sys.executable} -m trio_worker run --burst --no-dashboard --config {programs.config} <&- >&- 2>&-"
    process = await trio.lowlevel.open_process(
        ["/bin/sh", "-c", command], cwd=programs.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    programs.started.append(process)
    with patience():
        assert await process.wait() == 0
    assert times_sent(relay) == Counter(emails)


@pytest.mark.case("E7")
@pytest.mark.parametrize("nohup", [False, True])
async def test_a_terminal_that_is_closed_drains_unless_hang_ups_are_ignored(
    *,
    nohup: bool,
    programs: Programs,
    real_redis: RedisClient,
    relay: Catcher,
) -> None:
    """The mails in flight are finished; under nohup it goes on."""
    inside, outside = pty.openpty()
    command = [sys.executable, "-m", "trio_worker", "run", "--config", str(programs.config)]
    process = await trio.lowlevel.open_process(
        [*(["/usr/bin/env", "--ignore-signal=HUP"] if nohup else []), *command],
        cwd=programs.folder,
        stdin=outside,
        stdout=outside,
        stderr=outside,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "CI": ""},
        preexec_fn=_own_terminal,
    )
    os.close(outside)
    programs.started.append(process)
    await push(real_redis, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, _drain, inside)
        with patience():
            await relay.wait_for_mails(1)
            os.close(os.dup(inside))
            _hang_up(inside)
            if nohup:
                await push(real_redis, 1)
                await relay.wait_for_mails(2)
                process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    assert (await assert_clean(real_redis)).leased == 0


def _own_terminal() -> None:
    import fcntl  # noqa: PLC0415  in the child only
    import termios  # noqa: PLC0415

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _drain(inside: int) -> None:
    try:
        while os.read(inside, 65536):
            pass
    except OSError:
        return


def _hang_up(inside: int) -> None:
    os.close(inside)


@pytest.mark.case("D4")
async def test_a_job_that_kills_its_worker_ends_dead_and_takes_nobody_with_it(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """After max_deliveries crashes it is dead as crashed; every other mail is sent."""
    text = programs.config.read_text().replace("lease_seconds = 2", "lease_seconds = 1\nmax_deliveries = 3")
    programs.config.write_text(text)
    deadly = textwrap.dedent("""
        import os, sys
        from trio_worker.mail.composer import Composer
        compose = Composer.compose
        def crash(self, job, *words):
            if job.content.recipient.local == "poison":
                os._exit(9)
            return compose(self, job, *words)
        Composer.compose = crash
        sys.argv = ["trio-worker", *sys.argv[1:]]
        from trio_worker.__main__ import main
        main()
    """)
    emails = {f"user{number}@example.com" for number in range(9)}
    jobs = [job_bytes(number) for number in range(9)]
    await real_redis.command("RPUSH", "jobs", *jobs[:4], job_bytes(0, "poison@example.com"), *jobs[4:])
    codes = []
    for _ in range(8):
        program = await programs.start_python(deadly, "run", "--burst", "--no-dashboard")
        codes.append(await program.end())
        if codes[-1] == 0:
            break

    assert codes[-1] == 0
    assert codes[:-1] == [9] * 3
    assert set(times_sent(relay)) == emails
    dead = await read_shelf(real_redis, "jobs", "dead", 5, with_bodies=True)
    assert isinstance(dead, list)
    assert [job.cause.word for job in dead] == ["crashed"]
    assert b"poison@" in dead[0].body


@pytest.mark.case("E3", "C12")
async def test_a_worker_that_slept_from_the_last_byte_to_the_end_of_its_lease_is_fenced(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """The other worker's copy is counted as uncertain before it goes; the sleeper's settlement is refused."""
    relay.faults = faults("final=delay-500ms")
    await push(real_redis, 1)
    sleeper = await programs.start("run", "--no-dashboard")
    with patience():
        await relay.wait_until(lambda: "BDAT" in str(relay.commands))
    sleeper.signal(signal.SIGSTOP)
    relay.faults = faults("")
    other = await programs.run("--burst")
    assert (other.ledger["sent"], other.ledger["uncertain"]) == (1, 1)

    sleeper.signal(signal.SIGCONT)
    sleeper.signal(signal.SIGTERM)
    assert await sleeper.end() == 0
    assert sleeper.ledger["fenced"] == 1
    assert "Fenced job" in programs.log
    assert sum(times_sent(relay).values()) == 2
    assert len({mail.content.partition(b"Message-ID:")[2].partition(b"\r\n")[0] for mail in relay.mails}) == 1
    assert (await assert_clean(real_redis)).known == 0


@pytest.mark.case("E9")
async def test_a_process_with_too_few_descriptors_spends_no_attempt(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """With too few for its ten connections it makes do with fewer, or waits; nothing dies."""
    emails = await push(real_redis, 30)
    command = (
        f"ulimit -n 24; exec {sys.executable} -m trio_worker run --burst --no-dashboard --config {programs.config}"
    )
    process = await trio.lowlevel.open_process(
        ["/bin/sh", "-c", command],
        cwd=programs.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    programs.started.append(process)
    with trio.fail_after(2 * PATIENCE_SECONDS):
        assert await process.wait() == 0
    assert times_sent(relay) == Counter(emails)
    assert "attempt=2" not in programs.log


@pytest.mark.slow
@pytest.mark.case("E13")
async def test_memory_does_not_grow_with_the_number_of_mails(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Between the 5,000th and the 30,000th mail it stays within a few megabytes."""
    relay.faults = faults("")
    program = await programs.start("run", "--no-dashboard")
    resident = {}
    with trio.fail_after(300):
        for goal in (5_000, 30_000):
            while relay.total < goal:
                await push(real_redis, 1000)
                await relay.wait_for_mails(relay.total + 1000 - relay.total % 1000)
            resident[goal] = _resident_bytes(program.process.pid)
    program.signal(signal.SIGTERM)
    await program.end()

    assert resident[30_000] - resident[5_000] < 8 * 1024 * 1024


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
