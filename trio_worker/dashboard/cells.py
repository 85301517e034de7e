"""Edge. Text padded to an exact number of terminal cells, as rich segments; no I/O, awaits nothing.

A line that is one cell too wide would wrap and move all lines below it. So every width here is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TypeAlias

from rich.segment import Segment
from rich.style import Style

from trio_worker.dashboard.cell_text import cut, printable_cells, width_of
from trio_worker.records import frozen
from trio_worker.telemetry.number_words import count

CellLine: TypeAlias = list[Segment]

PLAIN = Style()
DIM = Style(dim=True)
BOLD = Style(bold=True)
CURSOR = Style(bold=True, reverse=True)
GOOD = Style(color="green")
CAUTION = Style(color="yellow")
TROUBLE = Style(color="red", bold=True)
CHART = Style(color="cyan", dim=True)


@frozen
class Column:
    """One column of a table of figures: the label above the value, both aligned right.

    A number is shortened to fit. ``sign`` is shown in the two cells after the value; ``minimum_width`` is counted in
    cells.
    """

    label: str
    value: int | str | None
    style: Style = PLAIN
    minimum_width: int = 0
    sign: str = ""


def cell(text: str, width: int, style: Style = PLAIN, *, is_right: bool = False) -> Segment:
    """Return text in exactly ``width`` cells."""
    fitted = cut(text, width)
    blank = " " * (width - width_of(fitted))
    return Segment(blank + fitted if is_right else fitted + blank, style)


def blank(width: int) -> CellLine:
    """Return an empty line."""
    return [Segment(" " * width, PLAIN)]


def row(cells: Iterable[Segment], width: int) -> CellLine:
    """Return a line of exactly ``width`` cells: texts with two blanks between them; the last ones are cut."""
    line: CellLine = []
    room = width
    for number, segment in enumerate(cells):
        text = ("  " if number else "") + segment.text
        size = width_of(text)
        if size > room:
            line.append(cell(text, room, segment.style or PLAIN))
            return line
        line.append(Segment(text, segment.style))
        room -= size
    if room > 0:
        line.append(Segment(" " * room, PLAIN))
    return line


def rule_room(title: str, width: int, note: str = "") -> int:
    """Return the number of cells for the ``aside`` of a rule, next to its title and its printable note."""
    return width - len(title) - 4 - (width_of(note) + 3 if note else 0)


def rule(title: str, width: int, aside: str = "", note: str = "", aside_style: Style = PLAIN) -> CellLine:
    """Return the first line of a panel: its title, an ``aside`` with figures, a rule, and a note of its scope."""
    room = rule_room(title, width)
    kept_note = note if width_of(printable_cells(aside)) <= rule_room(title, width, note) else ""
    kept_aside = cut(aside, room - (width_of(kept_note) + 1 if kept_note else 0))
    left = [Segment(title, BOLD)] + ([Segment("  " + kept_aside, aside_style)] if kept_aside else [])
    right = [Segment(" " + kept_note, DIM)] if kept_note else []
    used = sum(width_of(segment.text) for segment in (*left, *right))
    return [*left, Segment(" " + "─" * (width - used - 1), DIM), *right]


def table(columns: Sequence[Column], width: int) -> list[CellLine]:
    """Return two lines, labels above values; widths depend on labels and ``width`` only, so that nothing jumps."""
    minimums = [max(len(column.label), column.minimum_width) + 2 * bool(column.sign) for column in columns]
    share, rest = divmod(max(0, width - sum(minimums)), len(columns))
    sizes = [size + share + (place < rest) for place, size in enumerate(minimums)]
    pairs = list(zip(columns, sizes, strict=True))
    labels = [cell(column.label + "  " * bool(column.sign), size, DIM, is_right=True) for column, size in pairs]
    return [labels, [_value_cell(column, size) for column, size in pairs]]


def _value_cell(column: Column, width: int) -> Segment:
    room = width - 2 if column.sign else width
    text = column.value if isinstance(column.value, str) else count(column.value, room - 1)
    return cell(f"{text} {column.sign}" if column.sign else text, width, column.style, is_right=True)


def beside(
    left: Sequence[CellLine], right: Sequence[CellLine], left_width: int, right_width: int, gap: int
) -> list[CellLine]:
    """Return two blocks of lines side by side; the shorter block is filled with blanks."""
    pairs = zip_longest(left, right)
    return [[*(a or blank(left_width)), Segment(" " * gap, PLAIN), *(b or blank(right_width))] for a, b in pairs]


def chart(values: Sequence[int], width: int, height: int) -> list[str]:
    """Return the last ``width`` values as a bar chart of ``height`` lines, in eighths of a cell, scaled to fit."""
    shown = values[-width:] if width > 0 else ()
    most = max(shown, default=0)
    levels = [-(-value * 8 * height // most) if most else 0 for value in shown]
    lines = []
    for floor in range(8 * (height - 1), -1, -8):
        # The lowest line always has a bar, so that a second without mails shows as zero and not as missing.
        lowest = 1 if floor == 0 else 0
        lines.append("".join(" ▁▂▃▄▅▆▇█"[min(8, max(lowest, level - floor))] for level in levels).rjust(width))
    return lines
