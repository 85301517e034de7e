"""Edge. The panels with lists: connections, workers, failures, latest outcomes; lines of exactly the given width.

No I/O, awaits nothing. A list always has the given number of lines, with blanks at its end, so that nothing jumps.
"""

from __future__ import annotations

from collections import Counter

from rich.segment import Segment
from rich.style import Style

from trio_worker.dashboard.cell_text import printable_cells, width_of
from trio_worker.dashboard.cells import CAUTION, DIM, GOOD, PLAIN, TROUBLE, CellLine, blank, cell, row, rule, rule_room
from trio_worker.smtp.events import ConnectionView
from trio_worker.telemetry.feed import FeedOutcome
from trio_worker.telemetry.heartbeat import DeathCount, WorkerSeen
from trio_worker.telemetry.number_words import (
    UNKNOWN,
    ago,
    busy_of,
    clock,
    count,
    counted,
    duration,
    memory,
    per_second,
    share,
)
from trio_worker.telemetry.snapshot import CAUSE_MINUTES, Scope, Snapshot
from trio_worker.telemetry.words import breaker_words, reason_words, recipients_words, worker_state
from trio_worker.worker.breaker import Closed
from trio_worker.worker.phase import Disposition

# From this width on, the list of workers has a column for mails in flight.
FLIGHT_WIDTH = 90
# From these widths on, the list of the latest outcomes has columns for email types, times and job ids.
TYPES_WIDTH = 70
TIMES_WIDTH = 110
IDS_WIDTH = 140

_DISPOSITION_STYLES = {
    Disposition.SENT: GOOD,
    Disposition.DELAYED: CAUTION,
    Disposition.DEAD: TROUBLE,
    Disposition.HELD: CAUTION,
    Disposition.RELEASED: PLAIN,
    Disposition.FENCED: CAUTION,
    Disposition.GONE: TROUBLE,
    Disposition.UNSETTLED: TROUBLE,
}


_WORKER_HEADS = (
    *("worker", "state", "consumers", "sent/s", "p95", "seen"),
    *("in flight", "idle", "conns", "cpu", "memory", "version"),
)


def more_words(hidden: int, key: str) -> str:
    """Return how many rows have no room, and the key of the page that has more; nothing if all are shown."""
    return f"+{hidden:,} more{f': {key}' if key else ''}" if hidden > 0 else ""


def connections_panel(snapshot: Snapshot, width: int, rows: int, key: str = "") -> list[CellLine]:
    """Return CONNECTIONS: a rule, headings, and ``rows`` lines; busy ones first, then the longest in their state."""
    is_closed = isinstance(snapshot.breaker, Closed)
    views = snapshot.connections
    busy = sum(view.is_busy for view in views)
    opened = sum(view.state != "closed" for view in views)
    tail, style = f", {breaker_words(snapshot.breaker)}", PLAIN if is_closed else TROUBLE
    if snapshot.scope is Scope.FLEET:
        beats = [worker.beat for worker in snapshot.workers if not worker.is_lost]
        opened, busy = sum(beat.connections for beat in beats), sum(beat.busy_connections for beat in beats)
        tail = "; each worker lists its own"
    if snapshot.suspended is not None:
        left = snapshot.suspended.until - snapshot.at
        span = f" for {duration(left)}" if left > 0 else ""
        # Other connections work, so the state of the breaker is clear and leaves room for the name of the relay.
        tail = "" if is_closed and snapshot.scope is Scope.WORKER else tail
        tail, style = f", {snapshot.suspended.count:,} suspended{span}{tail}", CAUTION if is_closed else TROUBLE
    figures = f"{opened:,}/{snapshot.max_connections:,} open, {busy:,} busy"
    more = more_words(len(views) - rows, key)
    note = "  ".join(filter(None, (printable_cells(snapshot.relay_name), more)))
    if width_of(figures + tail) > rule_room("CONNECTIONS", width, note) and is_closed and snapshot.suspended is None:
        tail = ""  # that the relay works is told by its connections, and leaves room for its name
    note = note if width_of(figures + tail) <= rule_room("CONNECTIONS", width, note) else more
    lines = [rule("CONNECTIONS", width, f"{figures}{tail}", note, style)]
    heads = _connection_cells("id", "state", "for", "msgs", "age", "tls", "reply")
    lines.append(row([Segment(head.text, DIM) for head in heads], width))
    ordered = sorted(views, key=lambda view: (not view.is_busy, -view.state_seconds))
    lines += [row(_connection_row(view), width) for view in ordered[:rows]]
    return lines + [blank(width)] * (rows + 2 - len(lines))


def _connection_row(view: ConnectionView) -> list[Segment]:
    style = PLAIN if view.is_busy else DIM
    return _connection_cells(
        str(view.connection_id),
        view.state,
        duration(view.state_seconds),
        count(view.delivered, 6),
        duration(view.age_seconds),
        view.tls or "none",
        view.last_reply or UNKNOWN,
        style,
    )


