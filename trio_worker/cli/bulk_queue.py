"""Trio. ``queue export``, ``purge`` and ``release``: operations on all jobs of a queue at once."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from trio_worker.cli.audit_log import log_reveal, user_name
from trio_worker.cli.blocking import blocking, open_calls, sleep_until
from trio_worker.cli.confirm import ASK, Confirmation
from trio_worker.cli.durations import Duration
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, PARTLY, REFUSED, TIMED_OUT
from trio_worker.cli.flags import AsJson, ConfigFile, QueueName
from trio_worker.cli.job_text import line_of_job
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json
from trio_worker.printing import complain, say
from trio_worker.queue.counts import Counts, count_action, count_jobs
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.pause import pause_queue
from trio_worker.queue.waiting import Released, purge, release, walk_waiting
from trio_worker.redis.calls import RedisCalls
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.number_words import counted

_POLL_SECONDS = 0.5


@blocking
async def export_waiting(*, queue: QueueName = None, config: ConfigFile = None) -> int:
    """Write the waiting jobs to standard output, one per line, as they were pushed. They stay in the list.

    A job that is not one line of JSON is written as {"base64": "..."}. `enqueue --unchecked` can push all lines again.
    """
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    name = settings.queue.name
    log_reveal(settings, "queue export", [name])
    written = 0
    with open_calls(settings) as client:
        counts = answer_or_exit(await count_jobs(client, name), settings)
        async with aclosing(walk_waiting(client, name, counts.waiting)) as pages:
            async for page in pages:
                for raw in answer_or_exit(page, settings):
                    say(line_of_job(raw))
                    written += 1
    complain(f"{counted(written, 'job')} written; leased, delayed, held and dead jobs are not exported")
    return OK if written else NOTHING_MATCHED


@blocking
async def purge_queue(
    *, confirmation: Confirmation = ASK, queue: QueueName = None, config: ConfigFile = None, as_json: AsJson = False
) -> int:
    """Delete the waiting jobs permanently. Jobs in other states stay."""
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    name = settings.queue.name
    with open_calls(settings) as client:
        counts = answer_or_exit(await count_jobs(client, name), settings)
        if not confirmation.matches_expected(counts.waiting, "waiting jobs"):
            return REFUSED
        if not counts.waiting:
            complain(f"nothing to do: no job is waiting in {name}")
            return NOTHING_MATCHED
        stays = f"{counts.leased:,} leased, {counts.delayed:,} delayed, {counts.held:,} held, {counts.dead:,} dead stay"
        waiting = counted(counts.waiting, "waiting job")
        if confirmation.dry_run:
            say(f"{waiting} of {name} would be deleted; {stays}")
            return OK
        question = f"Delete {waiting} of {name} permanently ({stays})?"
        if not confirmation.confirm_by_typing(question, name):
            return REFUSED
        purged = answer_or_exit(await purge(client, name, counts.waiting), settings)
        await count_action(client, name, OperatorAction.QUEUE_PURGE)
    if as_json:
        print_json(Document.PURGE, {"purged": purged})
    else:
        say(f"{counted(purged, 'waiting job')} of {name} deleted; {stays}")
    return OK


@blocking
async def release_queue(
    *,
    held: Annotated[bool, Parameter(negative=(), help="Also held jobs, whose mail may have arrived.")] = False,
    dead: Annotated[bool, Parameter(negative=(), help="Also dead letters.")] = False,
    wait: Annotated[Duration, Parameter(help="Maximum time to wait for jobs that workers are processing.")] = 60.0,
    confirmation: Confirmation = ASK,
    queue: QueueName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Put all unfinished jobs back on the list, as they were pushed and in their order, for another worker program.

    Pauses the queue first, waits until no worker has a job, and leaves the queue paused, so that no worker claims them.

    It can be interrupted and run again: no job is lost, and no job is in two places.
    """
    settings = load_settings(config, {} if queue is None else {"queue.name": queue})
    name = settings.queue.name
    with open_calls(settings) as client:
        counts = answer_or_exit(await count_jobs(client, name), settings)
        planned = answer_or_exit(
            await release(client, name, with_held=held, with_dead=dead, only_counts=True), settings
        )
        wanted = planned.back
        if not confirmation.matches_expected(wanted, "unfinished jobs"):
            return REFUSED
        partly = [f"{planned.partly:,} delivered to some of their recipients"] if planned.partly else []
        stays = ", ".join([*_staying(counts, held=held, dead=dead), *partly]) or "none"
        back = counted(wanted, "job")
        if confirmation.dry_run:
            say(f"{name} would be paused and {back} put back on its list; not put back: {stays}")
            return OK
        question = f"Pause {name} and put {back} back on its list (not put back: {stays})?"
        if not confirmation.confirm_by_typing(question, name):
            return REFUSED
        answer_or_exit(await pause_queue(client, name, "queue release", user_name(), None), settings)
        await _wait_until_idle(client, settings, wait)
        released = answer_or_exit(await release(client, name, with_held=held, with_dead=dead), settings)
        await count_action(client, name, OperatorAction.QUEUE_RELEASE)
    return _report(name, released, as_json=as_json)


def _staying(counts: Counts, *, held: bool, dead: bool) -> list[str]:
    states = (("held", counts.held, held), ("dead", counts.dead, dead))
    return [f"{number:,} {state}" for state, number, goes in states if number and not goes]


async def _wait_until_idle(client: RedisCalls, settings: Settings, seconds: float) -> None:
    """Wait until no worker has a lease, but no longer than this; a lease that has expired belongs to no worker."""
    ends_at = time.monotonic() + seconds
    while True:
        counts = answer_or_exit(await count_jobs(client, settings.queue.name), settings)
        if counts.leased <= counts.run_out or not await sleep_until(ends_at, _POLL_SECONDS):
            return


def _report(name: str, released: Released, *, as_json: bool) -> int:
    if as_json:
        print_json(
            Document.RELEASE,
            {
                "back": released.back,
                "live": released.live,
                "partly_delivered": released.partly,
                "kept": released.kept,
                "uncertain": released.uncertain,
            },
        )
    else:
        back = counted(released.back, "job is", "jobs are")
        say(f"{back} back on {name}, before the jobs that were waiting; the queue is paused for trio-worker")
        if released.uncertain:
            say(f"{released.uncertain:,} of them may have been sent: their worker was lost while it had them")
        say("to continue with trio-worker instead: trio-worker queue resume")
    if released.partly:
        first_ids = ", ".join(released.left[:3])
        complain(f"{released.partly:,} were delivered to some of their recipients and are not put back: {first_ids}")
    if released.live:
        complain(f"{released.live:,} are still being processed by a worker: run this command again")
        return TIMED_OUT
    return PARTLY if released.partly else OK
