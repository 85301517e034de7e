"""Edge. Frames: a snapshot as text for a terminal of any size; no I/O, awaits nothing.

Layouts by columns and lines: below 60x10 one status line; from 60x10 the queue, the flow and the latest outcomes; from
80x24 all panels in one column; from 120x32 two columns, and the ages; from 160x45 also the server. More lines go to the
lists, and more columns to the replies of relays.
The last column stays empty: terminals differ in what they do when it is filled.
"""

from __future__ import annotations

from io import StringIO
from typing import TextIO, assert_never

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.terminal_theme import SVG_EXPORT_THEME

from trio_worker.dashboard.cell_text import cut, in_ascii, printable_cells, width_of
from trio_worker.dashboard.cells import PLAIN, CellLine, beside, blank
from trio_worker.dashboard.lists import connections_panel, failures_panel, latest_panel, workers_panel
from trio_worker.dashboard.panels import (
    ONE_LINE_WIDTH,
    age_panel,
    chart_panel,
    flow_panel,
    header,
    help_lines,
    hint_lines,
    prompt_lines,
    queue_panel,
    redis_panel,
    run_panel,
    summary_table,
    time_panel,
)
from trio_worker.dashboard.status_line import status_words
from trio_worker.dashboard.view import Page, View, filtered
from trio_worker.records import frozen
from trio_worker.telemetry.snapshot import Scope, Snapshot

# More rows would tell nothing that the figures above them do not.
CONNECTION_ROWS = 16
WORKER_ROWS = 8
FAILURE_ROWS = 8
_MIN_FAILURE_ROWS = 4
# From this height on, blank lines separate the panels.
_ROOMY_LINES = 36
_COLUMN_GAP = 3
# The left column has figures, which need no more than this width, as tables of two lines. The rest of the width is for
# the lists in the right column.
_LEFT_WIDTH = ONE_LINE_WIDTH - 1
# Lines of the two columns, at 32 lines and at the maximum; the latest outcomes have the other lines.
_BODY_LINES = 19
_MAX_BODY_LINES = 25
# From this size on, the figures of the server are shown below those of the run.
_SERVER_WIDTH, _SERVER_BODY_LINES = 160, 25
_AGE_LINES = 6
# The dashboard of a worker also lists the other workers, if the lists have this many rows and some more.
_ROOMY_ROWS = 14
_MAX_OTHER_ROWS = 4
PLAIN_VIEW = View()


@frozen
class Frame:
    """One frame of a snapshot; rich prints it at the size of its console."""

    snapshot: Snapshot
    view: View = PLAIN_VIEW
    ascii_only: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, line in enumerate(frame_lines(self.snapshot, *options.size, self.view)):
            if number:
                yield Segment.line()
            segments = _trimmed(line)
            yield from (Segment(in_ascii(s.text), s.style) for s in segments) if self.ascii_only else segments


def render_frame(
    snapshot: Snapshot,
    width: int,
    height: int,
    view: View = PLAIN_VIEW,
    *,
    ascii_only: bool = False,
    color: bool = True,
) -> str:
    """Return at most ``height`` lines, each narrower than ``width`` cells, joined by newlines.

    Every size gives a frame. Without ``color`` bold and dim stay; a colour never has a meaning alone.
    """
    screen = StringIO()
    console = open_console(screen, width, height, color=color)
    console.print(Frame(snapshot, view, ascii_only), end="", soft_wrap=True)
    return screen.getvalue()


def render_svg(snapshot: Snapshot, width: int, height: int, view: View = PLAIN_VIEW) -> str:
    """Return a frame as an SVG image, for a page or a bug report."""
    console = open_console(StringIO(), max(60, width), max(10, height), color=True, records=True)
    console.print(Frame(snapshot, view), soft_wrap=True)
    return console.export_svg(title=printable_cells(f"trio-worker: {snapshot.queue_name}"), theme=SVG_EXPORT_THEME)


def open_console(screen: TextIO, width: int, height: int, *, color: bool, records: bool = False) -> Console:
    """Return a console of exactly this size that writes to ``screen`` and ignores the environment."""
    return Console(
        file=screen,
        width=width,
        height=height,
        force_terminal=True,
        color_system="standard",  # the sixteen colours of the theme of the terminal
        no_color=not color,
        legacy_windows=False,
        record=records,
        _environ={},
    )