def _connection_cells(
    number: str, word: str, seconds: str, sent: str, age: str, tls: str, reply: str, style: Style = PLAIN
) -> list[Segment]:
    return [
        cell(number, 5, style, is_right=True),
        cell(word, 6, style),
        cell(seconds, 6, style, is_right=True),
        cell(sent, 6, style, is_right=True),
        cell(age, 6, style, is_right=True),
        cell(tls, 7, style),
        # A reply may be long; the row is cut at the end of the panel.
        cell(reply, max(9, width_of(printable_cells(reply))), style),
    ]


def workers_panel(snapshot: Snapshot, width: int, rows: int, key: str = "") -> list[CellLine]:
    """Return WORKERS: a rule, headings, and ``rows`` lines; those in trouble first, and a count of the rest."""
    workers = snapshot.workers
    live = sum(not worker.is_lost for worker in workers)
    aside = f"{live:,} live" + (f", {len(workers) - live:,} LOST" if live < len(workers) else "")
    note = more_words(len(workers) - rows, key) or "by heartbeat"
    lines = [rule("WORKERS", width, aside, note, PLAIN if live == len(workers) else TROUBLE)]
    lines.append(row(_worker_cells(_WORKER_HEADS, width, DIM), width))
    ordered = sorted(workers, key=lambda worker: (not worker.is_lost, not worker.beat.trouble, worker.beat.worker))
    lines += [row(_worker_row(worker, width), width) for worker in ordered[:rows]]
    return lines + [blank(width)] * (rows + 2 - len(lines))


def _worker_row(worker: WorkerSeen, width: int) -> list[Segment]:
    beat = worker.beat
    if worker.is_lost:
        # Its last figures are of no moment that anybody asks for: it does no work.
        seen = ago(worker.seen_seconds)
        lost = (beat.worker, worker_state(worker), *[UNKNOWN] * 3, seen, *[UNKNOWN] * 5, beat.version)
        return _worker_cells(lost, width, TROUBLE)
    words = (
        beat.worker,
        worker_state(worker),
        busy_of(beat.busy_consumers, beat.number_workers, 4),
        per_second(beat.rates.sent, 7),
        duration(beat.latency.quantiles().p95),
        ago(worker.seen_seconds),
        count(beat.mails_in_flight, 9),
        share(beat.idle_share),
        f"{beat.busy_connections}/{beat.connections}",
        share(beat.vitals.cpu_share),
        memory(beat.vitals.rss_bytes),
        beat.version,
    )
    style = TROUBLE if beat.trouble else PLAIN
    return _worker_cells(words, width, style)


def _worker_cells(words: tuple[str, ...], width: int, style: Style) -> list[Segment]:
    """Return the cells of one worker; a narrow list leaves out the figures of the process and the mails in flight."""
    name, word, *figures, version = words
    sizes = (9, 7, 6, 5, 9, 5, 7, 4, 6)[: 9 if width >= TIMES_WIDTH else 5 if width >= FLIGHT_WIDTH else 4]
    tail = [cell(version, 8, style)] if width >= TYPES_WIDTH else []
    used = 8 + sum(sizes) + 2 * (len(sizes) + 1) + 10 * len(tail)
    cells = [cell(name, min(36, max(8, width - used)), style), cell(word, 8, style)]
    cells += [cell(figure, size, style, is_right=True) for figure, size in zip(figures, sizes, strict=False)]
    return cells + tail


# What the failures of a disposition are: a job may be delayed several times, but dies once.
_FAILURES = {
    Disposition.DELAYED: ("delay", "delays"),
    Disposition.RELEASED: ("release", "releases"),
    Disposition.DEAD: ("dead job", "dead jobs"),
    Disposition.HELD: ("held job", "held jobs"),
    Disposition.FENCED: ("fenced job", "fenced jobs"),
    Disposition.UNSETTLED: ("unsettled job", "unsettled jobs"),
}


def failures_panel(snapshot: Snapshot, width: int, rows: int, key: str = "") -> list[CellLine]:
    """Return FAILURES: a rule and ``rows`` lines with one cause each, the most frequent first."""
    totals: Counter[Disposition] = Counter()
    for cause in snapshot.causes:
        totals[cause.disposition] += cause.count
    found = [counted(totals[kind], *words) for kind, words in _FAILURES.items() if totals[kind]]
    aside = ", ".join(found) or "none"
    more = more_words(len(snapshot.causes) - rows, key)
    note = f"{CAUSE_MINUTES} min  {more}" if more else f"{CAUSE_MINUTES} min, live workers"
    lines = [rule("FAILURES", width, aside, note)]
    lines += [row(_failure_row(cause, snapshot.at, width), width) for cause in _causes_in_view(snapshot.causes, rows)]
    return lines + [blank(width)] * (rows + 1 - len(lines))


