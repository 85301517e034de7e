"""Edge. ``dead edit``: corrects the bytes of one dead letter in an editor, checks them, and retries it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trio_worker.cli.audit_log import log_action, log_reveal
from trio_worker.cli.blocking import blocking, open_calls
from trio_worker.cli.confirm import ASK, Confirmation
from trio_worker.cli.exit_codes import MISCONFIGURED, NOTHING_MATCHED, OK, REFUSED
from trio_worker.cli.flags import ConfigFile
from trio_worker.cli.job_ids import read_job_ids
from trio_worker.cli.job_text import mail_id_of
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import answer_or_exit, refuse
from trio_worker.jobs.budget import decode_within
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.jobs.fault import Malformed
from trio_worker.jobs.strict_json import read_json
from trio_worker.mail.message_id import message_id_of
from trio_worker.own_files import replace_own_file
from trio_worker.printing import complain, say
from trio_worker.queue.counts import count_action, count_jobs
from trio_worker.queue.dead_letters import amend, find_shelved
from trio_worker.queue.operator_counts import OperatorAction
from trio_worker.settings.reader import Settings


@blocking
async def edit(
    job_id: Annotated[str, Parameter(help="Id of the dead letter, or last: the newest one.")],
    *,
    confirmation: Confirmation = ASK,
    config: ConfigFile = None,
) -> int:
    """Correct a dead letter in your editor ($VISUAL, $EDITOR), and retry it with the same Message-ID.

    The job is shown in full. It is put back only if it was changed and a worker would accept it.
    """
    settings = load_settings(config)
    with open_calls(settings) as client:
        (job_id,) = await read_job_ids(client, settings, [job_id], ["dead"])
        jobs = answer_or_exit(
            await find_shelved(client, settings.queue.name, "dead", [job_id], with_bodies=True), settings
        )
        if not jobs:
            complain(f"{job_id}: no such dead letter")
            return NOTHING_MATCHED
        job, mail_id = jobs[0], mail_id_of(jobs[0])
        log_reveal(settings, "dead edit", [job_id])
        with tempfile.TemporaryDirectory(prefix="trio-worker-") as folder:
            file = Path(folder) / f"{job_id}.json"
            replace_own_file(file, _readable(job.body))
            body = _edited(file, settings, confirmation)
        if body is None:
            return REFUSED
        if body == _compact(_readable(job.body)):
            complain("nothing was changed, and nothing was done")
            return NOTHING_MATCHED
        if confirmation.dry_run:
            say(f"{job_id} would be put back on {settings.queue.name}, {len(body):,} bytes")
            return OK
        counts = answer_or_exit(await count_jobs(client, settings.queue.name), settings)
        answered = await amend(client, settings.queue.name, job, body, mail_id, counts.at)
        if not answer_or_exit(answered, settings):
            complain(f"{job_id}: is no dead letter any more; nothing was done")
            return NOTHING_MATCHED
        await count_action(client, settings.queue.name, OperatorAction.DEAD_RETRY)
    log_action(settings, "Edited a dead letter", {"command": "dead edit", "job": job_id})
    say(
        f"{job_id} was corrected and put back on {settings.queue.name}; "
        f"Message-ID {message_id_of(mail_id, settings.mail)}"
    )
    return OK


def _edited(file: Path, settings: Settings, confirmation: Confirmation) -> bytes | None:
    """Let the user edit the file until a worker would accept it; None if the user gave up."""
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        refuse(MISCONFIGURED, *map(str, catalogue.faults))
    while True:
        _open_editor(file)
        body = _compact(file.read_bytes())
        job = decode_within(body, catalogue.types, settings.mail.budgets)
        if len(body) > settings.queue.max_job_bytes:
            complain(f"is larger than queue.max_job_bytes ({settings.queue.max_job_bytes})")
        elif isinstance(job, Malformed):
            complain(*(str(fault) for fault in job.faults))
        else:
            return body
        # --yes must not ask for ever.
        if confirmation.yes or not confirmation.confirm("Edit it again?"):
            complain("a worker would refuse it as it is: nothing was done")
            return None


def _open_editor(file: Path) -> None:
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        done = subprocess.run([*words, str(file)], check=False)
    except OSError as error:
        refuse(MISCONFIGURED, f"the editor {words[0]} cannot be started: {error.strerror}; set EDITOR")
    if done.returncode:
        refuse(REFUSED, f"the editor {words[0]} ended with {done.returncode}: nothing was done")


def _readable(body: bytes) -> bytes:
    """Return a job set out over several lines; one that cannot be read without doubt stays as it is."""
    document = read_json(body)
    if isinstance(document, Malformed):
        return body
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _compact(text: bytes) -> bytes:
    """Return a job on one line, as producers push it; one that cannot be read without doubt stays as it is."""
    document = read_json(text)
    if isinstance(document, Malformed):
        return text.rstrip(b"\n")
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
