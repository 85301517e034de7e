"""Pure. Options of the queue. A module by itself, so that trio is not needed to read them."""

from __future__ import annotations

from trio_worker.option import option
from trio_worker.records import frozen


@frozen
class QueueOptions:
    """The queue and its limits (config section ``[queue]``)."""

    name: str = option("jobs", "Name of the Redis list that producers push jobs to.")
    lease_seconds: float = option(
        60.0,
        "Duration of a lease. If it is not renewed for this long, another worker takes the job over.",
        minimum=1,
    )
    max_deliveries: int = option(
        5,
        "Maximum number of claims without a settlement. Then a job becomes a dead letter (crashed).",
        minimum=1,
    )
    max_job_bytes: int = option(
        1048576, "Maximum size of a job. A larger job becomes a dead letter without being parsed.", minimum=1
    )
    dead_limit: int = option(
        0,
        "Number of dead letters at which claiming stops; 0: no limit. None is ever deleted automatically.",
        minimum=0,
    )
    journal_dir: str = option(
        "var/journal", "Folder on a local disk for settlements that Redis did not accept; empty: no journal."
    )


@frozen
class HistoryOptions:
    """Receipts of sent mails, which `job find` searches (config section ``[history]``)."""

    days: float = option(
        0.0,
        "Number of days for which Redis keeps a receipt of each sent mail, for `job find`; 0: none.",
        minimum=0,
        maximum=90,
    )
    max_entries: int = option(
        100_000, "Maximum number of receipts, each of about 200 bytes; then the oldest are deleted.", minimum=1
    )
    key: str = option(
        "", "Secret of the marks that stand for addresses, the same for all workers and commands.", secret=True
    )
