"""Trio. The ways off a shelf: which jobs, the question, the trial, the move, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio
from attrs import define

from trio_worker.cli.confirm import Confirmation
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, PARTLY, REFUSED, TIMED_OUT, USAGE
from trio_worker.cli.job_text import job_line
from trio_worker.cli.json_documents import Document
from trio_worker.cli.output import complain, print_json, report_unavailable
from trio_worker.queue.counts import count_act, count_jobs
from trio_worker.queue.dead_letters import UNDO_SECONDS, Shelf, find_job, find_shelved, revive, undo_revive, walk_shelf
from trio_worker.queue.operator_counts import Act
from trio_worker.queue.selection import Selection
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.words import counted, paused_words

# A trial job is looked at this often, and given so long: a relay that greylists answers in a second, and delays.
TRIAL_LOOK_SECONDS = 0.2
TRIAL_SECONDS = 120.0


@define
class BulkOperation:
    """One change of many jobs: which ones, the question, and the report."""

    client: RedisClient
    settings: Settings
    shelf: Shelf
    one: str
    many: str
    confirmation: Confirmation
    as_json: bool
    is_every: bool = False
    wanted: int = 0
    missing: int = 0

    async def choose(self, job_ids: Sequence[str], selection: Selection, *, every: bool) -> list[str] | int:
        """Return the ids that are meant, or the exit code: one names jobs, or filters, or says --all."""
        many, queue = self.many, self.settings.queue.name
        if bool(job_ids) + (not selection.is_everything) + every != 1:
            complain(f"name the {many}, or a filter, or --all")
            return USAGE
        self.is_every = every
        found = await self._ids(job_ids, selection)
        if isinstance(found, Unavailable):
            return report_unavailable(found, self.settings)
        self.wanted = len(found)
        self.missing = len(set(job_ids)) - len(found) if job_ids else 0
        if self.missing:
            complain(f"{self.missing:,} of {len(set(job_ids)):,} {'is' if self.missing == 1 else 'are'} no {self.one}")
        if not found:
            if not job_ids:
                complain(f"nothing to do: {selection} matches no {many} of {queue}")
            return NOTHING_MATCHED
        return found if self.confirmation.matches_expected(len(found), many) else REFUSED

    async def _ids(self, job_ids: Sequence[str], selection: Selection) -> list[str] | Unavailable:
        shelf, queue = self.shelf, self.settings.queue.name
        if job_ids:
            jobs = await find_shelved(self.client, queue, shelf, list(dict.fromkeys(job_ids)))
            return jobs if isinstance(jobs, Unavailable) else [job.job_id for job in jobs]
        found: list[str] = []
        async for page in walk_shelf(self.client, queue, shelf):
            if isinstance(page, Unavailable):
                return page
            found += [job.job_id for job in page if selection.takes(job)]
        return found

    def ask(self, question: str, *, always: bool) -> int | None:
        """Return the exit code where this is not to be done, else None."""
        words = question.format(jobs=counted(self.wanted, self.one, self.many), queue=self.settings.queue.name)
        if self.confirmation.dry_run:
            print(f"would: {words.removesuffix('?')}")
            return OK
        if self.is_every:  # a filter says what is meant; who says everything must mean it
            return None if self.confirmation.confirm_by_typing(words, "all") else REFUSED
        if (always or self.wanted > 1) and not self.confirmation.confirm(words):
            return REFUSED
        return None

    def report(self, moved: int, did: str, kind: Document, document: Mapping[str, object]) -> int:
        """Say what was done; return the exit code."""
        if self.as_json:
            print_json(kind, {**document, "missing": self.missing})
        else:
            print(did)
        return PARTLY if self.missing or moved < self.wanted else OK


async def retry_jobs(change: BulkOperation, chosen: list[str], rate: float | None, trial: int) -> int:
    """Put jobs back, the oldest first: the trial ones alone, the others after them if all of those were sent."""
    client, settings, shelf = change.client, change.settings, change.shelf
    queue = settings.queue.name
    chosen.reverse()  # the oldest first
    tried, rest = chosen[:trial], chosen[trial:]
    if tried:
        code = await _try(change, tried)
        if code is not None:
            return code
    counts = await count_jobs(client, queue)
    if isinstance(counts, Unavailable):
        return report_unavailable(counts, settings)
    batch = await revive(client, queue, shelf, rest, counts.at, 1 / rate if rate else 0.0)
    if isinstance(batch, Unavailable):
        return report_unavailable(batch, settings)
    await count_act(client, queue, Act(f"{shelf}_retry"))
    moved = len(tried) + len(batch.job_ids)
    again = counted(moved, f"{change.one} is", f"{change.many} are")
    lines = [f"{again} due again on {queue}, each with its old Message-ID"]
    if rate and rest:
        lines.append(f"the last of them in {len(rest) / rate:.0f} s")
    if batch.batch_id and batch.job_ids:
        hours = UNDO_SECONDS // 3600
        lines.append(f"to undo, within {hours} hours: trio-worker {shelf} retry --undo {batch.batch_id}")
    document = {"retried": sorted({*tried, *batch.job_ids}), "batch": batch.batch_id or None}
    return change.report(moved, "\n".join(lines), Document.RETRY, document)


async def _try(change: BulkOperation, tried: list[str]) -> int | None:
    """Put the first jobs back and wait what becomes of them; return an exit code unless all of them were sent."""
    client, settings, shelf = change.client, change.settings, change.shelf
    queue = settings.queue.name
    counts = await count_jobs(client, queue)
    if isinstance(counts, Unavailable):
        return report_unavailable(counts, settings)
    if counts.paused:
        why = paused_words(counts.paused, counts.at, counts.pause_seconds_left)
        complain(f"refused: {queue} is paused: {why}; nothing is tried meanwhile: trio-worker queue resume")
        return REFUSED
    batch = await revive(client, queue, shelf, tried, counts.at)
    if isinstance(batch, Unavailable):
        return report_unavailable(batch, settings)
    with trio.move_on_after(TRIAL_SECONDS):
        for job_id in tried:
            while True:
                found = await find_job(client, queue, job_id)
                if isinstance(found, Unavailable):
                    return report_unavailable(found, settings)
                if found is None:
                    complain(f"trial {job_id}: sent")
                    break
                state, job = found
                if state in {"dead", "held"} or job.record.attempts:
                    complain(f"trial {job_id}: {state} again, {job_line(job).partition(job_id)[2].strip()}")
                    complain(f"the other {change.wanted - len(tried)} were left where they are")
                    return PARTLY
                await trio.sleep(TRIAL_LOOK_SECONDS)
        return None
    complain("the trial is not over yet: does a worker run? The others were left where they are")
    return TIMED_OUT


async def undo_retry(client: RedisClient, settings: Settings, batch_id: str, *, as_json: bool) -> int:
    """Take back a retry and say what came of it; return the exit code."""
    undone = await undo_revive(client, settings.queue.name, batch_id)
    if isinstance(undone, Unavailable):
        return report_unavailable(undone, settings)
    if undone is None:
        complain(f"no batch {batch_id}: it is older than a day, was too large, or never was")
        return NOTHING_MATCHED
    shelf, job_ids = undone
    await count_act(client, settings.queue.name, Act.RETRY_UNDO)
    if as_json:
        print_json(Document.UNDO, {"shelf": shelf, "undone": sorted(job_ids)})
    else:
        back = counted(len(job_ids), "job is", "jobs are")
        print(f"{back} {shelf} again; what was sent since, or is being sent, is not among them")
    return OK if job_ids else NOTHING_MATCHED
