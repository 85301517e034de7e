"""Measure trio_worker beside what people use instead: one sink, one Valkey, interleaved runs, medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import trustme
from attrs import asdict, define, field, frozen

PARTS = Path(__file__).resolve().parent
ROOT = PARTS.parent.parent
sys.path.insert(0, str(PARTS.parent))

from proving_ground import Valkey, job_of  # noqa: E402  the path comes first

CONNECTIONS = 10
PATIENCE_SECONDS = 300.0
PUSH_AT_ONCE = 1000


@frozen
class Contender:
    """Something that sends the mails of a queue. ``slow`` ones get fewer mails where a round trip takes time."""

    name: str
    depth: int = 0  # of trio_worker; 0 for others
    share: float = 1.0
    processes: int = 1


@frozen
class Run:
    """The figures of one run."""

    rate: float  # mails/s between the first and the last tenth
    cpu_seconds_per_1000: float
    peak_mb: float
    redis_commands_per_mail: float
    connections: int
    start_seconds: float  # from the start of the process to the first mail


@define
class Sink:
    """The process that takes the mails."""

    process: subprocess.Popen[str]
    port: int

    def ask(self, words: str) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def open_sink(round_trip_ms: float, tls: Path | None) -> Iterator[Sink]:
    port = free_port()
    more = [str(tls / "cert.pem"), str(tls / "key.pem")] if tls else []
    command = [sys.executable, str(PARTS / "sink.py"), str(port), str(round_trip_ms), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()
        yield Sink(process, port)
    finally:
        process.kill()
        process.wait()


@define
class Ground:
    """Where contenders run."""

    folder: Path
    valkey: Valkey
    node: Path | None
    tls: Path | None = None
    notes: list[str] = field(factory=list)

    def push(self, contender: Contender, count: int) -> None:
        with self.valkey.client() as client:
            client.flushall()
            if contender.name == "BullMQ + nodemailer":
                self.bullmq("push", 0, count, check=True)
                return
            for start in range(0, count, PUSH_AT_ONCE):
                client.rpush("jobs", *map(job_of, range(start, min(start + PUSH_AT_ONCE, count))))

    def bullmq(self, what: str, smtp_port: int, count: int, *, check: bool = False) -> subprocess.Popen[bytes]:
        assert self.node
        words = [what, self.valkey.port, smtp_port, CONNECTIONS, "tls" if self.tls else "plain", count]
        script = self.node / "bullmq_contender.mjs"
        process = subprocess.Popen(["node", str(script), *map(str, words)], cwd=self.node)  # noqa: S607
        if check and process.wait():
            raise SystemExit("BullMQ could not push")
        return process

    def start(self, contender: Contender, sink: Sink, count: int) -> subprocess.Popen[bytes]:
        tls = "tls" if self.tls else "plain"
        match contender.name:
            case "BullMQ + nodemailer":
                return self.bullmq("work", sink.port, count)
            case "per-mail connection" | "aiosmtplib pool":
                kind = "pool" if contender.name == "aiosmtplib pool" else "each"
                words = [kind, self.valkey.port, sink.port, CONNECTIONS, tls]
                return subprocess.Popen([sys.executable, str(PARTS / "aiosmtplib_contender.py"), *map(str, words)])
            case _:
                return self.start_trio_worker(contender, sink)

    def start_trio_worker(self, contender: Contender, sink: Sink, *, is_burst: bool = True) -> subprocess.Popen[bytes]:
        config = self.folder / "worker.toml"
        workers = CONNECTIONS * max(4, 2 * contender.depth)
        host = "localhost" if self.tls else "127.0.0.1"
        encryption = f'tls = "implicit"\nca_file = "{self.tls}/ca.pem"' if self.tls else 'tls = "none"'
        config.write_text(
            f'profile = "production"\nnumber_workers = {workers}\n'
            f'[redis]\nurl = "redis://127.0.0.1:{self.valkey.port}"\n[queue]\njournal_dir = "{self.folder}/journal"\n'
            f'[smtp]\nhost = "{host}"\nport = {sink.port}\n{encryption}\n'
            f"[smtp.pool]\nmax_size = {CONNECTIONS}\npipeline_depth = {contender.depth}\n"
            f'[log]\nfile = "{self.folder}/worker.log"\n'
        )
        command = [sys.executable, "-m", "trio_worker", "run", "--no-dashboard", "--config", str(config)]
        command += ["--burst"] if is_burst else []
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL)


def sent_commands(client: Any) -> int:
    """Count the commands that clients sent; those that scripts run would count as well."""
    stats = client.info("commandstats")
    by_client = ("evalsha", "eval", "blpop", "blmove", "bzpopmin", "hello", "auth", "config", "ping", "time")
    return sum(int(stats[f"cmdstat_{name}"]["calls"]) for name in by_client if f"cmdstat_{name}" in stats)


def run_once(ground: Ground, contender: Contender, sink: Sink, count: int) -> Run:
    """Push, start, wait for the last mail, and for the processes to end by themselves."""
    ground.push(contender, count)
    sink.ask(f"clear {count}")
    with ground.valkey.client() as client:
        commands_before = sent_commands(client)
        began = time.time()
        processes = [ground.start(contender, sink, count) for _ in range(contender.processes)]
        cpu_seconds, peak_kb = 0.0, 0
        deadline = began + PATIENCE_SECONDS
        while (report := sink.ask("report"))["mails"] < count and time.time() < deadline:
            time.sleep(0.2)
        for process in processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu_seconds += usage.ru_utime + usage.ru_stime
            peak_kb = max(peak_kb, usage.ru_maxrss)
            if process.returncode:
                raise SystemExit(f"{contender.name} ended with {process.returncode}")
        commands = sent_commands(client) - commands_before
    if report["mails"] != count:
        raise SystemExit(f"{contender.name}: {report['mails']} of {count} mails came")
    return Run(
        rate=report["rate"],
        cpu_seconds_per_1000=1000 * cpu_seconds / count,
        peak_mb=peak_kb / 1024,
        redis_commands_per_mail=commands / count,
        connections=report["connections"],
        start_seconds=report["first_at"] - began,
    )


def measure_idle(ground: Ground, mails: int) -> dict[str, float]:
    """Push one job at a time to a worker with nothing to do; return milliseconds from the push to the 250."""
    pushed_at = {}
    with open_sink(0.0, ground.tls) as sink, ground.valkey.client() as client:
        client.flushall()
        sink.ask(f"clear {mails}")
        process = ground.start_trio_worker(Contender("trio_worker", depth=1), sink, is_burst=False)
        client.rpush("jobs", job_of(mails))
        while sink.ask("report")["mails"] < 1:
            time.sleep(0.1)
        for number in range(mails):
            pushed_at[number] = time.time()
            client.rpush("jobs", job_of(number))
            time.sleep(0.02)
        time.sleep(0.5)
        accepted_at = {int(number): at for number, at in sink.ask("report")["accepted_at"].items()}
        process.terminate()
        process.wait()
    waits = sorted(1000 * (accepted_at[number] - at) for number, at in pushed_at.items())
    return {"p50_ms": waits[len(waits) // 2], "p99_ms": waits[len(waits) * 99 // 100]}


def median_run(runs: Sequence[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*(asdict(run).values() for run in runs), strict=True)))


def measure(
    ground: Ground, contenders: list[Contender], count: int, rounds: int, round_trip_ms: float
) -> dict[str, Run]:
    """Run every contender once in each round, so that a slow minute of the machine meets them all."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    with open_sink(round_trip_ms, ground.tls) as sink:
        for number in range(rounds):
            for contender in contenders:
                mails = max(200, round(count * contender.share))
                run = run_once(ground, contender, sink, mails)
                runs[contender.name].append(run)
                print(f"  round {number + 1} {contender.name}: {run.rate:,.0f}/s", file=sys.stderr, flush=True)
    return {name: median_run(each) for name, each in runs.items()}


