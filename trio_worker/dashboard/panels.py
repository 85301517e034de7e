"""Edge. The panels of figures: each function takes a snapshot and a width, and returns lines of exactly that width.

No I/O, awaits nothing. A colour repeats what a word says: green and plain are good, yellow needs attention, red is a
problem now.
"""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve
from rich.segment import Segment

from trio_worker import __version__
from trio_worker.dashboard.cell_text import printable_cells, width_of
from trio_worker.dashboard.cells import (
    BOLD,
    CAUTION,
    CHART,
    CURSOR,
    DIM,
    GOOD,
    PLAIN,
    TROUBLE,
    CellLine,
    Column,
    blank,
    cell,
    chart,
    rule,
    rule_room,
    table,
)
from trio_worker.dashboard.view import DrainKey, KeyAction, PauseKey, ResumeKey, View
from trio_worker.queue.ages import BAR_BOUNDS, AgeBars
from trio_worker.redis.server import ServerState
from trio_worker.telemetry.alerts import Severity, alerts, is_stale, state
from trio_worker.telemetry.number_words import UNKNOWN, ago, busy_of, clock, count, duration, memory, per_second, share
from trio_worker.telemetry.outlook import Outlook, outlook
from trio_worker.telemetry.quantiles import Quantiles
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.telemetry.words import work_words
from trio_worker.worker.phase import Disposition

# From this width on, a table of figures has one line of values; below, it has two.
ONE_LINE_WIDTH = 78
_SEVERITY_STYLES = {Severity.CALM: GOOD, Severity.CAUTION: CAUTION, Severity.TROUBLE: TROUBLE}
# Normally zero; shown in yellow otherwise.
_ODD_DISPOSITIONS = {Disposition.HELD, Disposition.FENCED, Disposition.GONE, Disposition.UNSETTLED}
_PAUSE_KEY, _RESUME_KEY, _DRAIN_KEY = "p pause", "p resume", "d drain"
_TYPING_HINT = "Enter confirms, Esc cancels; every other key is text"
_HELP: tuple[tuple[str, str, type[KeyAction] | None], ...] = (
    ("q", "exit; a worker asks, and drains first", None),
    ("1 to 5", "overview, workers, connections, failures, latest; again: back", None),
    ("space", "freeze the screen, or continue", None),
    ("/", "show only jobs, causes and workers that contain a text; Esc: all", None),
    ("e", "show only jobs that were not sent", None),
    ("+ -", "update more or less often", None),
    ("p", "pause the queue for 15 minutes, or resume a paused one", PauseKey),
    ("d", "drain this worker", DrainKey),
    ("", "", None),
    ("waiting", "not yet claimed; delayed: for later; due: its time has come", None),
    ("leased", "claimed by a worker; held: unknown if it was delivered", None),
    ("uncertain", "mails that may have been delivered twice", None),
    ("~", "an estimate; - is unknown, 0 is zero", None),
    ("p50 p95", "50 % and 95 % took less time; over the last five minutes", None),
    ("consumers", "tasks of a worker, each on one connection; busy: they have a job", None),
    ("in flight", "mails on connections; in hand: claimed jobs, not yet settled", None),
    ("idle", "fraction of the consumers without a job, over one minute", None),
    ("suspended", "connections closed for some time, as no more could be opened", None),
    ("AGE back", "from samples, scaled up; back: times that Redis answered again", None),
    ("connecting", "time to open connections, divided by the mails sent", None),
)
_MIN_WIDTHS = {Disposition.SENT: 9, Disposition.DELAYED: 8, Disposition.DEAD: 6, Disposition.HELD: 5}


def header(snapshot: Snapshot, width: int, frozen_seconds: float | None = None) -> CellLine:
    """Return the first line: version, queue, state, uptime and time; or since when the screen is frozen."""
    now = state(snapshot)
    tail = f"up {duration(snapshot.up_seconds):>6}  {clock(snapshot.at)}Z"
    mark = cell(f"● {now.word}", 10, _SEVERITY_STYLES[now.severity] + BOLD)
    if frozen_seconds is not None:
        mark = cell("■ FROZEN", 10, CAUTION + BOLD)
        tail = f"{ago(frozen_seconds):>6} ago  {clock(snapshot.at)}Z"
    room = width - 10 - len(tail) - 4
    name = f"trio-worker {__version__}   " if room > 42 else ""
    place = f" @ {snapshot.redis_name}" if snapshot.redis_name else ""
    queue = cell(snapshot.queue_name + place, room - len(name))
    return [Segment(name, BOLD), queue, Segment("  ", PLAIN), mark, Segment("  " + tail, PLAIN)]


