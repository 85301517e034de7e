"""Pure. Options of retries and of the shutdown. A module by itself, so that no worker is needed to read them."""

from __future__ import annotations

from trio_worker.option import option
from trio_worker.records import frozen


@frozen
class RetryPolicy:
    """How often, how far apart and how long a refused mail is tried again (config section ``[retry]``)."""

    max_attempts: int = option(
        30, "Maximum number of delivery attempts. After the last one a mail becomes a dead letter.", minimum=1
    )
    base_seconds: float = option(
        60.0, "Delay before the second attempt. It doubles for each further attempt.", minimum=0
    )
    cap_seconds: float = option(3600.0, "Maximum delay between two attempts.", minimum=0)
    max_age_seconds: float = option(
        86400.0,
        "Maximum age of a mail that the relay refuses temporarily. An older mail becomes a dead letter.",
        minimum=1,
    )
    guard: int = option(
        10,
        "Mails in a row with the same unknown 5xx reply, before further ones are held. 0: none is held.",
        minimum=0,
        maximum=10_000,
    )


@frozen
class ShutdownOptions:
    """How the worker stops (config section ``[shutdown]``)."""

    grace_seconds: float = option(30.0, "Time for mails in flight to finish after SIGTERM or Ctrl-C.", minimum=0)
