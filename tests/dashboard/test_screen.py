"""The screen on real pseudo-terminals: what it writes, and that the terminal is given back however a process ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
import trio
import trio.testing
from attrs import define
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tests.support.paths import ROOT
from tests.support.screen import BEGIN_FRAME, END_FRAME, LEAVE, PATIENCE_SECONDS, TERMINAL, Window, frames_in
from tests.support.snapshot import busy
from trio_worker.dashboard.frame import Frame, render_frame
from trio_worker.dashboard.screen import open_screen

ENTER = b"\x1b[?1049h\x1b[H\x1b[?25l\x1b[m\x1b[?7l"


def lines_of(frame: bytes) -> list[str]:
    return [line.rstrip() for line in frame.decode().split("\r\n")]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What each single write to any file carried, in order."""
    written: list[bytes] = []
    write = os.write

    def write_noted(fd: int, octets: bytes) -> int:
        written.append(octets)
        return write(fd, octets)

    monkeypatch.setattr(os, "write", write_noted)
    return written


# --- drawing ----------------------------------------------------------------------------------------------------------


async def test_frame_is_one_synchronized_write(terminal: tuple[Window, TextIO], writes: list[bytes]) -> None:
    """A frame goes home and writes every cell of the window, in one write that is one synchronized update."""
    window, stream = terminal
    with open_screen(stream) as screen:
        await screen.draw(Text("one\ntwo"))
    seen = window.read_until(lambda seen: LEAVE in seen)
    lines = ["one", "two", *[""] * 22]
    frame = BEGIN_FRAME + "\r\n".join(line.ljust(80) for line in lines).encode() + END_FRAME

    assert writes == [ENTER, frame, LEAVE]
    assert seen == b"".join(writes)


async def test_live_view_has_no_thread_and_takes_no_stream(terminal: tuple[Window, TextIO]) -> None:
    """Frames are drawn when we ask for them, and what others print is theirs."""
    window, stream = terminal
    before = set(threading.enumerate())
    streams = (sys.stdout, sys.stderr)
    with open_screen(stream) as screen:
        await screen.draw(Text("drawn"))

        assert set(threading.enumerate()) <= before
        assert (sys.stdout, sys.stderr) == streams
    assert set(threading.enumerate()) <= before
    assert (sys.stdout, sys.stderr) == streams
    assert len(frames_in(window.read_until(lambda seen: LEAVE in seen))) == 1


async def test_frame_has_the_size_of_the_window(terminal: tuple[Window, TextIO]) -> None:
    """What is larger is cut and what is smaller filled, so that nothing of the last frame stays."""
    window, stream = terminal
    with open_screen(stream) as screen:
        for columns, lines in ((80, 24), (10, 3), (1, 1)):
            window.resize(columns, lines)
            await screen.draw(Text("\n".join(["x" * 20] * 5), no_wrap=True, overflow="crop"))
    first, second, third = frames_in(window.read_until(lambda seen: LEAVE in seen))

    assert first == b"\r\n".join([b"x" * 20 + b" " * 60] * 5 + [b" " * 80] * 19)
    assert second == b"\r\n".join([b"x" * 10] * 3)
    assert third == b"x"


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize(("columns", "lines"), [(40, 8), (60, 10), (80, 24), (160, 45)])
async def test_live_frame_is_the_frame_that_is_printed(
    terminal: tuple[Window, TextIO], columns: int, lines: int, *, color: bool
) -> None:
    """The live view adds nothing but blanks, up to the window's edges."""
    window, stream = terminal
    window.resize(columns, lines)
    with open_screen(stream, color=color) as screen:
        await screen.draw(Frame(busy()))
    (frame,) = frames_in(window.read_until(lambda seen: LEAVE in seen))
    printed = render_frame(busy(), columns, lines, color=color).split("\n")

    assert lines_of(frame) == printed + [""] * (lines - len(printed))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", frame.decode()).split("\r\n")
    assert [cell_len(line) for line in plain] == [columns] * lines


async def test_unchanged_frame_is_not_written(terminal: tuple[Window, TextIO]) -> None:
    """The same frame twice is written once, unless the window has changed, which may have spoilt it."""
    window, stream = terminal
    with open_screen(stream) as screen:
        await screen.draw(Text("same"))
        await screen.draw(Text("same"))
        window.resize(100, 30)
        await screen.draw(Text("same"))
    seen = window.read_until(lambda seen: LEAVE in seen)

    assert len(frames_in(seen)) == 2


