"""Trio. ``job``: one job in any state: show, retry, cancel, find."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

from attrs import field
from cyclopts import App, Parameter
from cyclopts.validators import Number

from trio_worker.cli.audit_log import log_reveal, user_name
from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.confirm import ASK, Confirmation
from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, PARTLY, REFUSED, USAGE
from trio_worker.cli.flags import AsJson, ConfigFile, Reveal
from trio_worker.cli.job_ids import read_job_ids
from trio_worker.cli.job_text import describe, job_lines, mail_id_of
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, print_json, refuse, report_unavailable
from trio_worker.cli.receipts import receipt_documents, receipt_lines, search_receipts
from trio_worker.jobs.address import AddressFault, as_sent, parse_mailbox
from trio_worker.jobs.summary import JobSummary, summarize
from trio_worker.mail.message_id import DERIVED, derived_mail_id, message_id_of
from trio_worker.printing import complain, say
from trio_worker.queue.counts import count_action, count_jobs
from trio_worker.queue.dead_letters import Shelf, WaitingJob, cancel, find_job, retry_now, retry_shelved
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.queue.record import ShelvedJob
from trio_worker.queue.waiting import walk_bodies, walk_waiting
from trio_worker.records import define, frozen
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.telemetry.number_words import counted

# A search reads the bytes of jobs: this many take a few seconds. --most sets another number.
MAX_READ = 100_000
# The number of undo commands that are printed; --json has all job ids.
SHOWN_IDS = 20

JobId = Annotated[str, Parameter(help="Id of the job, or last: the one that died, was held or was delayed last.")]

job = App(name="job", help="One job in any state: show, retry, cancel, find.", help_format="plaintext")


@job.command(name="show")
@blocking
async def show_job(job_id: JobId, *, reveal: Reveal = False, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Show a job: its state, its attempts with stage and reply code, and what it waits for."""
    settings = load_settings(config)
    with open_calls(settings) as client:
        (job_id,) = await read_job_ids(client, settings, [job_id])
        found = answer_or_exit(await find_job(client, settings.queue.name, job_id), settings)
    if found is None:
        complain(f"{job_id}: no such job: it was sent, or it is still waiting in the list and has no id yet")
        return NOTHING_MATCHED
    state, shelved = found
    message_id = message_id_of(mail_id_of(shelved), settings.mail)
    if reveal:
        log_reveal(settings, "job show", [job_id])
    if as_json:
        print_json(Document.JOB, {"state": state, **describe(shelved, reveal=reveal, message_id=message_id)})
    else:
        say(*job_lines(shelved, state, reveal=reveal, message_id=message_id))
    return OK


@job.command(name="retry")
@blocking
async def retry_job(job_id: JobId, *, config: ConfigFile = None) -> int:
    """Make a job due now. A delayed job keeps its attempts and age; a dead or held job gets new ones."""
    settings = load_settings(config)
    name = settings.queue.name
    with open_calls(settings) as client:
        (job_id,) = await read_job_ids(client, settings, [job_id])
        found = answer_or_exit(await find_job(client, name, job_id), settings)
        if found is None:
            complain(f"{job_id}: no such job: it was sent, or it is still waiting in the list and has no id yet")
            return NOTHING_MATCHED
        state, shelved = found
        if state == "leased":
            complain(f"{job_id}: a worker is processing it now")
            return REFUSED
        if state == "delayed":
            done = answer_or_exit(await retry_now(client, name, [job_id]), settings)
        else:
            shelf: Shelf = "held" if state == "held" else "dead"
            done = answer_or_exit(await retry_shelved(client, name, shelf, [job_id], time.time()), settings).job_ids
        await count_action(client, name, OperatorAction.JOB_RETRY)
    say(f"{job_id}: was {state}, is due now, attempt {shelved.record.attempts + 1 if state == 'delayed' else 1}")
    return OK if done else PARTLY


