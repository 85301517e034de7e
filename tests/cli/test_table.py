"""Tables: as wide as the terminal allows, and whole in a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.cli.table import TableColumn, cells_of, ellipsized, table_lines

COLUMNS = [
    TableColumn("count", is_right=True),
    TableColumn("cause", cut_to=8),
    TableColumn("memory", is_right=True, is_spare=True),
    TableColumn("id"),
]
ROWS = [
    ("1,204", "refused because of a long story", "71 MB", "01ks0000000000000001"),
    ("7", "expired", "9 MB", "01ks0000000000000002"),
]


def test_without_a_terminal_nothing_is_cut() -> None:
    """Columns are as wide as their longest text, and figures are aligned at the right."""
    assert table_lines(COLUMNS, ROWS, None) == [
        "count  cause                            memory  id",
        "1,204  refused because of a long story   71 MB  01ks0000000000000001",
        "    7  expired                            9 MB  01ks0000000000000002",
    ]


@pytest.mark.parametrize(
    ("room", "line"),
    [
        (60, "1,204  refused because of a l…   71 MB  01ks0000000000000001"),
        (44, "1,204  refused becaus…  01ks0000000000000001"),
        (20, "1,204  refused…  01ks0000000000000001"),
    ],
)
def test_a_narrow_terminal_gets_cut_texts_and_then_fewer_columns(room: int, line: str) -> None:
    """An id is never ellipsized, since nobody could use the rest of it."""
    assert table_lines(COLUMNS, ROWS, room)[1] == line


@given(st.lists(st.tuples(*[st.text(max_size=30)] * 4), max_size=5), st.integers(40, 200))
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str, str, str]], room: int) -> None:
    """Whatever the cells hold, if every column may be cut; a line break in a cell makes no second line."""
    columns = [TableColumn(head, cut_to=4) for head in ("a", "b", "c", "d")]

    lines = table_lines(columns, rows, room)

    assert len(lines) == len(rows) + 1
    assert all(cells_of(line) <= room for line in lines)
    assert not any("\n" in line or "\x1b" in line for line in lines)


def test_wide_characters_count_twice() -> None:
    """A terminal shows them in two cells."""
    assert cells_of("日本") == 4
    assert ellipsized("日本語", 5) == "日本…"
    assert ellipsized("日本語", 4) == "日…"
    assert ellipsized("abc", 3) == "abc"