async def test_terminal_that_stops_reading_stops_nothing_else(terminal: tuple[Window, TextIO]) -> None:
    """A full terminal blocks neither the loop nor the next frame, and never sees half a sequence."""
    window, stream = terminal
    window.resize(1000, 1000)
    large = Text("\n".join("x" * 1000 for _ in range(1000)))
    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.draw, large)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        window.resize(80, 24)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.draw, Text("small"))
            await trio.to_thread.run_sync(window.read_until, lambda seen: b"small" in seen)
    seen = window.read_until(lambda seen: LEAVE in seen)
    first, second = frames_in(seen)

    assert first == b"\r\n".join([b"x" * 1000] * 1000)
    assert lines_of(second) == ["small", *[""] * 23]


async def test_stopped_output_does_not_hold_up_the_end(terminal: tuple[Window, TextIO]) -> None:
    """A terminal stopped by Ctrl-S is left behind after half a second."""
    _window, stream = terminal
    with open_screen(stream) as screen:
        termios.tcflow(stream.fileno(), termios.TCOOFF)
        began = time.monotonic()
        screen.restore()
        took = time.monotonic() - began
        termios.tcflow(stream.fileno(), termios.TCOON)

    assert took < 5.0


async def test_terminal_that_is_gone_turns_the_screen_off(terminal: tuple[Window, TextIO]) -> None:
    """When the window is closed, drawing and restoring do nothing and raise nothing."""
    window, stream = terminal
    with open_screen(stream) as screen:
        os.close(window.fd)
        window.fd = -1
        await screen.draw(Text("to nobody"))
        await screen.draw(Text("to nobody again"))

        assert not screen.is_on
        assert screen.size() == (80, 24)


async def test_restoring_twice_writes_once(terminal: tuple[Window, TextIO]) -> None:
    """The way out may be taken by a signal and by the block: the terminal hears it once."""
    window, stream = terminal
    with open_screen(stream) as screen:
        screen.restore()
        screen.restore()
        await screen.draw(Text("too late"))
    stream.write("after")
    stream.flush()
    seen = window.read_until(lambda seen: b"after" in seen)

    assert seen.count(LEAVE) == 1
    assert seen.endswith(LEAVE + b"after")
    assert b"too late" not in seen


async def test_screen_is_taken_again(terminal: tuple[Window, TextIO]) -> None:
    """While it is suspended the terminal is as it was; then the same frame is drawn anew."""
    window, stream = terminal
    with open_screen(stream) as screen:
        await screen.draw(Text("same"))
        screen.suspend()
        await screen.draw(Text("to the shell"))
        stream.write("of the shell")
        stream.flush()
        screen.take()
        await screen.draw(Text("same"))
    seen = window.read_until(lambda seen: seen.count(LEAVE) == 2)
    first, second = frames_in(seen)

    assert seen.count(ENTER) == seen.count(LEAVE) == 2
    assert LEAVE + b"of the shell" + ENTER + BEGIN_FRAME in seen
    assert first == second


async def test_bug_in_a_frame_is_raised(terminal: tuple[Window, TextIO]) -> None:
    """Of a frame that cannot be drawn nothing is, and the terminal is given back."""

    class Buggy:
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            yield Text("begun")
            raise ZeroDivisionError

    window, stream = terminal
    with pytest.raises(ZeroDivisionError), open_screen(stream) as screen:
        await screen.draw(Buggy())

    assert window.read_until(lambda seen: LEAVE in seen) == ENTER + LEAVE


async def test_shared_terminal_stays_blocking(terminal: tuple[Window, TextIO]) -> None:
    """The programs that share the terminal, such as the shell, do not find it non-blocking."""
    _window, stream = terminal
    with open_screen(stream):
        assert os.get_blocking(stream.fileno())


async def test_size_of_a_terminal_that_does_not_know_it(terminal: tuple[Window, TextIO]) -> None:
    """A terminal of zero by zero is taken for one of 80x24."""
    window, stream = terminal
    window.resize(0, 0)
    with open_screen(stream) as screen:
        assert screen.size() == (80, 24)


async def test_signals_are_as_before(terminal: tuple[Window, TextIO]) -> None:
    """After the block every signal does what it did before it; handlers of others are never touched."""
    _window, stream = terminal
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)]
    with open_screen(stream):
        pass

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)] == before


# --- whole processes --------------------------------------------------------------------------------------------------

CHILD = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that a resize reaches this process as it would in a real window
import trio, trio.testing
from tests.support.snapshot import busy
from trio_worker.dashboard.live import Dashboard
from trio_worker.dashboard.screen import open_screen
from trio_worker.dashboard.view import View

{before}

async def main():
    with open_screen(sys.stdout) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Dashboard(busy, screen, view=View(every_seconds={every_seconds})).run)
            {then}

