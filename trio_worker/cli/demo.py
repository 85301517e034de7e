"""Trio. ``demo``: a worker with its own Valkey and mail catcher in a temporary folder, and sample jobs."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import trio
from attrs import field
from cyclopts import Parameter

from trio_worker.capture.host import write_chaos
from trio_worker.capture.maildir import count_caught
from trio_worker.cli.exit_codes import MISCONFIGURED, OK, PARTLY
from trio_worker.cli.flags import NoDashboard
from trio_worker.cli.output import refuse
from trio_worker.cli.run import run_worker
from trio_worker.cli.run_display import print_line
from trio_worker.printing import complain
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import SettingFaults, read_settings
from trio_worker.telemetry.number_words import counted
from trio_worker.worker.events import Event, Settled
from trio_worker.worker.phase import Disposition
from trio_worker.worker.worker import Worker

# The relay of the demo is a little slow and sometimes refuses: this shows more of the worker.
CHAOS = "every=delay-20ms rcpt=451:4%"
_TYPES = ("Registration", "ResetPassword", "EmailChange", "WeeklyRecap", "MonthlyRecap", "YearlyRecap")
NAMES = ("ada", "bo", "chidi", "dalia", "emre", "fumiko", "gus", "hana")
# How long the last frame stays on the screen.
LAST_FRAME_SECONDS = 2.0


async def demo(
    *,
    jobs: Annotated[int, Parameter(help="Number of sample jobs.")] = 200,
    rate: Annotated[float, Parameter(metavar="NUMBER", help="Number of jobs pushed per second.")] = 40.0,
    keep: Annotated[
        Path | None, Parameter(help="Folder in which queue, mails and log are kept; default: they are deleted.")
    ] = None,
    no_dashboard: NoDashboard = False,
) -> int:
    """Start a Valkey and a mail catcher, push sample jobs, send them, and print the number of caught mails."""
    with tempfile.TemporaryDirectory(prefix="trio-worker-demo-") as made:
        folder = keep if keep is not None else Path(made)
        return await _demo_in(folder, jobs, rate, shows_dashboard=not no_dashboard, is_kept=keep is not None)


async def _demo_in(folder: Path, jobs: int, rate: float, *, shows_dashboard: bool, is_kept: bool) -> int:
    port = _free_port()
    caught = folder / "capture"
    settings = read_settings(
        None,
        {},
        {
            "profile": "dev",
            "queue.journal_dir": str(folder / "journal"),
            "redis.url": f"embedded:{folder / 'valkey'}?port=0",
            "smtp.port": port,
            "smtp.tls": "none",
            "capture.listen": f"127.0.0.1:{port}",
            "capture.dir": str(caught),
            "retry.base_seconds": 1.0,
            "log.file": str(folder / "worker.log"),
        },
    )
    if isinstance(settings, SettingFaults):
        refuse(MISCONFIGURED, *map(str, settings.faults))
    try:
        write_chaos(caught, CHAOS)
    except OSError as error:
        refuse(MISCONFIGURED, f"{error.filename}: {error.strerror}")
    before = count_caught(caught)
    pusher = _Pusher(jobs, rate)
    code = await run_worker(
        settings, lambda: settings, is_burst=False, shows_dashboard=shows_dashboard, alongside=pusher.run
    )
    found = count_caught(caught) - before
    print_line(f"{counted(pusher.pushed, 'job')} pushed, {counted(found, 'mail')} caught")
    print_line(f"next{where_the_program_is()}:")
    if not is_kept:
        print_line("  trio-worker demo --keep demo       the same, and keeps queue, mails and log in the folder demo")
    print_line("  trio-worker run                    a worker of your own; README.md, Use it, says how to push to it")
    print_line("  trio-worker config init PATH       a configuration for your own relay and Redis")
    if is_kept:
        print_line(f"kept in {folder}: capture/ is a Maildir, worker.log has a line for each job")
    return code or (OK if found == pusher.pushed else PARTLY)


def where_the_program_is() -> str:
    """Return where, in brackets, if the program is not on PATH: tools/demo runs it from its own environment."""
    return "" if shutil.which("trio-worker") else f" (trio-worker is {os.path.relpath(sys.argv[0])})"


@define(eq=False)
class _Pusher:
    """Pushes sample jobs at a steady rate, and drains the worker when all of them are sent or dead."""

    jobs: int
    rate: float
    pushed: int = 0
    finished: int = 0
    _changed: trio.Event = field(factory=trio.Event)
    dice: random.Random = field(factory=lambda: random.Random(7))  # noqa: S311  sample names, no secrets

    async def run(self, worker: Worker, client: RedisClient) -> None:
        worker.sinks = [*worker.sinks, self.note]
        while self.pushed < self.jobs:
            answer = await client.command("RPUSH", worker.options.queue.name, demo_job(self.pushed, self.dice))
            if isinstance(answer, Unavailable):
                complain(f"Redis: {answer.reason}")
                break
            self.pushed += 1
            await trio.sleep(1 / self.rate)
        while self.finished < self.pushed:
            self._changed = trio.Event()
            await self._changed.wait()
        await trio.sleep(LAST_FRAME_SECONDS)
        worker.drain("the demo is over")

    def note(self, event: Event) -> None:
        """Count the jobs that are sent or dead."""
        if isinstance(event, Settled):
            self.finished += sum(job.disposition in {Disposition.SENT, Disposition.DEAD} for job in event.jobs)
            self._changed.set()


def demo_job(number: int, dice: random.Random) -> bytes:
    """Return one job as a producer pushes it."""
    email_type = dice.choice(_TYPES)
    name = dice.choice(NAMES)
    fields: dict[str, object] = {"email": f"{name}.{number}@example.com", "username": name}
    if email_type.endswith("Recap"):
        fields["stats"] = {"steps": dice.randrange(20_000, 90_000), "nights of good sleep": dice.randrange(1, 8)}
    else:
        fields["token"] = f"{dice.getrandbits(64):016x}"
    return json.dumps({"task_type": "Email", "data": {"email_type": email_type, "data": fields}}).encode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
