"""Pure. A notice of a worker, as it travels in heartbeats. Apart from the events that make one."""

from __future__ import annotations

from trio_worker.records import frozen

REFUSED_WORD = "REFUSED"
RATE_WORD = "RATE"


@frozen
class Notice:
    """One notice: the word of an alert, and a sentence."""

    word: str
    text: str
    is_severe: bool = True