trio.run(main)
"""
WAIT = "await trio.sleep_forever()"
DRAWN = b"CONNECTIONS"


@define
class Child:
    """A process whose only terminal is the window."""

    process: subprocess.Popen[bytes]
    window: Window

    def end(self) -> tuple[int, bytes]:
        seen = self.window.read_to_end()
        return self.process.wait(PATIENCE_SECONDS), seen


@pytest.fixture
def start_child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(then: str = WAIT, before: str = "", every_seconds: float = 1000.0) -> Child:
        ours, theirs = pty.openpty()
        window = Window(ours)
        window.resize(80, 24)
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(before=before, then=then, every_seconds=every_seconds)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=tmp_path,  # SIGQUIT may leave a core file
            env=os.environ | TERMINAL | {"PYTHONPATH": str(ROOT)},
        )
        os.close(theirs)
        children.append(Child(process, window))
        return children[-1]

    yield start
    for child in children:
        child.process.kill()
        child.process.wait()
        os.close(child.window.fd)


StartChild = Callable[..., Child]


def test_resize_is_drawn_at_once(start_child: StartChild) -> None:
    """A new size of the window gives a new frame of that size, long before the next tick."""
    child = start_child()
    child.window.read_until(lambda seen: DRAWN in seen and END_FRAME in seen)
    child.window.resize(160, 45)
    seen = child.window.read_until(lambda seen: len(frames_in(seen)) >= 2)

    assert frames_in(seen)[0].count(b"\n") == 23
    assert frames_in(seen)[1].count(b"\n") == 44


def test_crash_restores_before_the_traceback(start_child: StartChild) -> None:
    """After a bug the normal screen is back: the whole traceback comes after the restore sequences."""
    then = "await trio.testing.wait_all_tasks_blocked(); raise ZeroDivisionError('the bug')"
    code, seen = start_child(then).end()

    assert code == 1
    assert seen.count(LEAVE) == 1
    after = seen.partition(LEAVE)[2]
    assert b"Traceback (most recent call last)" in after
    assert b"ZeroDivisionError: the bug" in after
    assert b"\x1b[?" not in after


def test_exit_restores(start_child: StartChild) -> None:
    """``sys.exit`` inside the screen leaves the terminal as it was."""
    code, seen = start_child("await trio.testing.wait_all_tasks_blocked(); sys.exit(78)").end()

    assert code != 0
    assert seen.count(LEAVE) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_deadly_signal_restores(start_child: StartChild, number: signal.Signals) -> None:
    """A signal without a handler still kills, but only after the terminal is restored."""
    child = start_child()
    child.window.read_until(lambda seen: DRAWN in seen and END_FRAME in seen)
    child.process.send_signal(number)
    code, seen = child.end()

    assert code == -number
    assert seen.endswith(LEAVE)
    assert seen.count(LEAVE) == 1


def test_deadly_signal_within_a_frame_restores(start_child: StartChild) -> None:
    """Where rich itself could not say how to leave, as it is in the midst of drawing."""
    within = """
from rich.text import Text

class Deadly:
    def __rich_console__(self, console, options):
        yield Text("begun")
        os.kill(os.getpid(), signal.SIGTERM)
        yield Text("never seen")
"""
    code, seen = start_child("await screen.draw(Deadly())", before=within).end()

    assert code == -signal.SIGTERM
    assert seen.startswith(ENTER)
    assert seen.endswith(LEAVE)
    assert b"begun" not in seen


def test_signal_with_a_handler_is_left_alone(start_child: StartChild) -> None:
    """A process that handles SIGTERM leaves by its own way, and the screen by the block's end."""
    child = start_child(before="signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))")
    child.window.read_until(lambda seen: DRAWN in seen and END_FRAME in seen)
    child.process.send_signal(signal.SIGTERM)
    code, seen = child.end()

    assert code > 0
    assert seen.count(LEAVE) == 1


def test_hard_exit_restores_when_asked(start_child: StartChild) -> None:
    """The way out of a third signal, which runs no cleanup, restores the screen by hand."""
    code, seen = start_child("await trio.testing.wait_all_tasks_blocked(); screen.restore(); os._exit(143)").end()

    assert code == 143
    assert seen.endswith(LEAVE)


def test_interrupt_restores(start_child: StartChild) -> None:
    """Ctrl-C in a process without handlers ends on the normal screen too."""
    child = start_child()
    child.window.read_until(lambda seen: DRAWN in seen and END_FRAME in seen)
    os.write(child.window.fd, b"\x03")
    _code, seen = child.end()

    assert seen.count(LEAVE) == 1
    assert b"KeyboardInterrupt" in seen.partition(LEAVE)[2]


def test_nameless_controlling_terminal_is_opened(start_child: StartChild) -> None:
    """After ``su`` the terminal belongs to another user: it is opened as the controlling terminal."""
    nameless = "def nameless(fd): raise PermissionError(13, 'not yours')\nos.ttyname = nameless"
    child = start_child(before=nameless)

    assert DRAWN in child.window.read_until(lambda seen: DRAWN in seen)
