"""Pure. What is known of data that Redis has lost, kept in Redis itself: every worker and command sees it, for a day.

Workers notice a loss, but not what was lost: their totals say how much. Several see the same loss, and it is counted
once. For that the queue has a *generation*, a random word in its totals: who notes a loss first replaces it, and a
worker that finds a new one knows that its loss is noted already.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from trio_worker.records import frozen
from trio_worker.redis.calls import RedisAnswer
from trio_worker.redis.server import pairs

# How long a loss is shown. Nothing repairs it, and an operator must have the time to see it.
LOSS_SHOWN_SECONDS = 86_400.0


class LossSign(StrEnum):
    """What showed that Redis has lost data, or may have."""

    TOTALS = "totals"  # a total that only grows went back
    EVICTED = "evicted"  # Redis deleted keys because its memory was full
    GONE = "gone"  # settlements found their jobs gone, and nobody else had taken them over


# How Redis lost data, to be read after "Redis lost data:".
LOSS_WORDS: Mapping[LossSign, str] = {
    LossSign.TOTALS: "the number of jobs ever taken from the list went back",
    LossSign.EVICTED: "it deleted keys, because its memory is full and maxmemory-policy lets it",
    LossSign.GONE: "jobs in flight were gone when they were settled; those that are back in the list are sent again",
}


@frozen
class LostData:
    """A loss of data: the sum of the last day, and when it was last seen (epoch seconds of Redis' clock)."""

    sign: LossSign
    at: float
    count: int


def read_losses(answer: RedisAnswer, now: float) -> tuple[LostData, ...]:
    """Read the losses of the last day from the key's fields; what another version wrote there is ignored."""
    found = []
    for field, value in pairs(answer):
        sign, words = str(_text(field)), _text(value).split()
        if sign not in set(LossSign) or len(words) != 2 or not all(word.isdecimal() for word in words):
            continue
        at = int(words[0]) / 1000
        if now - at < LOSS_SHOWN_SECONDS:
            found.append(LostData(LossSign(sign), at, int(words[1])))
    return tuple(sorted(found, key=lambda loss: loss.sign))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
