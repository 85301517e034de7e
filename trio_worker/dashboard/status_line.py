"""Edge. The status line: a snapshot in one line of plain text; no I/O, awaits nothing.

A separate module, because a run without a terminal must not load the panels.
"""

from __future__ import annotations

from trio_worker.dashboard.cell_text import printable_cells
from trio_worker.telemetry.alerts import alerts, state
from trio_worker.telemetry.number_words import clock, count, duration, per_second
from trio_worker.telemetry.snapshot import Snapshot


def status_line(snapshot: Snapshot) -> str:
    """Return one line of plain text, for runs without a terminal: state, queue and rates."""
    return "".join(status_words(snapshot))


def status_words(snapshot: Snapshot) -> list[str]:
    """Return the parts of the status line, the most important first, each with its leading blanks."""
    queue, rates = snapshot.queue, snapshot.rates
    waiting, delayed, dead = (queue.waiting, queue.delayed, queue.dead) if queue else (None, None, None)
    oldest = duration(queue.oldest_seconds, is_estimate=queue.is_estimate) if queue else duration(None)
    return [
        f"{clock(snapshot.at)}Z",
        f" {state(snapshot).word.lower()}",
        f"  waiting {count(waiting)}",
        f" oldest {oldest}",
        f"  claimed {per_second(rates.claimed)}/s",
        f" sent {per_second(rates.sent)}/s",
        f"  delayed {count(delayed)}",
        f"  dead {count(dead)}",
        f"  uncertain {count(snapshot.ledger.uncertain)}",
        *(f"  ! {printable_cells(alert.word.lower())}: {printable_cells(alert.text)}" for alert in alerts(snapshot)),
    ]
