"""Whether a terminal can show the dashboard, what it can show, and the lines of runs without one."""

from __future__ import annotations

import io
import os
from typing import TextIO

import pytest
import trio
import trio.testing

from tests.support.screen import TERMINAL, Window
from tests.support.snapshot import busy
from trio_worker.dashboard.screen import open_screen
from trio_worker.dashboard.terminal import has_color, is_ascii_only, is_live, run_status_lines


def test_dashboard_is_for_terminals_only(terminal: tuple[Window, TextIO]) -> None:
    """A pipe, a dumb or nameless terminal and a CI log get status lines."""
    _window, stream = terminal

    assert is_live(stream, TERMINAL)
    assert is_live(stream, {**TERMINAL, "CI": "false", "NO_COLOR": "1"})
    assert not is_live(stream, {**TERMINAL, "CI": "true"})
    assert not is_live(stream, {"TERM": "dumb"})
    assert not is_live(stream, {})
    assert not is_live(io.StringIO(), TERMINAL)


def test_looks_follow_the_terminal_and_the_wish() -> None:
    """ASCII where the encoding is not UTF-8, no colour where NO_COLOR says something."""
    latin, utf8 = (io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("iso-8859-1", "UTF-8"))
    assert is_ascii_only(latin, {})
    assert not is_ascii_only(utf8, {"LANG": "en_US.UTF-8"})
    assert not is_ascii_only(utf8, {"LC_ALL": "C.UTF-8", "LANG": "C"})
    assert is_ascii_only(utf8, {"LC_ALL": "C", "LANG": "en_US.UTF-8"})
    assert is_ascii_only(utf8, {"LC_ALL": "", "LANG": "POSIX"})
    assert is_ascii_only(utf8, {"LANG": "en_US.ISO-8859-1"})
    assert is_ascii_only(utf8, {"LANG": "de_DE.ISO-8859-15@euro"})
    assert not is_ascii_only(utf8, {"LANG": "de_DE.utf8@euro"})
    assert not is_ascii_only(utf8, {"LC_ALL": "C", "PYTHONIOENCODING": "utf-8"})
    assert is_ascii_only(latin, {"LANG": "en_US.UTF-8", "PYTHONIOENCODING": "latin-1"})
    assert is_ascii_only(utf8, {"LC_ALL": "C", "PYTHONIOENCODING": ":replace"})
    assert has_color({})
    assert has_color({"NO_COLOR": ""})
    assert not has_color({"NO_COLOR": "1"})


def test_terminal_that_cannot_be_opened_is_not_live(
    terminal: tuple[Window, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal without a name that is not ours either gets status lines, as writing to it might block."""
    _window, stream = terminal

    def nameless(_fd: int) -> str:
        raise OSError("no name")

    monkeypatch.setattr(os, "ttyname", nameless)

    assert not is_live(stream, TERMINAL)
    with pytest.raises(OSError, match="a second time"), open_screen(stream):
        pass


async def test_status_lines_come_every_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    """The first line is written at once, the others at every tenth second."""
    start = trio.current_time()
    written: list[tuple[float, str]] = []

    def write(line: str) -> None:
        written.append((trio.current_time() - start, line))

    with trio.move_on_after(25):
        await run_status_lines(busy, write)

    assert [at for at, _ in written] == pytest.approx([0, 10, 20])
    assert written[0][1].startswith("12:04:31Z running  waiting 12,431")