def frame_lines(snapshot: Snapshot, width: int, height: int, view: View = PLAIN_VIEW) -> list[CellLine]:
    """Return the lines of a frame of any size; from 60x10 on, one column at each side stays empty."""
    if width < 60 or height < 10:
        return [_one_line(snapshot, width)]
    inner = width - 2
    now = filtered(view, snapshot if view.frozen is None else view.frozen)
    frozen_seconds = None if view.frozen is None else max(0.0, snapshot.at - view.frozen.at)
    head = [header(now, inner, frozen_seconds)]
    if view.page is not Page.OVERVIEW:
        lines = _page(now, head, inner, height, view)
    elif width >= 120 and height >= 32:
        lines = _two_columns(now, head, inner, height, view)
    elif height >= (24 if width >= 80 else 30):
        lines = _one_column(now, head, inner, height, view)
    else:
        lines = _small(now, head, inner, height, view)
    if view.typing is not None or view.notice:
        prompt = prompt_lines(view, inner)
        above = height - len(prompt)
        lines = [*lines[:above], *([blank(inner)] * (above - len(lines))), *prompt]
    return [[Segment(" ", PLAIN), *line] for line in lines[:height]]


def _page(snapshot: Snapshot, head: list[CellLine], width: int, height: int, view: View) -> list[CellLine]:
    """Return a page with one list in full height, or the help."""
    lines = [*head, *hint_lines(snapshot, width, 1, view)]
    match view.page:
        case Page.HELP:
            return [*lines, *help_lines(view, width)]
        case Page.OVERVIEW | Page.WORKERS:
            lines += queue_panel(snapshot, width)
            return lines + workers_panel(snapshot, width, height - len(lines) - 2)
        case Page.CONNECTIONS:
            return lines + connections_panel(snapshot, width, height - len(lines) - 2)
        case Page.FAILURES:
            return lines + failures_panel(snapshot, width, height - len(lines) - 1)
        case Page.LATEST:
            return lines + latest_panel(snapshot, width, height - len(lines) - 1)
        case _:
            assert_never(view.page)


def _one_line(snapshot: Snapshot, width: int) -> CellLine:
    """Return the parts of the status line that fit; at least the first one, cut if necessary."""
    room = max(1, width - 1)
    words = status_words(snapshot)
    while len(words) > 1 and width_of("".join(words)) > room:
        words.pop()
    return [Segment(cut("".join(words), room), PLAIN)]


def _small(snapshot: Snapshot, head: list[CellLine], width: int, height: int, view: View) -> list[CellLine]:
    lines = [
        *head,
        *hint_lines(snapshot, width, 1, view),
        *queue_panel(snapshot, width),
        *summary_table(snapshot, width),
        *chart_panel(snapshot, width, 1),
    ]
    return lines + latest_panel(snapshot, width, height - len(lines) - 1, _key(view, Page.LATEST))


def _key(view: View, page: Page) -> str:
    """Return the key of a page, if there are keys."""
    return page.value if view.has_keys else ""


def _one_column(snapshot: Snapshot, head: list[CellLine], width: int, height: int, view: View) -> list[CellLine]:
    head = [*head, *hint_lines(snapshot, width, 1, view)]
    figures = [
        queue_panel(snapshot, width),
        flow_panel(snapshot, width, 1),
        time_panel(snapshot, width),
        run_panel(snapshot, width),
    ]
    gap = [blank(width)] if height >= _ROOMY_LINES else []
    # Without six gaps and the titles and headings of two lists, the other lines are rows.
    free = height - len(head) - sum(map(len, figures)) - 6 * len(gap) - 4
    who_rows, failure_rows, latest_rows = _shared(free, _most_who_rows(snapshot), FAILURE_ROWS, free)
    lists = [
        _who_panel(snapshot, width, who_rows, view),
        failures_panel(snapshot, width, failure_rows, _key(view, Page.FAILURES)),
        latest_panel(snapshot, width, latest_rows, _key(view, Page.LATEST)),
    ]
    return head + [line for panel in (*figures, *lists) for line in (*panel, *gap)]