def alert_lines(snapshot: Snapshot, width: int, height: int, key: str = "") -> list[CellLine]:
    """Return exactly ``height`` lines with the alerts, and blanks below them.

    If alerts fill all lines, the last one ends with ``key``, the name of a key that helps.
    """
    found = alerts(snapshot)
    lines: list[CellLine] = []
    for number, alert in enumerate(found[:height], start=1):
        hidden = len(found) - height
        is_last = number == height
        more = (f"  +{hidden} more" if is_last and hidden > 0 else "") + (f"  {key}" if is_last and key else "")
        word = Segment(f"! {alert.word}", _SEVERITY_STYLES[alert.severity] + BOLD)
        text = cell(alert.text, width - width_of(word.text) - 2 - len(more))
        lines.append([word, Segment("  ", PLAIN), text, Segment(more, BOLD)])
    return lines + [blank(width)] * (height - len(lines))


def hint_lines(snapshot: Snapshot, width: int, height: int, view: View) -> list[CellLine]:
    """Return the alerts; if they leave a line free, the last line lists the keys."""
    actions = _action_keys(snapshot, view)
    resumes = _RESUME_KEY if _RESUME_KEY in actions and view.typing is None else ""
    lines = alert_lines(snapshot, width, height, resumes)
    kept = [f"only {view.filter!r}"] if view.filter else []
    kept += ["errors only"] if view.only_errors else []
    has_keys = view.has_keys and view.typing is None
    if len(alerts(snapshot)) >= height or not (has_keys or kept):
        return lines
    words = [*kept, *(["? help", "1-5 pages", "/ filter", "space freeze", *actions, "q quit"] if has_keys else [])]
    return [*lines[:-1], [cell("   ".join(words), width, CAUTION if kept else DIM)]]


def _action_keys(snapshot: Snapshot, view: View) -> list[str]:
    """Return the keys of allowed actions; the action of ``p`` depends on the queue."""
    if not view.has_keys:
        return []
    is_paused = snapshot.queue is not None and bool(snapshot.queue.paused)
    keys = [_RESUME_KEY if is_paused else _PAUSE_KEY] if (ResumeKey if is_paused else PauseKey) in view.may else []
    return [*keys, *([_DRAIN_KEY] if DrainKey in view.may else [])]


