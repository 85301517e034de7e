"""Trio. ``job``: one job, in whatever state it is."""

from __future__ import annotations

from cyclopts import App

from trio_worker.cli.job_text import describe, job_lines
from trio_worker.cli.shelf import Reveal
from trio_worker.cli.surroundings import (
    NOTHING_MATCHED,
    OK,
    AsJson,
    ConfigFile,
    complain,
    load_settings,
    open_queue,
    print_json,
    report_unavailable,
)
from trio_worker.redis_client import Unavailable
from trio_worker.shelves import find_job

job = App(name="job", help="One job, in whatever state it is.", help_format="plaintext")


@job.command(name="show")
async def show_job(job_id: str, *, reveal: Reveal = False, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show a job: its state, its attempts with the stage and code of each, and what it waits for."""
    settings = load_settings(config)
    async with open_queue(settings) as client:
        found = await find_job(client, settings.queue.name, job_id)
    if isinstance(found, Unavailable):
        return report_unavailable(found, settings)
    if found is None:
        complain(f"{job_id}: no such job: it was sent, or it still waits in the list and has no id yet")
        return NOTHING_MATCHED
    state, shelved = found
    if as_json:
        print_json({"state": state, **describe(shelved, reveal=reveal)})
    else:
        print("\n".join(job_lines(shelved, state, reveal=reveal)))
    return OK
