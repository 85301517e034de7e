"""Workers and commands as processes: started in a folder, read to their end, and ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from attrs import define, field

from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
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
        root = str(ROOT)
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


async def push(client: RedisClient, count: int) -> set[str]:
    emails = {f"user{number}@example.com" for number in range(count)}
    await client.command("RPUSH", "jobs", *(job_bytes(number) for number in range(count)))
    return emails


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


async def told(programs: Programs, *words: str, code: int = 0) -> str:
    """Run a command while the worker runs, and return its output."""
    program = await programs.start(*words)
    assert await program.end() == code, (words, program.printed, program.complained)
    return program.printed
