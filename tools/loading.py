"""Push sample jobs of any type, at once or at a rate, and report their outcomes from the totals of the queue."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import trio
from attrs import define, field, frozen
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from trio_worker.cli.connect import open_queue
from trio_worker.cli.durations import Seconds
from trio_worker.cli.exit_codes import MISCONFIGURED, OK, PARTLY, REFUSED, TIMED_OUT
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.mail import samples_of
from trio_worker.cli.output import print_json, redis_name, refuse, report_unavailable
from trio_worker.cli.setup import read_mail_setup
from trio_worker.jobs.domain import DomainFault, parse_domain
from trio_worker.jobs.job import TASK_TYPE, Json
from trio_worker.printing import complain
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings

# Jobs in one RPUSH: few round trips, and no command that takes Redis long.
BATCH = 500
# The interval at which the queue is counted, and that of the lines of progress without a terminal.
POLL_SECONDS = 0.25
LINE_SECONDS = 5.0
# If no job is claimed or finished for this long, a hint is printed, once.
STUCK_SECONDS = 10.0

app = App(
    name="tools/load",
    help_format="plaintext",
    backend="trio",
    result_action="return_value",
    default_parameter=Parameter(negative=()),
)


@frozen
class Tally:
    """Numbers of jobs since the load began; ``waiting`` to ``dead`` are named as in the ledger of a worker."""

    pushed: int
    waiting: int
    leased: int
    delayed: int
    sent: int
    held: int
    dead: int
    delays: int
    uncertain: int

    @property
    def finished(self) -> int:
        """Jobs that no worker claims again by itself."""
        return self.sent + self.held + self.dead

    @property
    def is_over(self) -> bool:
        """Whether all pushed jobs are finished, or no unfinished job is left in the queue."""
        return self.finished >= self.pushed or not (self.waiting or self.leased or self.delayed)

    def __str__(self) -> str:
        parts = ("sent", "delayed", "dead", "held", "leased", "waiting")
        return f"{self.pushed:,} pushed: " + ", ".join(f"{getattr(self, part):,} {part}" for part in parts)


def tally(pushed: int, before: Counts, now: Counts) -> Tally:
    """Compare two counts of the queue."""
    return Tally(
        pushed=pushed,
        waiting=now.waiting,
        leased=now.leased,
        delayed=now.delayed,
        sent=now.sent - before.sent,
        held=now.holds - before.holds,
        dead=now.deaths - before.deaths,
        delays=now.delays - before.delays,
        uncertain=now.uncertain - before.uncertain,
    )


class ProgressDisplay(Protocol):
    """Shows the progress of a load."""

    def show(self, now: Tally) -> None:
        """Show these figures."""


@define
class Bars:
    """Two bars in a terminal: pushed, and finished."""

    progress: Progress
    jobs: int
    _pushed: TaskID = field(init=False)
    _finished: TaskID = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pushed = self.progress.add_task("pushed", total=self.jobs, more="")
        self._finished = self.progress.add_task("finished", total=self.jobs, more="")

    def show(self, now: Tally) -> None:
        more = f"{now.sent:,} sent, {now.delayed:,} delayed, {now.dead:,} dead, {now.waiting:,} waiting"
        self.progress.update(self._pushed, completed=now.pushed)
        self.progress.update(self._finished, completed=now.finished, more=more)
        self.progress.refresh()


@define
class Lines:
    """A line every few seconds, if the output is not a terminal."""

    _next_at: float = field(factory=lambda: time.monotonic() + LINE_SECONDS)

    def show(self, now: Tally) -> None:
        if time.monotonic() >= self._next_at:
            self._next_at += LINE_SECONDS
            print(f"{time.strftime('%H:%M:%S')}  {now}", flush=True)


class NoDisplay:
    """No progress, only the JSON at the end."""

    def show(self, now: Tally) -> None:
        """Show nothing."""


@app.default
async def load(  # noqa: PLR0913  each is an option of the command line
    *,
    jobs: Annotated[int, Parameter(help="How many to push.", validator=Number(gte=1))] = 1000,
    rate: Annotated[
        float,
        Parameter(metavar="NUMBER", help="How many a second; 0 for as many as Redis takes.", validator=Number(gte=0)),
    ] = 0,
    email_types: Annotated[
        Sequence[str],
        Parameter(name=["--type"], help="Email type; several are pushed in turn.", consume_multiple=False),
    ] = ("Registration",),
    domain: Annotated[str, Parameter(help="Domain of the recipients.")] = "example.com",
    wait_seconds: Annotated[
        Seconds, Parameter(name=["--wait"], help="How long to wait for the end of the last job; 0 not at all.")
    ] = 300.0,
    queue: Annotated[str | None, Parameter(help="Name of the queue; default: queue.name.")] = None,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Under profile production too.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Push sample jobs and report their outcomes.

    Exits with 0 if all were sent, 5 if some were not, 75 if it took too long.
    """
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    if settings.profile == "production" and not yes:
        refuse(REFUSED, f"profile production: {jobs:,} mails would go to addresses at {domain}. Say --yes if they may.")
    wrong = parse_domain(domain)
    if isinstance(wrong, DomainFault):
        refuse(MISCONFIGURED, f"--domain: {wrong.reason}")
    samples = read_samples(settings, email_types)
    began = time.monotonic()
    async with open_queue(settings) as client:
        before = await count_jobs(client, settings.queue.name)
        if isinstance(before, Unavailable):
            return report_unavailable(before, settings)
        with open_display(jobs, as_json=as_json) as display:
            run = Load(settings, client, before, display)
            try:
                trouble = await run.push(sample_jobs(samples, domain, jobs), jobs, rate)
                pushed_seconds = time.monotonic() - began
                trouble = trouble or await run.watch(wait_seconds)
            except trio.Cancelled:
                complain(f"interrupted after {run.pushed:,} jobs were pushed to {settings.queue.name}: they stay there")
                raise
    if trouble is not None:
        complain(f"{run.pushed:,} jobs were pushed before that")
        return report_unavailable(trouble, settings)
    return report(run, pushed_seconds, time.monotonic() - began, is_watched=wait_seconds > 0, as_json=as_json)


