"""Trio. Where a run shows itself: a live dashboard on a terminal, else lines on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trio_worker.dashboard.status_line import status_line
from trio_worker.dashboard.terminal import has_color, is_ascii_only, is_live, run_status_lines
from trio_worker.fleet.report import Reporter
from trio_worker.own_files import replace_own_file
from trio_worker.printing import complain, say, visible_text
from trio_worker.records import define

if TYPE_CHECKING:
    from trio_worker.dashboard.keyboard import Keyboard
    from trio_worker.dashboard.live import Dashboard
    from trio_worker.dashboard.screen import Screen


@define(eq=False)
class Display:
    """The dashboard of a run where ``is_screen``, else its lines; made by `display_for`, opened for one worker."""

    is_screen: bool
    only_ascii: bool
    _screen: Screen | None = None
    _keyboard: Keyboard | None = None
    _dashboard: Dashboard | None = None

    @contextmanager
    def open(self, reporter: Reporter) -> Iterator[None]:
        """Take the terminal for the block; afterwards it is as before, and the last figures are printed."""
        if not self.is_screen:
            yield
            print_line(status_line(reporter.snapshot()))
            return
        # Imported here: the modules that draw cost a twentieth of the start, and a service has no screen.
        from trio_worker.cli.run_screen import dashboard_of  # noqa: PLC0415
        from trio_worker.dashboard.keyboard import open_keyboard  # noqa: PLC0415
        from trio_worker.dashboard.screen import open_screen  # noqa: PLC0415

        with open_keyboard() as self._keyboard, open_screen(sys.stdout, color=has_color(os.environ)) as self._screen:
            self._dashboard = dashboard_of(reporter, self._screen, self._keyboard, only_ascii=self.only_ascii)
            yield

    async def run(self, reporter: Reporter) -> None:
        """Show the figures of an opened display again and again, until cancelled."""
        if self._dashboard is None:
            await run_status_lines(reporter.snapshot, print_line)
        else:
            await self._dashboard.run()

    def say(self, *lines: str) -> None:
        """Print lines; where there is a screen they would tear it, and are left out."""
        if not self.is_screen:
            for line in lines:
                print_line(line)

    def show_report(self, report: str, folder: Path) -> None:
        """Print some lines to standard error; where a screen is drawn on it, write them to a file in ``folder``."""
        if self._screen is None or not self._screen.is_on:
            complain(*report.splitlines())
            return
        path = folder / f"state-{os.getpid()}.txt"
        try:
            replace_own_file(path, f"{visible_text(report)}\n".encode())
        except OSError as error:
            self._note(f"SIGUSR1: cannot write {path}: {error.strerror}")
        else:
            self._note(f"SIGUSR1: state and tasks are in {path}")

    def restore_terminal(self) -> None:
        """Put the terminal back as it was, at once: the process is about to end."""
        if self._screen is not None:
            self._screen.restore()
        if self._keyboard is not None:
            self._keyboard.give_back()

    def _note(self, line: str) -> None:
        if self._dashboard is not None:
            self._dashboard.show_notice(line)


def display_for(*, shows_dashboard: bool, only_ascii: bool) -> Display:
    """Return the display that standard output is fit for."""
    return Display(
        is_screen=shows_dashboard and is_live(sys.stdout, os.environ),
        only_ascii=only_ascii or is_ascii_only(sys.stdout, os.environ),
    )


def print_line(line: str) -> None:
    """Print a line; if the reader of standard output has gone, discard it and all later output."""
    try:
        say(line, flush=True)
    except OSError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open to the end
