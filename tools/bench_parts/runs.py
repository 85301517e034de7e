"""Runs of one contender: from the push of all jobs to the end of its processes, with rates and costs.

Also the latency of an idle worker, and the most mails a second that the sink can take.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, frozen

from ground import CONNECTIONS, Contender, Ground, Sink, open_sink
from proving_ground import job_of
from usage import IS_KNOWN, peak_mb

T = TypeVar("T")
# Job queues whose process has to be stopped at the end.
TOLD_TO_END = {"Celery"}
PATIENCE_SECONDS = 300.0
# Commands that contenders send for each mail or batch. Without TIME, which is called by the scripts of trio_worker.
_SCRIPTS = ("evalsha", "evalsha_ro", "eval", "fcall", "fcall_ro")
_WAITS = ("blpop", "brpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup")
BY_CLIENT = (*_SCRIPTS, *_WAITS, "hello", "auth", "config", "ping")


@frozen
class Run:
    """The figures of one run."""

    rate: float  # mails/s between the first and the last tenth
    cpu_seconds_per_1000: float  # including the start of the program
    peak_mb: float
    redis_commands_per_mail: float
    connections: int
    start_seconds: float  # from the start of the process to the first mail
    # Between the first and the last tenth of the mails, like the rate. 0 without /proc.
    steady_cpu_seconds_per_1000: float = 0.0


def sent_commands(client: Any) -> int:
    """Count the commands that clients sent. Redis also counts those of scripts, so none of these may be in the list."""
    stats = client.info("commandstats")
    return sum(int(stats[f"cmdstat_{name}"]["calls"]) for name in BY_CLIENT if f"cmdstat_{name}" in stats)


def run_once(ground: Ground, contender: Contender, sink: Sink, count: int) -> Run:
    """Push the jobs, start the contender, wait for the last mail, and until the processes have ended by themselves."""
    ground.push(contender, count)
    sink.ask(f"clear {count}")
    with ground.valkey.client() as client:
        commands_before = sent_commands(client)
        began = time.time()
        processes = [ground.start(contender, sink, count) for _ in range(contender.processes)]
        if IS_KNOWN:
            sink.ask(f"watch {' '.join(str(process.pid) for process in processes)}")
        cpu_seconds, peak = 0.0, 0.0
        deadline = began + PATIENCE_SECONDS
        is_over = False
        while not is_over and time.time() < deadline:
            time.sleep(0.2)
            is_over = sink.ask("count")["mails"] >= count
            peak = max(peak, *(peak_mb(process.pid) for process in processes))
        for process in processes:
            if contender.name in TOLD_TO_END:
                os.kill(process.pid, signal.SIGTERM)  # Popen.terminate would reap it, and lose its usage
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu_seconds += usage.ru_utime + usage.ru_stime
            peak = peak if IS_KNOWN else max(peak, usage.ru_maxrss / 1024)
            if process.returncode:
                raise SystemExit(f"{contender.name} ended with {process.returncode}")
        commands = sent_commands(client) - commands_before
    report = sink.ask("report")
    if report["mails"] != count:
        raise SystemExit(f"{contender.name}: {report['mails']} of {count} mails came")
    return Run(
        rate=report["rate"],
        cpu_seconds_per_1000=1000 * cpu_seconds / count,
        peak_mb=peak,
        redis_commands_per_mail=commands / count,
        connections=report["connections"],
        start_seconds=report["first_at"] - began,
        steady_cpu_seconds_per_1000=report["cpu_seconds_per_1000"],
    )


def measure_sink(tls: Path | None, mails: int = 50_000) -> float:
    """Return the mails a second that the sink accepts from a client that only streams bytes over CONNECTIONS."""
    each = mails // CONNECTIONS
    head = b"EHLO x\r\n"
    content = b"Subject: x\r\n\r\n" + b"x" * 1000 + b"\r\n"
    mail = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<user0@example.com>\r\nBDAT %d LAST\r\n" % len(content) + content
    with open_sink(0.0, tls) as sink, ExitStack() as stack:
        sink.ask(f"clear {each * CONNECTIONS}")

        def stream() -> None:
            link: socket.socket = stack.enter_context(socket.create_connection(("127.0.0.1", sink.port)))
            if tls:
                context = ssl.create_default_context(cafile=str(tls / "ca.pem"))
                link = stack.enter_context(context.wrap_socket(link, server_hostname="localhost"))
            link.recv(1000)
            link.sendall(head)
            reader = threading.Thread(target=drain, args=(link,), daemon=True)
            reader.start()
            for _ in range(each // 50):
                link.sendall(mail * 50)
            link.sendall(b"QUIT\r\n")
            reader.join()

        def drain(link: socket.socket) -> None:
            while link.recv(65536):
                pass

        threads = [threading.Thread(target=stream) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate: float = sink.ask("report")["rate"]
        return rate


def idle_waits(ground: Ground, contender: Contender, sink: Sink, pushes: int) -> list[float]:
    """Push one job at a time to an idle worker; return the milliseconds from each push to the final 250."""
    pushed_at = {}
    with ground.valkey.client() as client:
        client.flushall()
        sink.ask(f"clear {pushes}")
        process = ground.start_trio_worker(contender, sink, is_burst=False)
        client.rpush("jobs", job_of(pushes))
        while sink.ask("count")["mails"] < 1:
            time.sleep(0.1)
        for number in range(pushes):
            pushed_at[number] = time.time()
            client.rpush("jobs", job_of(number))
            time.sleep(0.02)
        time.sleep(0.5)
        accepted_at = {int(number): at for number, at in sink.ask("report")["accepted_at"].items()}
        process.terminate()
        process.wait()
    return [1000 * (accepted_at[number] - at) for number, at in pushed_at.items()]


def quantile(values: Iterable[float], percent: int) -> float:
    found = sorted(values)
    return found[len(found) * percent // 100]


def measure_idle(ground: Ground, pushes: int) -> dict[str, float]:
    with open_sink(0.0, ground.tls) as sink:
        waits = idle_waits(ground, Contender("trio_worker", depth=1), sink, pushes)
    return {"p50_ms": quantile(waits, 50), "p99_ms": quantile(waits, 99)}


def median_run(runs: Sequence[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*(asdict(run).values() for run in runs), strict=True)))


def in_turn(contenders: Sequence[T], number: int) -> Sequence[T]:
    """Return the contenders in the order of a round: every second one is reversed, so that none is always first."""
    return contenders[::-1] if number % 2 else contenders


def run_rounds(
    ground: Ground, contenders: Sequence[Contender], count: int, rounds: int, round_trip_ms: float
) -> dict[str, list[Run]]:
    """Run every contender once in each round, so that a slow minute of the machine affects all of them."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    with open_sink(round_trip_ms, ground.tls) as sink:
        for number in range(rounds):
            for contender in in_turn(contenders, number):
                mails = max(200, round(count * contender.share))
                run = run_once(ground, contender, sink, mails)
                runs[contender.name].append(run)
                print(f"  round {number + 1} {contender.name}: {run.rate:,.0f}/s", file=sys.stderr, flush=True)
    return runs


def measure(
    ground: Ground, contenders: Sequence[Contender], count: int, rounds: int, round_trip_ms: float
) -> dict[str, Run]:
    """Return the medians of the rounds."""
    found = run_rounds(ground, contenders, count, rounds, round_trip_ms)
    return {name: median_run(runs) for name, runs in found.items()}
