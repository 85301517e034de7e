"""Pure. How long a relay in trouble is left alone before it is tried again."""

from __future__ import annotations

from attrs import frozen


@frozen
class BackOff:
    """Waits between probes: doubling from ``first_seconds`` to ``cap_seconds``."""

    first_seconds: float
    cap_seconds: float


# A refused login is tried rarely: relays lock an account that fails often, and only a human mends a password.
LOGIN_BACKOFF = BackOff(60.0, 900.0)
# Anything else may mend itself in a moment; a minute is the longest that mail then waits for nothing.
OTHER_BACKOFF = BackOff(1.0, 60.0)