@define
class Load:
    """One load on one queue."""

    settings: Settings
    client: RedisClient
    before: Counts
    display: ProgressDisplay
    pushed: int = 0
    is_paused: bool = False
    last: Tally = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.last = tally(0, self.before, self.before)

    async def push(self, jobs: Iterator[bytes], count: int, rate: float) -> Unavailable | None:
        """Push all jobs, each no earlier than the rate allows."""
        began = polled_at = trio.current_time()
        while self.pushed < count:
            due = count if not rate else min(count, int((trio.current_time() - began) * rate) + 1)
            batch = [next(jobs) for _ in range(min(BATCH, due - self.pushed))]
            if batch:
                answer = await self.client.command("RPUSH", self.settings.queue.name, *batch)
                if isinstance(answer, Unavailable):
                    return answer
                self.pushed += len(batch)
            if trio.current_time() - polled_at >= POLL_SECONDS:
                polled_at = trio.current_time()
                trouble = await self.poll()
                if trouble is not None:
                    return trouble
            if rate:
                await trio.sleep_until(began + self.pushed / rate)
        return await self.poll()

    async def watch(self, seconds: float) -> Unavailable | None:
        """Poll the queue until all jobs are finished, for at most ``seconds``."""
        taken, taken_at, has_hinted = -1, trio.current_time(), False
        with trio.move_on_after(seconds):
            while not self.last.is_over:
                await trio.sleep(POLL_SECONDS)
                trouble = await self.poll()
                if trouble is not None:
                    return trouble
                now = self.last.finished + self.last.leased + self.last.delayed
                if now != taken:
                    taken, taken_at = now, trio.current_time()
                elif trio.current_time() - taken_at > STUCK_SECONDS and not has_hinted:
                    has_hinted = True
                    why = f"{self.settings.queue.name} is paused." if self.is_paused else "does a worker run?"
                    complain(f"nothing has moved for {STUCK_SECONDS:.0f} s: {why} See: trio-worker status")
        return None

    async def poll(self) -> Unavailable | None:
        """Count the jobs of the queue and show the progress."""
        counts = await count_jobs(self.client, self.settings.queue.name)
        if isinstance(counts, Unavailable):
            return counts
        self.last = tally(self.pushed, self.before, counts)
        self.is_paused = bool(counts.paused)
        self.display.show(self.last)
        return None


