"""The test bed of the crash proofs: a Valkey that can be killed, a relay that counts, worker processes, the sums."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio
from attrs import define, field, frozen
from redis import Redis, RedisError

from trio_worker.capture.actions import CaughtMail
from trio_worker.queue.keys import keys_of
from trio_worker.redis.embedded_server import find_binary

ROOT = Path(__file__).resolve().parent.parent
QUEUE = "jobs"
# Short, so that a test takes seconds; only its ratio to the other times matters.
LEASE_SECONDS = 2.0


def email_of(number: int) -> str:
    return f"user{number}@example.com"


def job_of(number: int) -> str:
    """Return a job for the recipient `email_of` the number."""
    fields = {"email": email_of(number), "username": f"user {number}", "token": f"token{number}"}
    return json.dumps({"task_type": "Email", "data": {"email_type": "Registration", "data": fields}})


@define
class CountingStore:
    """A store of a relay that only counts the mails of each recipient."""

    delivered: Counter[str] = field(factory=Counter)
    last_at: float = 0.0
    total: int = 0
    mails: tuple[CaughtMail, ...] = ()

    async def keep(self, mails: Sequence[CaughtMail]) -> None:
        """Count mails; never waits."""
        for mail in mails:
            self.delivered.update(mail.recipients)
        self.total += len(mails)
        self.last_at = trio.current_time()


@define
class Valkey:
    """A Valkey server with an append-only file, which can be killed and started again."""

    folder: Path
    port: int
    more: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; blocks until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec --loglevel warning"
        with (self.folder / "log").open("ab") as log:
            command = [str(find_binary()), *options.split(), "--save", "", "--dir", str(self.folder), *self.more]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except RedisError:
                    continue
                return

    def signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it like a crash of the process: data that it has passed to the kernel stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5.0, socket_connect_timeout=1.0)


@frozen
class Sums:
    """The result of a test: jobs pushed, delivered, lost, and so on."""

    accepted: int
    delivered: int
    lost: int
    unexpected: int
    duplicated: int
    uncertain: int
    left: int  # jobs still in the queue, in any state

    @property
    def holds(self) -> bool:
        """Whether the promises hold: no mail is lost or unexpected, and each duplicate was counted as uncertain."""
        return not (self.lost or self.unexpected or self.left) and self.duplicated <= self.uncertain


def add_up(accepted: set[str], maybe: set[str], delivered: Counter[str], client: Redis) -> Sums:
    """Compare the pushed jobs with the delivered mails; pushes in ``maybe`` had no reply from Redis."""
    keys = keys_of(QUEUE)
    states = [client.zcard(key) for key in (keys.leased, keys.delayed, keys.held, keys.dead)]
    return Sums(
        accepted=len(accepted),
        delivered=len(delivered),
        lost=len(accepted - set(delivered)),
        unexpected=len(set(delivered) - accepted - maybe),
        duplicated=sum(count - 1 for count in delivered.values()),
        uncertain=int(client.hget(keys.totals, "uncertain") or 0),
        left=client.llen(QUEUE) + sum(states),
    )


def write_config(path: Path, redis_port: int, relay_port: int, depth: int = 1) -> None:
    """Write the configuration of the workers: a short lease, quick retries, and no limit that makes a job dead.

    ``depth`` is the most mails in flight on one connection.
    """
    path.write_text(
        f"""
profile = "dev"
number_workers = 10
[queue]
lease_seconds = {LEASE_SECONDS}
max_deliveries = 1000000
journal_dir = "{path.parent}/journal"
[redis]
url = "redis://127.0.0.1:{redis_port}"
[smtp]
port = {relay_port}
tls = "none"
[smtp.pool]
pipeline_depth = {depth}
[smtp.timeouts]
connect_seconds = 3
command_seconds = 3
final_reply_seconds = 3
[retry]
max_attempts = 1000000
base_seconds = 0.2
cap_seconds = 2
max_age_seconds = 1000000
[mail.types.Registration]
max_age_seconds = 1000000
[shutdown]
grace_seconds = 5
[log]
file = "{path.parent}/worker.log"
""",
        encoding="utf-8",
    )


def worker_command(config: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "trio_worker", "run", "--no-dashboard", "--config", str(config), *words]


def worker_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def ending(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Kill all processes that still run at the end of the block, stopped ones too."""
    try:
        yield
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