def _causes_in_view(causes: tuple[DeathCount, ...], rows: int) -> tuple[DeathCount, ...]:
    """Return the first causes; if none of them made dead letters, the last one is replaced by one that did."""
    shown = causes[:rows]
    deadly = next((cause for cause in causes if cause.disposition is Disposition.DEAD), None)
    if deadly is None or deadly in shown or not shown:
        return shown
    return (*shown[:-1], deadly)


def _failure_row(cause: DeathCount, now: float, width: int) -> list[Segment]:
    word_size = max(8, width - 9 - 8 - 10 - 10 - 8)
    return [
        cell(count(cause.count, 9), 9, PLAIN, is_right=True),
        disposition_cell(cause.disposition),
        cell(cause.codes or UNKNOWN, 10),
        cell(cause.word, word_size),
        cell(f"{ago(now - cause.last_at)} ago", 10, DIM, is_right=True),
    ]


def disposition_cell(disposition: Disposition) -> Segment:
    """Return the disposition of a job in eight cells; DEAD is in capitals, so that it is seen."""
    word = str(disposition).upper() if disposition is Disposition.DEAD else str(disposition)
    return cell(word, 9 if disposition is Disposition.UNSETTLED else 8, _DISPOSITION_STYLES[disposition])


def latest_panel(snapshot: Snapshot, width: int, rows: int, key: str = "") -> list[CellLine]:
    """Return LATEST: a rule, headings if they fit, and ``rows`` lines, newest last.

    At a hundred mails per second a failure would scroll away unread: half of the rows are kept for jobs that were not
    sent.
    """
    aside = "" if snapshot.latest else "nothing yet"
    note = f"{snapshot.scope.value}, newest last"
    more = more_words(len(snapshot.latest) - (rows if width < TIMES_WIDTH else rows - 1), key)
    lines = [rule("LATEST", width, aside, f"{note}  {more}" if more else note)]
    if width < TIMES_WIDTH:
        has_type = width >= TYPES_WIDTH
        newest = _latest_in_view(snapshot.latest, rows)
        lines += [row(_short_outcome(each, has_type=has_type), width) for each in newest]
        return lines + [blank(width)] * (rows + 1 - len(lines))
    has_ids = width >= IDS_WIDTH
    lines.append(row(_outcome_heads(has_ids=has_ids), width))
    newest = _latest_in_view(snapshot.latest, rows - 1)
    lines += [row(_full_outcome(each, has_ids=has_ids), width) for each in newest]
    return lines + [blank(width)] * (rows + 1 - len(lines))


def _latest_in_view(outcomes: tuple[FeedOutcome, ...], rows: int) -> list[FeedOutcome]:
    places = range(len(outcomes))
    odd = [place for place in places if outcomes[place].settled.disposition is not Disposition.SENT]
    kept = odd[-((rows + 1) // 2) :] if rows > 0 else []
    others = [place for place in places if place not in kept]
    room = rows - len(kept)
    return [outcomes[place] for place in sorted(kept + (others[-room:] if room > 0 else []))]


def _outcome_heads(*, has_ids: bool) -> list[Segment]:
    words = [("time", 8), ("", 8), *([("job", 20)] if has_ids else []), ("type", 14), ("recipient", 22)]
    figures = [("try", 3), ("wait", 7), ("SMTP", 6), ("conn", 5)]
    cells = [cell(head, size, DIM) for head, size in words]
    cells += [cell(head, size, DIM, is_right=True) for head, size in figures]
    return [*cells, cell("reply", 5, DIM)]


def _short_outcome(outcome: FeedOutcome, *, has_type: bool) -> list[Segment]:
    settled = outcome.settled
    return [
        cell(clock(outcome.at), 8, DIM),
        disposition_cell(settled.disposition),
        *([cell(settled.email_type or UNKNOWN, 13)] if has_type else []),
        cell(recipients_words(settled), 20),
        _reason(outcome),
    ]


def _full_outcome(outcome: FeedOutcome, *, has_ids: bool) -> list[Segment]:
    settled = outcome.settled
    waited = duration(settled.waited_seconds, is_estimate=settled.is_estimate)
    connection = UNKNOWN if settled.connection_id is None else str(settled.connection_id)
    return [
        cell(clock(outcome.at), 8, DIM),
        disposition_cell(settled.disposition),
        *([cell(settled.job_id, 20, DIM)] if has_ids else []),
        cell(settled.email_type or UNKNOWN, 14),
        cell(recipients_words(settled), 22),
        cell(count(settled.attempt, 3) if settled.attempt else UNKNOWN, 3, is_right=True),
        cell(waited, 7, is_right=True),
        cell(duration(settled.smtp_seconds), 6, is_right=True),
        cell(connection, 5, is_right=True),
        _reason(outcome),
    ]


def _reason(outcome: FeedOutcome) -> Segment:
    words = printable_cells(reason_words(outcome.settled))
    return Segment(words, PLAIN)