def prompt_lines(view: View, width: int) -> list[CellLine]:
    """Return the line that is being typed and a hint above it; else the notice about the last action."""
    if view.typing is None:
        return [[cell(view.notice, width, CAUTION)]]
    room = width - len(view.typing.value) - 1
    typed = view.typed if width_of(printable_cells(view.typed)) <= room else "…" + view.typed[-(room // 2) :]
    rest = blank(max(0, room - width_of(printable_cells(typed))))
    prompt = [Segment(view.typing.value, BOLD), Segment(printable_cells(typed), PLAIN), Segment("_", CURSOR), *rest]
    return [[cell(_TYPING_HINT, width, DIM)], prompt]


def help_lines(view: View, width: int) -> list[CellLine]:
    """Return the help: what each key does, and what the words on the screen mean."""
    lines = [blank(width)]
    for key, meaning, action in _HELP:
        if action is None or action in view.may:
            lines.append([cell(f"  {key}", 14, BOLD), cell(meaning, width - 14)])
    return lines


def queue_panel(snapshot: Snapshot, width: int) -> list[CellLine]:
    """Return QUEUE, three lines: the number of jobs in each state, and whether the waiting list grows."""
    queue, stale = snapshot.queue, is_stale(snapshot)
    ahead = Outlook(" ", "") if stale else outlook(snapshot)
    note = "all workers"
    if stale:
        note = f"STALE, {duration(snapshot.queue_seen_seconds)} old"
    aside_style = CAUTION if ahead.is_worrying else PLAIN
    oldest = duration(queue.oldest_seconds, is_estimate=queue.is_estimate) if queue else UNKNOWN
    held, dead = (queue.held, queue.dead) if queue else (None, None)
    columns = [
        Column("waiting", queue.waiting if queue else None, BOLD, 9, sign=ahead.sign),
        Column("oldest", oldest, BOLD, 7),
        Column("delayed", queue.delayed if queue else None),
        Column("due", queue.due if queue else None, minimum_width=6),
        Column("leased", queue.leased if queue else None),
        Column("held", held, CAUTION if held else PLAIN, 6),
        Column("dead", dead, CAUTION if dead else PLAIN, 6),
    ]
    if stale:
        columns = [evolve(column, style=DIM) for column in columns]
    return [rule("QUEUE", width, ahead.words, note, aside_style), *table(columns, width)]


def flow_panel(snapshot: Snapshot, width: int, chart_lines: int) -> list[CellLine]:
    """Return FLOW: a rule, the rates on one line (two if narrow), and the chart of mails sent.

    The rule also has the mails in flight, if there is room for them and the scope.
    """
    rates = snapshot.rates
    figures = [
        ("claimed", rates.claimed),
        ("sent", rates.sent),
        ("delayed", rates.delayed),
        ("dead", rates.dead),
    ]
    a_minute, note = f"{count(round(60 * rates.sent))} a minute", f"{snapshot.scope.value}, last 10 s"
    aside = f"{a_minute}, {work_words(snapshot)[1]}"
    lines = [rule("FLOW", width, aside if len(aside) <= rule_room("FLOW", width, note) else a_minute, note)]
    if width < ONE_LINE_WIDTH:
        lines += table([Column(f"{name}/s", per_second(rate, 9)) for name, rate in figures], width)
    else:
        cells: list[Segment] = []
        for name, rate in figures:
            cells += [Segment(f" {name}", DIM), Segment(f"{per_second(rate, 7):>7}/s ", PLAIN)]
        lines.append(_pad(cells, width))
    return lines + chart_panel(snapshot, width, chart_lines)


def chart_panel(snapshot: Snapshot, width: int, height: int) -> list[CellLine]:
    """Return the chart of mails sent, one column per second, with its maximum."""
    columns = width - 21
    most = max(snapshot.spark_sent[-columns:], default=0)
    scale = cell(f"max {count(most, 7)}", 12)
    lines = []
    for number, bars in enumerate(chart(snapshot.spark_sent, columns, height)):
        is_last = number == height - 1
        label = cell(" sent/s" if is_last else "", 7, DIM)
        lines.append([label, Segment(f" {bars} ", CHART), scale if number == 0 else blank(12)[0]])
    return lines


def time_panel(snapshot: Snapshot, width: int) -> list[CellLine]:
    """Return TIME, four lines: quantiles of wait, SMTP transaction and latency over the last five minutes."""
    is_estimate = snapshot.queue is not None and snapshot.queue.is_estimate
    size = min(11, (width - 18) // 4)
    room = width - 4 * size
    heads = [cell(head, size, DIM, is_right=True) for head in ("p50", "p95", "p99", "max")]
    title = rule("TIME", room, note="last 5 min")
    rows = [
        ("wait in queue", snapshot.wait, is_estimate),
        ("SMTP transaction", snapshot.smtp, False),
        ("push to sent", snapshot.latency, is_estimate),
    ]
    return [[*title, *heads], *(_time_row(name, times, room, size, is_estimate=e) for name, times, e in rows)]


def _time_row(name: str, times: Quantiles, room: int, size: int, *, is_estimate: bool) -> CellLine:
    figures = (times.p50, times.p95, times.p99, times.most)
    cells = [cell(duration(each, is_estimate=is_estimate), size, PLAIN, is_right=True) for each in figures]
    return [cell(f" {name}", room, DIM), *cells]


def run_panel(snapshot: Snapshot, width: int) -> list[CellLine]:
    """Return THIS RUN: the ledger. Its figures balance: claimed = in hand + sent + ... + unsettled."""
    ledger = snapshot.ledger
    # With the word for jobs that Redis has lost, which is rare, there is no room for wider columns than the words.
    widths = _MIN_WIDTHS if not ledger.settled[Disposition.GONE] else {}
    columns = [Column("claimed", ledger.claimed, minimum_width=9 if widths else 0)]
    for disposition in Disposition:
        number = ledger.settled[disposition]
        if disposition is Disposition.GONE and not number:
            continue
        is_odd = number and disposition in _ODD_DISPOSITIONS
        columns.append(Column(str(disposition), number, CAUTION if is_odd else PLAIN, widths.get(disposition, 0)))
    columns.append(Column("uncertain", ledger.uncertain, CAUTION if ledger.uncertain else PLAIN))
    title = rule("THIS RUN", width, run_words(snapshot, width - 14), snapshot.scope.value)
    if width >= ONE_LINE_WIDTH:
        return [title, *table(columns, width)]
    columns.append(Column("recovered", ledger.recovered))
    # The same width for all columns, so that the two tables are aligned.
    even = [evolve(column, minimum_width=9) for column in columns]
    return [title, *table(even[:5], width), *table(even[5:], width)]


def age_panel(snapshot: Snapshot, width: int) -> list[CellLine]:
    """Return AGE, six lines: the waiting jobs by age, from samples scaled up."""
    ages = None if snapshot.queue is None else snapshot.queue.ages
    lines = [rule("AGE", width, _age_words(ages), "every 5 s")]
    bounds = [0.0, *BAR_BOUNDS]
    names = [f"< {BAR_BOUNDS[0]:.0f}s", *(f"{a:.0f}-{b:.0f}s" for a, b in pairwise(BAR_BOUNDS))]
    names.append(f"> {bounds[-1]:.0f}s")
    is_known = ages is not None and (ages.looked_at > 0 or not ages.waiting)
    most = max(ages.jobs) if ages is not None and is_known else 0
    room = width - 9 - 12
    for place, name in enumerate(names):
        jobs = ages.jobs[place] if ages is not None and is_known else None
        bar = "█" * (-(-room * jobs // most) if jobs else 0)
        mark = "~" if jobs and ages is not None and (ages.is_estimate or ages.looked_at < ages.waiting) else ""
        figure = cell(f"{mark}{count(jobs, 10)}", 11, is_right=True)
        lines.append([cell(f" {name}", 9, DIM), cell(bar, room, CHART), Segment(" ", PLAIN), figure])
    return lines


def _age_words(ages: AgeBars | None) -> str:
    if ages is None:
        return ""
    if ages.waiting and not ages.looked_at:
        return f"{ages.waiting:,} are too many to sample"
    words = f"{ages.looked_at:,} of {ages.waiting:,} waiting jobs looked at"
    return words + (f", {ages.undated:,} undated" if ages.undated else "")


def redis_panel(snapshot: Snapshot, width: int) -> list[CellLine]:
    """Return REDIS, three lines: the round trip, and the figures of the server that are known."""
    server = snapshot.queue.server if snapshot.queue is not None and snapshot.queue.server else ServerState()
    is_careless = server.policy not in ("", "noeviction")
    most = UNKNOWN if server.most_bytes is None else memory(server.most_bytes) if server.most_bytes else "no limit"
    persistence = {None: UNKNOWN, True: "aof", False: "no aof"}[server.has_aof]
    columns = [
        Column("round trip", duration(snapshot.vitals.redis_seconds)),
        Column("memory", memory(server.used_bytes), minimum_width=8),
        Column("of", most, minimum_width=9),
        Column("when full", server.policy or UNKNOWN, CAUTION if is_careless else PLAIN, 15),
        Column("clients", server.clients, minimum_width=8),
        Column("keeps", persistence, CAUTION if server.has_aof is False else PLAIN, 7),
        Column("role", server.role or UNKNOWN, minimum_width=7),
        Column("back", snapshot.redis_recoveries, CAUTION if snapshot.redis_recoveries else PLAIN, 5),
    ]
    return [rule("REDIS", width, "", "every 10 s"), *table(columns, width)]


def summary_table(snapshot: Snapshot, width: int) -> list[CellLine]:
    """Return two lines with the most important figures of this worker, for small screens."""
    rates, uncertain = snapshot.rates, snapshot.ledger.uncertain
    columns = [
        Column("claimed/s", per_second(rates.claimed, 7)),
        Column("sent/s", per_second(rates.sent, 7)),
        Column("delayed/s", per_second(rates.delayed, 7)),
        Column("dead/s", per_second(rates.dead, 7)),
        Column("uncertain", uncertain, CAUTION if uncertain else PLAIN),
        Column("consumers", busy_of(snapshot.busy_consumers, snapshot.number_workers, 4)),
    ]
    return table(columns, width)


def run_words(snapshot: Snapshot, room: int) -> str:
    """Return the jobs in hand, the busy consumers, the idle share, and the time to connect per mail.

    Only as many of them as fit.
    """
    words = [f"in hand {snapshot.in_hand:,}", work_words(snapshot)[0], f"idle {share(snapshot.idle_share)}"]
    connecting = snapshot.connect_seconds_per_mail
    if connecting is not None:
        words.append(f"connecting {duration(connecting)}")
    while len(words) > 1 and len(", ".join(words)) > room:
        words.pop()
    return ", ".join(words)


def _pad(cells: list[Segment], width: int) -> CellLine:
    room = width - sum(width_of(segment.text) for segment in cells)
    return [*cells, Segment(" " * max(0, room), PLAIN)]