@job.command(name="cancel")
@blocking
async def cancel_jobs(
    *job_ids: Annotated[
        str, Parameter(name=["JOB-IDS"], help="Ids of delayed jobs, as `tail` and `job find` print them, or last.")
    ],
    producer_id: Annotated[str, Parameter(name="--id", help="Id that the producer gave the job, in any state.")] = "",
    maximum: Annotated[
        int, Parameter(name="--most", help="Maximum number of jobs to read.", validator=Number(gte=1))
    ] = MAX_READ,
    confirmation: Confirmation = ASK,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Cancel jobs that no worker is processing. They become dead letters; `job retry` undoes this."""
    if bool(job_ids) == bool(producer_id):
        refuse(USAGE, "name jobs by their ids, or with --id by the id of the producer")
    settings = load_settings(config)
    name = settings.queue.name
    with open_calls(settings) as client:
        choice = _Choice(client, name)
        named = await read_job_ids(client, settings, job_ids, ["delayed"])
        answer_or_exit(await (choice.by_ids(named) if named else choice.by_producer(producer_id, maximum)), settings)
        for line in choice.others:
            complain(line)
        if not choice.count:
            if producer_id and not choice.others:
                complain(f"no unfinished job has the id {producer_id}: it was sent, or never pushed")
            return REFUSED if choice.others else NOTHING_MATCHED
        stop = _may_cancel(choice.count, name, confirmation)
        if stop is not None:
            return stop
        counts = answer_or_exit(await count_jobs(client, name), settings)
        done = await cancel(client, name, choice.delayed, choice.waiting, user_name(), counts.at)
        if isinstance(done, Unavailable):
            complain(f"some of the {choice.count} may be cancelled: see trio-worker dead list --cause cancelled")
            return report_unavailable(done, settings)
        await count_action(client, name, OperatorAction.JOB_CANCEL)
    if as_json:
        print_json(
            Document.CANCEL, {"cancelled": sorted(done), "missing": choice.count - len(done) + len(choice.others)}
        )
    else:
        say(f"{counted(len(done), 'job')} cancelled: now dead letters of {name}, not to be sent")
        for job_id in sorted(done)[:SHOWN_IDS]:
            say(f"to undo: trio-worker job retry {job_id}")
    return OK if len(done) == choice.count and not choice.others else PARTLY


def _may_cancel(count: int, name: str, confirmation: Confirmation) -> int | None:
    """Return the exit code if the jobs are not to be cancelled, else None."""
    if not confirmation.matches_expected(count, "jobs"):
        return REFUSED
    words = f"cancel {counted(count, 'job')} of {name}"
    if confirmation.dry_run:
        say(f"would: {words}")
        return OK
    if count > 1 and not confirmation.confirm(f"{words.capitalize()}?"):
        return REFUSED
    return None


@define
class _Choice:
    """The jobs to cancel that were found; ``others`` says why another job cannot be cancelled."""

    client: RedisCalls
    queue_name: str
    delayed: list[ShelvedJob] = field(factory=list)
    waiting: list[WaitingJob] = field(factory=list)
    others: list[str] = field(factory=list)

    @property
    def count(self) -> int:
        return len(self.delayed) + len(self.waiting)

    async def by_ids(self, job_ids: Sequence[str]) -> Unavailable | None:
        for job_id in dict.fromkeys(job_ids):
            found = await find_job(self.client, self.queue_name, job_id)
            if isinstance(found, Unavailable):
                return found
            if found is None:
                self.others.append(f"{job_id}: no such job: it was sent, or it is still waiting in the list: try --id")
                continue
            state, shelved = found
            if state == "delayed":
                self.delayed.append(shelved)
            else:
                has = "a worker is processing it now" if state == "leased" else f"it is {state} and is not sent"
                self.others.append(f"{job_id}: {has}")
        return None

    async def by_producer(self, producer_id: str, maximum: int) -> Unavailable | None:
        wanted = _Wanted(producer_id, "", "")
        job_ids: list[str] = []
        async with aclosing(_bodies(self.client, self.queue_name, maximum, "")) as pages:
            async for page in pages:
                if isinstance(page, Unavailable):
                    return page
                meant = [(job_id, raw) for job_id, _, raw in page if wanted.takes(raw)]
                job_ids += [job_id for job_id, _ in meant if job_id]
                self.waiting += [WaitingJob(raw, summarize(raw).email_type) for job_id, raw in meant if not job_id]
        return await self.by_ids(job_ids)


@frozen
class _Wanted:
    """What a job must have to be found; an empty field matches every job. ``recipient`` has no capitals."""

    producer_id: str
    recipient: str
    email_type: str
    derived_mail_id: str = ""

    def takes(self, raw: bytes) -> bool:
        seen = summarize(raw)
        mailboxes = (parse_mailbox(name) for name in seen.recipients) if self.recipient else ()
        return (
            self.producer_id in ("", seen.producer_id)
            and self.email_type in ("", seen.email_type)
            and (not self.derived_mail_id or self._has_mail_id(raw, seen))
            and (
                not self.recipient
                or any(
                    not isinstance(box, AddressFault) and box.address.casefold() == self.recipient for box in mailboxes
                )
            )
        )

    def _has_mail_id(self, raw: bytes, seen: JobSummary) -> bool:
        return bool(seen.producer_id) and derived_mail_id(raw) == self.derived_mail_id


@job.command(name="find")
@blocking
async def find_jobs(
    *,
    producer_id: Annotated[str, Parameter(name="--id", help="Id that the producer gave the job.")] = "",
    to: Annotated[
        str,
        Parameter(
            name=["--address", "--to"], help="Address of a recipient. It is only compared, never printed or logged."
        ),
    ] = "",
    message_id: Annotated[str, Parameter(help="Message-ID of the mail.")] = "",
    email_type: Annotated[str, Parameter(name="--type", help="Email type.")] = "",
    maximum: Annotated[
        int, Parameter(name="--most", help="Maximum number of jobs to read.", validator=Number(gte=1))
    ] = MAX_READ,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Find jobs by their content: first mails that were sent, by their receipts, then unfinished jobs.

    Receipts are kept for history.days. Jobs that wait in the list come last, and have no id yet.
    """
    settings = load_settings(config)
    if not (producer_id or to or message_id or email_type):
        refuse(USAGE, "give at least one of --address, --id, --message-id and --type")
    mail_id = message_id.strip("<> ").partition("@")[0]
    is_derived = mail_id.startswith(DERIVED)
    wanted = _Wanted(producer_id, as_sent(to).casefold(), email_type, mail_id if is_derived else "")
    found: list[dict[str, object]] = []
    looked_at = 0
    with open_calls(settings) as client:
        receipts = await search_receipts(client, settings, to, producer_id, mail_id)
        async with aclosing(_bodies(client, settings.queue.name, maximum, "" if is_derived else mail_id)) as pages:
            async for page in pages:
                jobs = answer_or_exit(page, settings)
                looked_at += len(jobs)
                found += [
                    {"job_id": job_id or None, "place": place, "email_type": summarize(raw).email_type}
                    for job_id, place, raw in jobs
                    if wanted.takes(raw)
                ]
    if as_json:
        sent = receipt_documents(receipts, settings)
        print_json(Document.FOUND, {"looked_at": looked_at, "found": found, "sent": sent})
        return OK if found or receipts else NOTHING_MATCHED
    say(*receipt_lines(receipts, settings))
    for each in found:
        where = each["job_id"] or f"waits at position {each['place']}"
        say(f"{where}  {each['email_type'] or '-'}")
    # A job that waits in the list has no id to be shown by.
    more = " Details: trio-worker job show ID" if any(each["job_id"] for each in found) else ""
    complain(f"{len(found):,} found; {counted(looked_at, 'unfinished job')} read.{more}")
    return OK if found or receipts else NOTHING_MATCHED


async def _bodies(
    client: RedisCalls, name: str, maximum: int, job_id: str
) -> AsyncGenerator[list[tuple[str, int | None, bytes]] | Unavailable]:
    """Yield (id, position in the list, bytes) page by page; with a job's id only that job."""
    if job_id:
        found = await find_job(client, name, job_id)
        if isinstance(found, Unavailable):
            yield found
        elif found is not None:
            yield [(found[1].job_id, None, found[1].body)]
        return
    looked_at = 0
    async with aclosing(walk_bodies(client, name)) as pages:
        async for page in pages:
            yield page if isinstance(page, Unavailable) else [(job_id, None, raw) for job_id, raw in page]
            looked_at += 0 if isinstance(page, Unavailable) else len(page)
            if isinstance(page, Unavailable) or looked_at >= maximum:
                return
    first = 0
    async with aclosing(walk_waiting(client, name, maximum - looked_at)) as lists:
        async for waiting in lists:
            if isinstance(waiting, Unavailable):
                yield waiting
                return
            yield [("", first + place, raw) for place, raw in enumerate(waiting, 1)]
            first += len(waiting)
