"""Trio. ``status``: the queue in one screen, and what is wrong with it."""

from __future__ import annotations

from attrs import asdict

from trio_worker.cli.surroundings import (
    OK,
    AsJson,
    ConfigFile,
    load_settings,
    open_queue,
    print_json,
    redis_name,
    report_unavailable,
)
from trio_worker.inspection import Counts, count_jobs
from trio_worker.redis_client import Unavailable

# A due job that no worker has taken for this long says that no worker claims, or that all are busy.
LATE_SECONDS = 10.0


async def status(*, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Count the jobs in every state and name what is wrong."""
    settings = load_settings(config)
    async with open_queue(settings) as client:
        counts = await count_jobs(client, settings.queue.name)
    if isinstance(counts, Unavailable):
        return report_unavailable(counts, settings)
    problems = find_problems(counts)
    if as_json:
        print_json({"queue": settings.queue.name, "counts": asdict(counts), "problems": problems})
        return OK
    print(f"{settings.queue.name} @ {redis_name(settings.redis.url)}")
    due = f"   {counts.due:,} due" if counts.due else ""
    for name, more in (("waiting", ""), ("leased", ""), ("delayed", due), ("held", ""), ("dead", "")):
        print(f"  {name:<8}{getattr(counts, name):>12,}{more}")
    print(f"  so far: {counts.popped:,} taken from the list, {counts.sent:,} sent, {counts.uncertain:,} uncertain")
    if problems:
        print("Problems")
        for problem in problems:
            print(f"  {problem}")
    return OK


def find_problems(counts: Counts) -> list[str]:
    """Say what an operator should look at; pure."""
    problems = []
    if counts.paused:
        left = counts.pause_seconds_left
        problems.append(f"paused: {counts.paused}" + (f", {left:.0f} s left" if left is not None else ""))
    if counts.run_out:
        problems.append(f"{counts.run_out:,} leases have run out and nobody took the jobs over: does a worker run?")
    if counts.next_due_at is not None and counts.at - counts.next_due_at > LATE_SECONDS:
        late = counts.at - counts.next_due_at
        problems.append(f"a delayed job is due for {late:.0f} s and nobody took it: does a worker run?")
    if counts.held:
        problems.append(f"{counts.held:,} held: it is not known whether they were delivered")
    if counts.dead:
        problems.append(f"{counts.dead:,} dead: see trio-worker dead list")
    if not counts.balances:
        problems.append("the counts do not agree: see trio-worker audit --deep")
    return problems
