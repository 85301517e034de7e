"""Edge. Ids of jobs in arguments: the word ``last`` stands for the job that died, was held or was delayed last."""

from __future__ import annotations

from collections.abc import Sequence

from trio_worker.cli.exit_codes import NOTHING_MATCHED
from trio_worker.cli.output import answer_or_exit, refuse
from trio_worker.queue.dead_letters import Shelf, last_job_id
from trio_worker.redis.calls import RedisCalls
from trio_worker.settings.reader import Settings

LAST = "last"
ANY_SHELF: Sequence[Shelf] = ("dead", "held", "delayed")


async def read_job_ids(
    client: RedisCalls, settings: Settings, job_ids: Sequence[str], shelves: Sequence[Shelf] = ANY_SHELF
) -> list[str]:
    """Return the ids, with that of the job that came onto one of the shelves last for the word ``last``.

    Exits with 3 if there is no such job.
    """
    if LAST not in job_ids:
        return list(job_ids)
    found = answer_or_exit(await last_job_id(client, settings.queue.name, shelves), settings)
    if found is None:
        refuse(NOTHING_MATCHED, f"last: no job of {settings.queue.name} is {' or '.join(shelves)}")
    return [found if job_id == LAST else job_id for job_id in job_ids]
