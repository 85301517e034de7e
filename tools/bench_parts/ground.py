"""The test bed of the benchmark: the sink, the Valkey, and each contender as a process in its environment."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from attrs import define, field, frozen

PARTS = Path(__file__).resolve().parent
sys.path.insert(0, str(PARTS.parent))

from faces import start_on_terminal  # noqa: E402
from proving_ground import Valkey, job_of  # noqa: E402  the path comes first
from versions import HERE, ROOT, Version  # noqa: E402  the same

CONNECTIONS = 10
PUSH_AT_ONCE = 1000
# Job queues of Python, and the packages of their virtual environments besides aiosmtplib.
OTHERS = {"arq": "arq", "SAQ": "saq[redis] typing-extensions", "dramatiq": "dramatiq[redis]", "Celery": "celery[redis]"}


@frozen
class Contender:
    """A program that sends the mails of a queue; if a distant relay makes it slow, it gets a ``share`` of the mails."""

    name: str
    depth: int = 0  # of trio_worker; 0 for others
    share: float = 1.0
    processes: int = 1
    has_metrics: bool = True
    has_screen: bool = False
    version: Version = HERE


@define
class Sink:
    """The process that accepts the mails."""

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
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield Sink(process, port)
        finally:
            process.kill()


@define
class Ground:
    """The test bed of the contenders."""

    folder: Path
    valkey: Valkey
    node: Path | None
    tls: Path | None = None
    others: dict[str, Path] = field(factory=dict)  # their Pythons
    notes: list[str] = field(factory=list)

    def push(self, contender: Contender, count: int) -> None:
        with self.valkey.client() as client:
            client.flushall()
            if contender.name == "BullMQ + nodemailer":
                self.bullmq("push", 0, count, check=True)
                return
            if contender.name in OTHERS:
                if self.other(contender.name, "push", 0, count).wait():
                    raise SystemExit(f"{contender.name} could not push")
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

    def other(self, name: str, what: str, smtp_port: int, count: int) -> subprocess.Popen[bytes]:
        words = [name, what, self.valkey.port, smtp_port, CONNECTIONS, "tls" if self.tls else "plain", count]
        command = [str(self.others[name]), str(PARTS / "others.py"), *map(str, words)]
        # In a new process group, because Celery would also end on our Ctrl-C.
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def start(self, contender: Contender, sink: Sink, count: int) -> subprocess.Popen[bytes]:
        tls = "tls" if self.tls else "plain"
        match contender.name:
            case "BullMQ + nodemailer":
                return self.bullmq("work", sink.port, count)
            case name if name in OTHERS:
                return self.other(name, "work", sink.port, count)
            case "per-mail connection" | "aiosmtplib pool":
                kind = "pool" if contender.name == "aiosmtplib pool" else "each"
                words = [kind, self.valkey.port, sink.port, CONNECTIONS, tls]
                return subprocess.Popen([sys.executable, str(PARTS / "aiosmtplib_contender.py"), *map(str, words)])
            case _:
                return self.start_trio_worker(contender, sink)

    def start_trio_worker(self, contender: Contender, sink: Sink, *, is_burst: bool = True) -> subprocess.Popen[bytes]:
        config = self.write_config(contender, sink.port)
        command = [str(contender.version.python), "-m", "trio_worker", "run", "--config", str(config)]
        command += ["--burst"] if is_burst else []
        if contender.has_screen:
            return start_on_terminal(command, config.parent, contender.version.environment)
        command += ["--no-dashboard"]
        environment = contender.version.environment
        return subprocess.Popen(command, cwd=config.parent, env=environment, stdout=subprocess.DEVNULL)

    def config_of(self, version: Version) -> Path:
        """Return the path of its configuration, in a folder for this version with the log and the journal."""
        return self.folder / version.name / "worker.toml"

    def write_config(self, contender: Contender, smtp_port: int) -> Path:
        """Write the configuration of trio_worker, with journal, log and all else that is on in production."""
        config = self.config_of(contender.version)
        config.parent.mkdir(exist_ok=True)
        # At a high depth a thousand mails take one or two seconds: new connections would cost round trips.
        most = 1000 if contender.depth == 1 else 100_000
        host = "localhost" if self.tls else "127.0.0.1"
        encryption = f'tls = "implicit"\nca_file = "{self.tls}/ca.pem"' if self.tls else 'tls = "none"'
        config.write_text(
            f'profile = "dev"\nnumber_workers = {workers_of(contender)}\n'
            f'[redis]\nurl = "redis://127.0.0.1:{self.valkey.port}"\n[queue]\njournal_dir = "{config.parent}/journal"\n'
            f'[smtp]\nhost = "{host}"\nport = {smtp_port}\n{encryption}\n'
            f"[smtp.pool]\nmax_size = {CONNECTIONS}\npipeline_depth = {contender.depth}\n"
            f"max_uncertain = {max(64, contender.depth)}\nmax_messages = {most}\n"
            f'[log]\nfile = "{config.parent}/worker.log"\n'
            f'[metrics]\nlisten = "{"127.0.0.1:0" if contender.has_metrics else ""}"\n'
        )
        return config


def workers_of(contender: Contender) -> int:
    """Return ``number_workers``: the number of jobs that fill the connections, or of tasks that can have these jobs."""
    if contender.version.counts_jobs:
        return CONNECTIONS * max(4, contender.depth)
    return CONNECTIONS if contender.depth > 1 else 2 * CONNECTIONS


def prepare_node() -> Path | None:
    """Install BullMQ and nodemailer with node; None without node, or if it fails."""
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


def prepare_other(name: str) -> Path | None:
    """Make a virtual environment with this library; None if it cannot be installed."""
    folder = ROOT / ".venv" / f"bench-{name.lower()}"
    python = folder / "bin" / "python"
    if (folder / "made").exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *OTHERS[name].split(), "aiosmtplib"],
    ):
        if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
            print(f"  {name} cannot be installed: left out", file=sys.stderr)
            return None
    (folder / "made").touch()
    return python


def write_certificates(folder: Path) -> Path:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    with (folder / "cert.pem").open("wb") as chain:
        for each in certificate.cert_chain_pems:
            chain.write(each.bytes())
    return folder
