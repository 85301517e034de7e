"""Trio. ``status``: the counts of the queue, its workers and its problems, on one screen."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated

from attrs import asdict
from cyclopts import Parameter

from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.exit_codes import OK
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, redis_name
from trio_worker.cli.table import wrapped
from trio_worker.fleet.polls import Polls
from trio_worker.printing import say
from trio_worker.queue.counts import Counts
from trio_worker.queue.history import MINUTE_SECONDS, MinuteSample
from trio_worker.telemetry.alerts import Severity, alerts
from trio_worker.telemetry.number_words import counted, duration, paused_words, per_second
from trio_worker.telemetry.outlook import LATE_SECONDS, behind_seconds, outlook
from trio_worker.telemetry.snapshot import CAUSE_MINUTES, Snapshot
from trio_worker.telemetry.snapshot_json import depth_limit_document, suspended_document, worker_document
from trio_worker.telemetry.words import depth_limit_words, work_words
from trio_worker.worker.phase import Disposition

# So many mails that were delayed, and more than were sent, are no exceptions: the relay sends nearly nothing.
DELAYS_TOLD = 10


class Health(IntEnum):
    """Health of the queue; the value is the exit code with ``--exit-code``."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 69


@blocking
async def status(
    *,
    exit_code: Annotated[bool, Parameter(negative=(), help="Exit with 1 if DEGRADED and with 69 if DOWN.")] = False,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Print the number of jobs in each state, the load of the workers, and the problems."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    name = redis_name(settings.redis.url)
    with open_calls(settings) as client:
        polls = Polls(client, settings.queue.name, name)
        answer_or_exit(await polls.poll(), settings)
    seen, snapshot = polls.last, polls.snapshot()
    if seen is None:
        raise AssertionError("a poll that succeeded is the last one")
    counts = seen.counts
    problems = troubles_of(counts, snapshot, seen.minutes)
    health = health_of(counts, snapshot, problems)
    if as_json:
        print_json(Document.STATUS, _document(settings.queue.name, counts, snapshot, problems, health))
    else:
        print_status(f"{settings.queue.name} @ {name}", counts, snapshot, problems, health)
    return int(health) if exit_code else OK


def troubles_of(counts: Counts, snapshot: Snapshot, minutes: Sequence[MinuteSample] = ()) -> list[str]:
    """Return the problems that the counts show, and the alerts of the dashboard; pure.

    ``minutes`` are the totals of the last hour.
    """
    live = [worker.beat for worker in snapshot.workers if not worker.is_lost]
    able = sum(not (beat.trouble or beat.is_quiet or beat.is_refused) for beat in live)
    warned = [alert for alert in alerts(snapshot) if alert.word not in {"PAUSED", "STOPPED", "DEPTH"}]
    problems = find_problems(counts, len(live), able, is_known=not snapshot.write_refusal)
    if able and not counts.paused:
        problems += _find_unsent(counts, snapshot, minutes)
    return problems + [f"{alert.word.lower()}: {alert.text}" for alert in warned]


def _find_unsent(counts: Counts, snapshot: Snapshot, minutes: Sequence[MinuteSample]) -> list[str]:
    """Return the problems with workers that could send and do not; that they are alive says nothing of that."""
    problems = []
    ahead = outlook(snapshot)
    if ahead.is_worrying and counts.waiting + counts.due and not snapshot.rates.sent:
        problems.append(f"{ahead.words}: see trio-worker why")
    # A mail that is pushed ahead of its time is no trouble.
    delayed = sum(
        each.count for each in snapshot.causes if each.disposition is Disposition.DELAYED and each.word != "early"
    )
    since = counts.at - CAUSE_MINUTES * MINUTE_SECONDS
    sent = counts.sent - max((each.sent for each in minutes if (each.minute + 1) * MINUTE_SECONDS <= since), default=0)
    if delayed >= DELAYS_TOLD and delayed > sent:
        what = f"{counted(delayed, 'delay')}, {sent:,} sent in the last {CAUSE_MINUTES} minutes"
        problems.append(f"{what}: see trio-worker delayed groups")
    return problems


def health_of(counts: Counts, snapshot: Snapshot, problems: list[str]) -> Health:
    """Return DOWN if jobs wait and no worker can process them, DEGRADED if there is any problem; pure."""
    has_work = bool(counts.waiting or counts.due or counts.run_out)
    troubled = any(alert.severity is Severity.TROUBLE for alert in alerts(snapshot))
    live = [worker for worker in snapshot.workers if not worker.is_lost]
    if has_work and (not live or all(worker.beat.trouble or worker.beat.is_refused for worker in live)):
        return Health.DOWN
    return Health.DEGRADED if troubled or problems else Health.HEALTHY


def print_status(title: str, counts: Counts, snapshot: Snapshot, problems: list[str], health: Health) -> None:
    """Print the screen."""
    say(f"{title:<60}  {health.name}")
    queue = snapshot.queue
    oldest = duration(queue.oldest_seconds, is_estimate=queue.is_estimate) if queue else "-"
    live = sum(not worker.is_lost for worker in snapshot.workers)
    nobody = "workers unknown" if snapshot.write_refusal else "no worker heard"
    more = {
        "waiting": f"oldest {oldest}",
        "leased": counted(live, "worker") if live else nobody,
        "delayed": f"{counts.due:,} due" if counts.due else "",
    }
    for name in ("waiting", "leased", "delayed", "held", "dead"):
        say(f"  {name:<8}{getattr(counts, name):>12,}   {more.get(name, '')}".rstrip())
    ahead = outlook(snapshot).words
    if ahead:
        say(*wrapped(f"outlook: {ahead}", "  "))
    latency = snapshot.latency
    times = "" if latency.p95 is None else f"; push to sent p50 {duration(latency.p50)}, p95 {duration(latency.p95)}"
    consumers, in_flight = work_words(snapshot)
    say(*wrapped(f"now: {per_second(snapshot.rates.sent)} sent a second; {consumers}, {in_flight}{times}", "  "))
    totals = f"{counts.popped:,} taken from the list, {counts.sent:,} sent, {counts.uncertain:,} uncertain"
    say(*wrapped(f"so far: {totals}", "  "))
    if snapshot.depth_limit is not None:
        say(f"  depth: {depth_limit_words(snapshot.depth_limit, snapshot.at)}")
    if problems:
        say("Problems")
        for problem in problems:
            say(*wrapped(problem, "  "))


def _document(name: str, counts: Counts, snapshot: Snapshot, problems: list[str], health: Health) -> dict[str, object]:
    return {
        "queue": name,
        "health": health.name.lower(),
        "counts": asdict(counts, filter=lambda each, _: each.name != "operator_counts"),
        "oldest_seconds": snapshot.queue.oldest_seconds if snapshot.queue else None,
        "behind_seconds": behind_seconds(snapshot),
        "waiting_per_second": snapshot.waiting_slope,
        "outlook": outlook(snapshot).words or None,
        "rates": asdict(snapshot.rates),
        "suspended": suspended_document(snapshot.suspended),
        "depth_limit": depth_limit_document(snapshot.depth_limit),
        "losses": [asdict(loss) for loss in (snapshot.queue.losses if snapshot.queue else ())],
        "workers": [worker_document(worker) for worker in snapshot.workers],
        "problems": problems,
    }


def find_problems(counts: Counts, live: int, able: int, *, is_known: bool = True) -> list[str]:
    """Return the problems that the counts show; ``live`` workers are alive, ``able`` of them can claim; pure.

    Unless ``is_known``, workers cannot report, and nothing follows from their silence.
    """
    problems = []
    if counts.paused:
        problems.append(f"paused: {paused_words(counts.paused, counts.at, counts.pause_seconds_left)}")
    ready = counts.waiting + counts.due + counts.run_out
    working = counts.leased - counts.run_out
    if not live and is_known and working > 0:
        problems.append(
            f"{counted(working, 'job')} leased by a worker that is not heard: its log and trio-worker health say why"
        )
    if not live and not is_known:
        pass  # an alert says why
    elif ready and not live:
        problems.append(f"no worker is heard, and {counted(ready, 'job')} could be sent: start one, or read its log")
    elif counts.delayed and not live:
        problems.append(
            f"no worker is heard, and {counted(counts.delayed, 'job')} will become due: see trio-worker run"
        )
    elif counts.paused and counts.run_out:
        problems.append(f"{counted(counts.run_out, 'lease')} expired: taken over when the queue is resumed")
    elif able and not counts.paused:
        # If no worker can claim, then that is the problem, and it is reported already.
        problems += _neglected(counts)
    if counts.held:
        problems.append(f"{counts.held:,} held for a person to decide: see trio-worker held groups")
    if counts.dead:
        problems.append(f"{counts.dead:,} dead: see trio-worker dead list")
    if not counts.balances:
        problems.append("the counts do not balance: see trio-worker audit --deep")
    return problems


def _neglected(counts: Counts) -> list[str]:
    """Return the problems with jobs that a live worker should have claimed long ago."""
    problems = []
    if counts.run_out:
        problems.append(
            f"{counted(counts.run_out, 'lease')} expired and no worker took over: see trio-worker worker list"
        )
    if counts.next_due_at is not None and counts.at - counts.next_due_at > LATE_SECONDS:
        late = duration(counts.at - counts.next_due_at)
        problems.append(f"a delayed job is due for {late} and no worker claimed it: see trio-worker worker list")
    return problems