def report(run: Load, pushed_seconds: float, seconds: float, *, is_watched: bool, as_json: bool) -> int:
    """Print the outcomes of the jobs; return the exit code."""
    end, before = run.last, run.before
    open_before = before.waiting + before.leased + before.delayed
    if not is_watched:
        code = OK
    elif not end.is_over:
        code = TIMED_OUT
    else:
        code = OK if end.sent >= end.pushed else PARTLY
    if as_json:
        document: dict[str, Any] = {name: getattr(end, name) for name in Tally.__annotations__}
        times = {"pushed_seconds": round(pushed_seconds, 3), "seconds": round(seconds, 3)}
        print_json(Document.LOAD, {"queue": run.settings.queue.name, **document, "open_before": open_before, **times})
        return code
    print(f"{run.settings.queue.name} @ {redis_name(run.settings.redis.url)}: {end}")
    print(f"pushed in {pushed_seconds:.1f} s ({end.pushed / max(pushed_seconds, 1e-9):,.0f}/s)", end="")
    if is_watched:
        print(f", {end.sent:,} sent in {seconds:.1f} s ({end.sent / max(seconds, 1e-9):,.0f}/s)", end="")
    print(f"; {end.delays:,} delays, {end.uncertain:,} uncertain")
    if open_before:
        print(f"{open_before:,} jobs of others were open before: these figures count them as well")
    if end.dead:
        print("Why some died: trio-worker dead groups")
    return code


@frozen
class Sample:
    """The sample data of one email type, and the name of the field with the recipient."""

    email_type: str
    fields: Mapping[str, Json]
    recipient: str


def sample_jobs(samples: Sequence[Sample], domain: str, count: int) -> Iterator[bytes]:
    """Yield jobs of the types in turn, each to a different address."""
    run = secrets.token_hex(3)
    for number in range(count):
        sample = samples[number % len(samples)]
        fields = {**sample.fields, sample.recipient: f"load-{run}-{number}@{domain}"}
        yield json.dumps({"task_type": TASK_TYPE, "data": {"email_type": sample.email_type, "data": fields}}).encode()


def read_samples(settings: Settings, email_types: Sequence[str]) -> list[Sample]:
    """Return the samples of the types; the command exits with 3 for an unknown type."""
    mail_setup = read_mail_setup(settings)
    found = []
    for email_type in email_types:
        fields = samples_of(mail_setup, email_type)
        spec = mail_setup.catalogue.types.get(email_type)
        named = () if spec is None else spec.fields
        found.append(Sample(email_type, fields, next((each.name for each in named if each.kind == "recipient"), "to")))
    return found


@contextmanager
def open_display(jobs: int, *, as_json: bool) -> Iterator[ProgressDisplay]:
    """Open bars in a terminal, lines elsewhere, and no display with JSON."""
    console = Console()
    if as_json:
        yield NoDisplay()
        return
    if not console.is_terminal:
        yield Lines()
        return
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[more]}"), console=console, auto_refresh=False) as progress:
        yield Bars(progress, jobs)


if __name__ == "__main__":
    try:
        sys.exit(app())
    except KeyboardInterrupt:
        sys.exit(130)