def prepare_node() -> Path | None:
    """Install BullMQ and nodemailer where node is; None where it is not, or cannot be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        return None
    kept = ROOT / ".venv" / "bench-node"
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copy(PARTS / "bullmq_contender.mjs", kept)
    if not (kept / "node_modules" / "ioredis").is_dir():
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "bullmq", "ioredis", "nodemailer"]
        if subprocess.run(command, cwd=kept, check=False).returncode:
            return None
    return kept


def write_certificates(folder: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    with (folder / "cert.pem").open("wb") as chain:
        for each in certificate.cert_chain_pems:
            chain.write(each.bytes())
    return folder


def contenders_for(options: argparse.Namespace, node: Path | None, round_trip_ms: float) -> list[Contender]:
    # Who waits a round trip for each command gets fewer mails; rates do not depend on it.
    few = 1.0 if round_trip_ms == 0 else 0.05
    deep = 32 if round_trip_ms < 50 else 64
    found = [
        Contender("per-mail connection", share=few / 2),
        Contender("aiosmtplib pool", share=few),
        Contender("trio_worker depth 1", depth=1, share=min(1.0, 4 * few)),
        Contender("trio_worker deep", depth=deep if round_trip_ms else 8, share=2.0),
    ]
    if node is not None:
        found.insert(2, Contender("BullMQ + nodemailer", share=few))
    if options.processes == 2:
        found.append(
            Contender("trio_worker deep, 2 processes", depth=deep if round_trip_ms else 8, share=2.0, processes=2)
        )
    return [each for each in found if not options.only or any(word in each.name for word in options.only)]


def table(results: dict[str, Run]) -> str:
    pool = results.get("aiosmtplib pool")
    figures = f"{'CPU s/1000':>10} {'peak MB':>8} {'redis/mail':>10} {'conns':>6}"
    lines = [f"{'contender':<30} {'mails/s':>9} {'ratio':>6} {figures}"]
    for name, run in results.items():
        ratio = f"{run.rate / pool.rate:.1f}x" if pool else "-"
        figures = f"{run.cpu_seconds_per_1000:>10.3f} {run.peak_mb:>8.0f} {run.redis_commands_per_mail:>10.3f}"
        lines.append(f"{name:<30} {run.rate:>9,.0f} {ratio:>6} {figures} {run.connections:>6.0f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--mails", type=int, default=6000, help="mails of a run at full speed (6000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-trips", type=float, nargs="*", default=[0.0, 20.0, 100.0], help="milliseconds")
    parser.add_argument("--tls", action="store_true", help="implicit TLS instead of plain")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose names hold one of these words")
    parser.add_argument("--idle", action="store_true", help="only the time from a push to the 250, on an idle worker")
    parser.add_argument("--json", type=Path, help="write all medians there")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        valkey = Valkey(folder / "valkey", free_port())
        valkey.start()
        stack.callback(valkey.kill)
        wants_node = not options.idle and (not options.only or "BullMQ" in options.only)
        node = prepare_node() if wants_node else None
        ground = Ground(folder, valkey, node, write_certificates(folder) if options.tls else None)
        if options.idle:
            idle = measure_idle(ground, 500)
            print(f"idle, push to 250: p50 {idle['p50_ms']:.1f} ms, p99 {idle['p99_ms']:.1f} ms")
            return 0
        for round_trip_ms in options.round_trips:
            contenders = contenders_for(options, node, round_trip_ms)
            results = measure(ground, contenders, options.mails, options.rounds, round_trip_ms)
            print(f"\nround trip {round_trip_ms:g} ms, {'TLS' if options.tls else 'plain'}, {CONNECTIONS} connections")
            print(table(results), flush=True)
            found[f"{round_trip_ms:g}"] = {name: asdict(run) for name, run in results.items()}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
