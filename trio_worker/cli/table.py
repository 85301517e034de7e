"""Edge. Tables that fit the terminal: columns are as wide as their contents, and what has no room is cut or left out.

A file or a pipe gets every column in full.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from unicodedata import east_asian_width

from trio_worker.printing import say, visible
from trio_worker.records import frozen

_GAP = "  "


@frozen
class TableColumn:
    """One column: its heading, and what may happen to it where the terminal is too narrow.

    ``cut_to`` is the width to which it may be cut; None if it may not. A spare column may be left out altogether.
    """

    head: str
    is_right: bool = False
    cut_to: int | None = None
    is_spare: bool = False


def terminal_width() -> int | None:
    """Return the number of columns of the terminal that standard output goes to; None if it is no terminal."""
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):  # a stream without a descriptor has no size
        return None


def print_table(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]]) -> None:
    """Print headings and rows; each row has a text for each column."""
    for line in table_lines(columns, rows, terminal_width()):
        say(line)


def table_lines(columns: Sequence[TableColumn], rows: Sequence[Sequence[str]], room: int | None) -> list[str]:
    """Return the lines of a table at most ``room`` cells wide, if its columns allow it."""
    cells = [[visible(text) for text in row] for row in ([column.head for column in columns], *rows)]
    natural = [max(cells_of(row[place]) for row in cells) for place in range(len(columns))]
    kept = list(range(len(columns)))
    while True:
        widths = _fitted([columns[place] for place in kept], [natural[place] for place in kept], room)
        spare = [place for place in kept if columns[place].is_spare]
        if room is None or not spare or _total(widths) <= room:
            break
        kept.remove(spare[-1])
    return [
        _GAP.join(
            _cell(row[place], width, is_right=columns[place].is_right)
            for place, width in zip(kept, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def wrapped(text: str, indent: str = "") -> list[str]:
    """Return a text in lines that begin with ``indent``, broken between words if the terminal is too narrow for it."""
    width = terminal_width()
    if width is None or len(indent) + cells_of(text) <= width:
        return [f"{indent}{text}"]
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False)


def cells_of(text: str) -> int:
    """Return the number of cells of a visible text: two for each wide character (Unicode annex 11)."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def ellipsized(text: str, width: int) -> str:
    """Return text of at most ``width`` cells; a longer one ends with an ellipsis."""
    if cells_of(text) <= width:
        return text
    kept = text[: width - 1]
    while kept and cells_of(kept) >= width:
        kept = kept[:-1]
    return f"{kept}…"


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _fitted(columns: Sequence[TableColumn], natural: Sequence[int], room: int | None) -> list[int]:
    """Return the widths: the natural ones, or less where a column may be cut, the widest first."""
    widths = list(natural)
    excess = 0 if room is None else _total(widths) - room
    for _ in range(max(0, excess)):
        may_shrink = [
            place
            for place, column in enumerate(columns)
            if column.cut_to is not None and widths[place] > max(column.cut_to, 1)
        ]
        if not may_shrink:
            break
        widths[max(may_shrink, key=lambda place: widths[place])] -= 1
    return widths


def _cell(text: str, width: int, *, is_right: bool) -> str:
    shown = ellipsized(text, width)
    blanks = " " * (width - cells_of(shown))
    return blanks + shown if is_right else shown + blanks