def _most_who_rows(snapshot: Snapshot) -> int:
    """Return the number of rows that the panel of connections or workers can use."""
    if snapshot.scope is Scope.FLEET:
        return WORKER_ROWS
    return min(CONNECTION_ROWS, max(1, snapshot.max_connections))


def _who_panel(snapshot: Snapshot, width: int, rows: int, view: View) -> list[CellLine]:
    """Return the panel of connections for one worker, of workers for all."""
    if snapshot.scope is Scope.FLEET:
        return workers_panel(snapshot, width, rows, _key(view, Page.WORKERS))
    return connections_panel(snapshot, width, rows, _key(view, Page.CONNECTIONS))


def _shared(rows: int, *maximums: int) -> list[int]:
    """Share rows among lists, one at a time in turn, up to the maximum of each."""
    shares = [0] * len(maximums)
    while rows > 0 and shares != list(maximums):
        for place, limit in enumerate(maximums):
            if rows > 0 and shares[place] < limit:
                shares[place] += 1
                rows -= 1
    return shares


def _two_columns(snapshot: Snapshot, head: list[CellLine], width: int, height: int, view: View) -> list[CellLine]:
    left_width = min(_LEFT_WIDTH, (width - _COLUMN_GAP) // 2)
    right_width = width - left_width - _COLUMN_GAP
    body = min(_BODY_LINES + (height - 32) // 2, _MAX_BODY_LINES)
    lines = [
        *head,
        *hint_lines(snapshot, width, 2, view),
        *beside(
            _figures_column(
                snapshot, left_width, body, has_server=width >= _SERVER_WIDTH - 2 and body >= _SERVER_BODY_LINES
            ),
            _lists_column(snapshot, right_width, body, view),
            left_width,
            right_width,
            _COLUMN_GAP,
        ),
        blank(width),
    ]
    return lines + latest_panel(snapshot, width, height - len(lines) - 1, _key(view, Page.LATEST))


def _figures_column(snapshot: Snapshot, width: int, height: int, *, has_server: bool) -> list[CellLine]:
    gap = blank(width)
    above = [*queue_panel(snapshot, width), gap]
    below = [gap, *time_panel(snapshot, width), gap, *run_panel(snapshot, width)]
    below += [gap, *redis_panel(snapshot, width)] if has_server else []
    flow = flow_panel(snapshot, width, 0)
    chart_lines = height - len(above) - len(flow) - len(below)
    return [*above, *flow, *chart_panel(snapshot, width, chart_lines), *below]


def _lists_column(snapshot: Snapshot, width: int, height: int, view: View) -> list[CellLine]:
    # Without a blank between the lists, their titles, the headings of the first, and the ages with a blank above.
    rows = height - 4 - 1 - _AGE_LINES
    who_rows = min(_most_who_rows(snapshot), rows - _MIN_FAILURE_ROWS)
    beside_rows = min(len(snapshot.workers), _MAX_OTHER_ROWS)
    others: list[CellLine] = []
    if snapshot.scope is Scope.WORKER and len(snapshot.workers) > 1 and rows >= _ROOMY_ROWS:
        others = [blank(width), *workers_panel(snapshot, width, beside_rows, _key(view, Page.WORKERS))]
        who_rows = min(who_rows, rows - len(others) - _MIN_FAILURE_ROWS)
        rows -= len(others)
    failure_rows = min(FAILURE_ROWS, rows - who_rows)
    return [
        *_who_panel(snapshot, width, who_rows, view),
        *others,
        blank(width),
        *failures_panel(snapshot, width, failure_rows, _key(view, Page.FAILURES)),
        *[blank(width)] * (rows - who_rows - failure_rows + 1),
        *age_panel(snapshot, width),
    ]


def _trimmed(line: CellLine) -> CellLine:
    """Return the line without trailing blanks, which the screen clears by itself."""
    kept = list(line)
    while kept:
        last = kept.pop()
        text = last.text.rstrip(" ")
        if text:
            return [*kept, Segment(text, last.style)]
    return kept
