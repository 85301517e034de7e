"""Pure. Backoff times for a relay in trouble. A module by itself, because the breaker and the pool both use it."""

from __future__ import annotations

from trio_worker.records import frozen


@frozen
class BackOff:
    """Exponential backoff: the waits double from ``first_seconds`` up to ``cap_seconds``."""

    first_seconds: float
    cap_seconds: float


# After a refused login tries are rare: relays lock an account that fails often, and only an operator can correct it.
LOGIN_BACKOFF = BackOff(60.0, 900.0)
# A quota is counted by the hour or the day, so a probe an hour finds its end soon enough.
STANDING_BACKOFF = BackOff(3600.0, 3600.0)
# Where a refusal may be about a few mails alone, the next mail is tried soon.
DOUBTFUL_BACKOFF = BackOff(1.0, 900.0)
# Other trouble may end by itself at any moment; mail then waits a minute at most.
OTHER_BACKOFF = BackOff(1.0, 60.0)
