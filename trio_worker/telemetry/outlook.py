"""Pure. The outlook of a queue: whether what waits grows or shrinks, whether any of it is sent, and how late it is."""

from __future__ import annotations

from trio_worker.records import frozen
from trio_worker.telemetry.number_words import duration, per_second
from trio_worker.telemetry.snapshot import Snapshot

# A slope within one percent of the sending rate, or one job every twenty seconds, is noise of the measurement.
_LEVEL_SHARE = 0.01
_LEVEL_PER_SECOND = 0.05
# Below this rate nothing was sent in the ten seconds over which rates are counted.
_SENT_PER_SECOND = 0.05
# A job that waits for less than this is not late: it may be one of a burst.
LATE_SECONDS = 10.0


@frozen
class Outlook:
    """Whether the queue grows or shrinks: a sign of one character, and words."""

    sign: str
    words: str
    is_worrying: bool = False  # it grows, or what is late is not sent


def outlook(snapshot: Snapshot) -> Outlook:
    """Return whether the jobs that could be sent grow or shrink in number, and how late the oldest of them is.

    Only a queue from which mails are sent keeps up, or will be empty in some time.
    """
    slope, queue, rates = snapshot.waiting_slope, snapshot.queue, snapshot.rates
    if queue is None:
        return Outlook(" ", "")
    ready, late = queue.waiting + queue.due, behind_seconds(snapshot)
    is_sending = rates.sent >= _SENT_PER_SECOND
    if not ready:
        if rates.delayed < _SENT_PER_SECOND or is_sending:
            return Outlook("=", "empty")
        return Outlook("=", "mails are delayed, none is sent", is_worrying=True)
    sign, words = _trend(slope, ready, rates.sent, is_sending=is_sending)
    is_late = late is not None and late >= LATE_SECONDS
    parts = [
        words or ("keeping up" if slope is not None and is_sending and not is_late else ""),
        "" if is_sending else "none is sent",
        f"{duration(late, is_estimate=queue.is_estimate and late == queue.oldest_seconds)} behind" if is_late else "",
    ]
    return Outlook(sign, ", ".join(filter(None, parts)), is_worrying=sign == "▲" or (is_late and not is_sending))


def _trend(slope: float | None, ready: int, sent: float, *, is_sending: bool) -> tuple[str, str]:
    """Return the sign of a slope, and the words for one that is not level."""
    level = max(sent * _LEVEL_SHARE, _LEVEL_PER_SECOND)
    if slope is None:
        return " ", ""
    if slope > level:
        return "▲", f"growing +{per_second(slope)}/s"
    if slope < -level:
        return "▼", f"shrinking, empty in {duration(ready / -slope)}" if is_sending else "shrinking"
    return "=", ""


def behind_seconds(snapshot: Snapshot) -> float | None:
    """Return how late the oldest job is that could be sent, new or due again; None if unknown, or if there is none."""
    queue = snapshot.queue
    if queue is None:
        return None
    late = [] if queue.oldest_seconds is None or not queue.waiting else [queue.oldest_seconds]
    if queue.due and queue.next_due_seconds is not None:
        late.append(max(0.0, -queue.next_due_seconds))
    return max(late, default=None)
