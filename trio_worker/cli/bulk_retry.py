"""Trio. Bulk operations on dead, held or delayed jobs: choosing, confirmation and report; retry and its undo."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from trio_worker.cli.blocking import sleep_until
from trio_worker.cli.confirm import Confirmation
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, PARTLY, REFUSED, TIMED_OUT, USAGE
from trio_worker.cli.job_ids import read_job_ids
from trio_worker.cli.job_text import why_line
from trio_worker.cli.json_documents import Document
from trio_worker.cli.output import answer_or_exit, print_json, refuse
from trio_worker.printing import complain, say
from trio_worker.queue.counts import count_action, count_jobs
from trio_worker.queue.dead_letters import (
    UNDO_SECONDS,
    Shelf,
    find_job,
    find_shelved,
    retry_shelved,
    undo_retry_shelved,
    walk_shelf,
)
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.selection import Selection
from trio_worker.records import define, frozen
from trio_worker.redis.calls import RedisCalls
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.number_words import counted, paused_words

# How often the jobs of a trial are polled, and for how long: a relay that greylists delays a mail within a second.
TRIAL_LOOK_SECONDS = 0.2
TRIAL_SECONDS = 120.0


@frozen
class Wording:
    """One shelf, and how commands name its jobs: ``one`` of them, and ``many``."""

    shelf: Shelf
    one: str
    many: str


@define
class BulkOperation:
    """One operation on many jobs of a shelf: chooses them, asks for a confirmation, reports what was done."""

    client: RedisCalls
    settings: Settings
    wording: Wording
    confirmation: Confirmation
    as_json: bool
    is_every: bool = False
    wanted: int = 0
    missing: int = 0

    async def choose(self, job_ids: Sequence[str], selection: Selection, *, every: bool) -> list[str]:
        """Return the ids of the jobs that are named, or that a filter takes, or of all; exit where there are none."""
        one, many, queue = self.wording.one, self.wording.many, self.settings.queue.name
        if bool(job_ids) + (not selection.is_everything) + every != 1:
            refuse(USAGE, f"name {many}, or give a filter, or --all")
        self.is_every = every
        job_ids = await read_job_ids(self.client, self.settings, job_ids, [self.wording.shelf])
        found = await self._ids(job_ids, selection)
        self.wanted = len(found)
        self.missing = len(set(job_ids)) - len(found) if job_ids else 0
        if self.missing:
            complain(f"{self.missing:,} of {len(set(job_ids)):,} {'is' if self.missing == 1 else 'are'} no {one}")
        if not found:
            refuse(NOTHING_MATCHED, *([] if job_ids else [f"nothing to do: {selection} matches no {many} of {queue}"]))
        if not self.confirmation.matches_expected(len(found), many):
            raise SystemExit(REFUSED)
        return found

    async def _ids(self, job_ids: Sequence[str], selection: Selection) -> list[str]:
        shelf, queue = self.wording.shelf, self.settings.queue.name
        if job_ids:
            jobs = await find_shelved(self.client, queue, shelf, list(dict.fromkeys(job_ids)))
            return [job.job_id for job in answer_or_exit(jobs, self.settings)]
        found: list[str] = []
        async with aclosing(walk_shelf(self.client, queue, shelf)) as pages:
            async for page in pages:
                found += [job.job_id for job in answer_or_exit(page, self.settings) if selection.takes(job)]
        return found

    def confirm_or_exit(self, question: str, *, always: bool) -> None:
        """Ask, and exit unless the answer is yes; a dry run prints what would be done and exits.

        A single job needs a confirmation only if ``always``. With --all a word must be typed, because --all is easily
        given by mistake.
        """
        jobs = counted(self.wanted, self.wording.one, self.wording.many)
        text = question.format(jobs=jobs, queue=self.settings.queue.name)
        if self.confirmation.dry_run:
            say(f"would: {text.removesuffix('?')}")
            raise SystemExit(OK)
        if self.is_every:
            is_confirmed = self.confirmation.confirm_by_typing(text, "all")
        else:
            is_confirmed = (self.wanted == 1 and not always) or self.confirmation.confirm(text)
        if not is_confirmed:
            raise SystemExit(REFUSED)

    def report(self, moved: int, did: Sequence[str], kind: Document, document: Mapping[str, object]) -> int:
        """Print what was done; return the exit code."""
        if self.as_json:
            print_json(kind, {**document, "missing": self.missing})
        else:
            say(*did)
        return PARTLY if self.missing or moved < self.wanted else OK


async def retry_jobs(operation: BulkOperation, chosen: list[str], rate: float | None, trial: int) -> int:
    """Retry jobs, the oldest first: the jobs of the trial alone, then the others, if all of the trial were sent."""
    client, settings, shelf = operation.client, operation.settings, operation.wording.shelf
    queue = settings.queue.name
    if shelf != "delayed":
        chosen.reverse()
    tried, rest = chosen[:trial], chosen[trial:]
    if tried:
        code = await _try(operation, tried)
        if code is not None:
            return code
    counts = answer_or_exit(await count_jobs(client, queue), settings)
    batch = answer_or_exit(
        await retry_shelved(client, queue, shelf, rest, counts.at, 1 / rate if rate else 0.0), settings
    )
    await count_action(client, queue, OperatorAction(f"{shelf}_retry"))
    moved = len(tried) + len(batch.job_ids)
    are = counted(moved, f"{operation.wording.one} is", f"{operation.wording.many} are")
    lines = [f"{are} due {'now' if shelf == 'delayed' else 'again'} on {queue}, each with its old Message-ID"]
    if rate and rest:
        lines.append(f"the last of them will be due in {len(rest) / rate:.0f} s")
    if batch.batch_id and batch.job_ids:
        hours = UNDO_SECONDS // 3600
        lines.append(f"to undo, within {hours} hours: trio-worker {shelf} retry --undo {batch.batch_id}")
    document = {"retried": sorted({*tried, *batch.job_ids}), "batch": batch.batch_id or None}
    return operation.report(moved, lines, Document.RETRY, document)


async def _try(operation: BulkOperation, tried: list[str]) -> int | None:
    """Retry the jobs of the trial and wait for their outcomes; return an exit code unless all of them were sent."""
    client, settings, shelf = operation.client, operation.settings, operation.wording.shelf
    queue = settings.queue.name
    counts = answer_or_exit(await count_jobs(client, queue), settings)
    if counts.paused:
        why = paused_words(counts.paused, counts.at, counts.pause_seconds_left)
        complain(f"refused: {queue} is paused: {why}. A trial needs a running queue: trio-worker queue resume")
        return REFUSED
    jobs = answer_or_exit(await find_shelved(client, queue, shelf, tried), settings)
    # Only a delayed job keeps its attempts.
    before = {job.job_id: job.record.attempts if shelf == "delayed" else 0 for job in jobs}
    answer_or_exit(await retry_shelved(client, queue, shelf, tried, counts.at), settings)
    ends_at = time.monotonic() + TRIAL_SECONDS
    for job_id in tried:
        while True:
            found = answer_or_exit(await find_job(client, queue, job_id), settings)
            if found is None:
                complain(f"trial {job_id}: sent")
                break
            state, job = found
            if state in {"dead", "held"} or job.record.attempts > before.get(job_id, 0):
                complain(f"trial {job_id}: {state} again, {why_line(job)}")
                complain(f"the other {operation.wanted - len(tried)} jobs were not retried")
                return PARTLY
            if not await sleep_until(ends_at, TRIAL_LOOK_SECONDS):
                complain("the trial is not over yet: does a worker run? The other jobs were not retried")
                return TIMED_OUT
    return None


async def undo_retry(client: RedisCalls, settings: Settings, batch_id: str, *, as_json: bool) -> int:
    """Undo a retry and print the result; return the exit code."""
    undone = answer_or_exit(await undo_retry_shelved(client, settings.queue.name, batch_id), settings)
    if undone is None:
        complain(f"no batch {batch_id}: it is older than a day, was too large, or never existed")
        return NOTHING_MATCHED
    shelf, job_ids = undone
    await count_action(client, settings.queue.name, OperatorAction.RETRY_UNDO)
    if as_json:
        print_json(Document.UNDO, {"shelf": shelf, "undone": sorted(job_ids)})
    else:
        back = counted(len(job_ids), "job is", "jobs are")
        say(f"{back} {shelf} again; jobs that were sent since then, or are being sent, are not")
    return OK if job_ids else NOTHING_MATCHED
