"""The screen on real pseudo-terminals: what it writes, and that the terminal is given back however a process ends."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import pytest
import trio
import trio.testing
from attrs import define, evolve
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tests.support.paths import ROOT
from tests.support.snapshot import busy
from trio_worker.dashboard.frame import Frame, render_frame
from trio_worker.dashboard.live import Dashboard
from trio_worker.dashboard.screen import open_screen
from trio_worker.dashboard.terminal import has_color, is_ascii_only, is_live, run_status_lines
from trio_worker.dashboard.view import View
from trio_worker.telemetry.snapshot import Snapshot

PATIENCE_SECONDS = 60.0
ENTER = b"\x1b[?1049h\x1b[H\x1b[?25l\x1b[m\x1b[?7l"
LEAVE = b"\x1b[?2026l\x1b[m\x1b[?7h\x1b[?1049l\x1b[?25h"
BEGIN_FRAME, END_FRAME = b"\x1b[?2026h\x1b[H", b"\x1b[?2026l"
TERMINAL = {"TERM": "xterm-256color"}


@define
class Window:
    """The other side of a terminal: what a terminal emulator reads, and how large its window is."""

    fd: int
    seen: bytes = b""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, is_enough: Callable[[bytes], bool]) -> bytes:
        """Read on until what was seen is enough, or the terminal is closed; return all that was seen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_enough(self.seen):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.seen[-500:]
            try:
                octets = os.read(self.fd, 65536)
            except OSError:
                return self.seen  # EIO: every program has closed its side
            if not octets:
                return self.seen
            self.seen += octets
        return self.seen

    def read_to_end(self) -> bytes:
        return self.read_until(lambda _: False)


@pytest.fixture
def terminal() -> Iterator[tuple[Window, TextIO]]:
    """A window of 80x24 and the stream that a program in it writes to, raw so that bytes arrive as written."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    window = Window(ours)
    window.resize(80, 24)
    stream = os.fdopen(theirs, "w", encoding="utf-8")
    yield window, stream
    stream.close()
    if window.fd >= 0:
        os.close(window.fd)


def frames_in(seen: bytes) -> list[bytes]:
    # The way out ends a frame too, one that was not whole.
    parts = seen.replace(LEAVE, b"").split(BEGIN_FRAME)[1:]
    return [part.split(END_FRAME)[0] for part in parts if END_FRAME in part]


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
    """When the window is closed, drawing and restoring do nothing, and nobody hears of it."""
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


# --- whether to draw at all -------------------------------------------------------------------------------------------


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


# --- the loops --------------------------------------------------------------------------------------------------------


async def test_dashboard_draws_on_and_on(terminal: tuple[Window, TextIO]) -> None:
    """Every tick takes a snapshot and draws it; a slow terminal misses some, and sees none twice."""
    window, stream = terminal
    full = busy()
    taken = 0

    def take_snapshot() -> Snapshot:
        nonlocal taken
        taken += 1
        return evolve(full, at=full.at + taken)

    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Dashboard(take_snapshot, screen, view=View(every_seconds=0.02)).run)
            await trio.to_thread.run_sync(window.read_until, lambda seen: len(frames_in(seen)) >= 3)
            nursery.cancel_scope.cancel()

    found = [re.search(rb"12:04:(\d\d)Z", frame) for frame in frames_in(window.seen)]
    seconds = [int(each[1]) for each in found if each is not None]
    assert len(seconds) >= 3
    assert seconds[0] >= 32
    assert all(before < after for before, after in pairwise(seconds))


async def test_dashboard_tells_what_no_key_asked_for(terminal: tuple[Window, TextIO]) -> None:
    """It stands on the bottom line at once, and goes by itself."""
    window, stream = terminal
    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        dashboard = Dashboard(busy, screen, view=View(every_seconds=0.02))
        dashboard.tell("the state is in state-7.txt")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dashboard.run)
            await trio.to_thread.run_sync(window.read_until, lambda seen: len(frames_in(seen)) >= 1)
            dashboard._told_until = trio.current_time()
            while dashboard.view.notice:
                await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()

    assert b"the state is in state-7.txt" in frames_in(window.seen)[0]


async def test_dashboard_without_a_terminal_waits(terminal: tuple[Window, TextIO]) -> None:
    """When the terminal is gone no more snapshots are taken, and the task goes on until it is cancelled."""
    _window, stream = terminal
    with trio.fail_after(PATIENCE_SECONDS), open_screen(stream) as screen:
        screen.is_on = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Dashboard(busy, screen, view=View(every_seconds=1000.0)).run)
            await trio.testing.wait_all_tasks_blocked()

            assert nursery.child_tasks
            nursery.cancel_scope.cancel()


async def test_failing_snapshot_is_raised(terminal: tuple[Window, TextIO]) -> None:
    """A bug in a snapshot is not hidden by the screen."""
    _window, stream = terminal

    def fail() -> Snapshot:
        raise ZeroDivisionError

    with open_screen(stream) as screen, pytest.raises(ExceptionGroup) as raised:
        await Dashboard(fail, screen).run()
    assert raised.group_contains(ZeroDivisionError)


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
    """A bug ends on the normal screen: the traceback stands after the restore sequences, whole."""
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
    """A signal that nobody handles still kills, but not before the terminal is restored."""
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
    """After ``su`` the terminal belongs to somebody else: it is opened as the controlling terminal."""
    nameless = "def nameless(fd): raise PermissionError(13, 'not yours')\nos.ttyname = nameless"
    child = start_child(before=nameless)

    assert DRAWN in child.window.read_until(lambda seen: DRAWN in seen)
