"""Trio. Signals: the first SIGINT or SIGTERM drains, the second hurries, the third ends the process at once.

Beside these stand SIGHUP (drain where the terminal is gone, else read the settings again), SIGUSR1 (show the state) and
SIGUSR2 (claim nothing more and stay; again: claim).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from typing import NoReturn, Protocol

# What a shell reports for a process that a signal ended: 128 and its number.
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def handled_signals() -> tuple[signal.Signals, ...]:
    """Return the signals to open the receiver for: without SIGHUP where it is ignored, as under nohup."""
    ladder = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    return ladder if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*ladder, signal.SIGHUP)


class SignalTarget(Protocol):
    """What signals act on: one run of the command `run`. None of it may await or raise."""

    def drain(self, why: str) -> object:
        """Claim nothing more and finish what is in flight: the first SIGTERM or SIGINT, which ``why`` names."""

    def hurry(self) -> object:
        """Shorten the grace: the second one."""

    def leave(self) -> object:
        """Put the terminal right, at once, for the process ends: the third one."""

    def hang_up(self) -> object:
        """Drain where the terminal is gone, else read the settings again: SIGHUP."""

    def show_state(self) -> object:
        """Print the worker's state and its tasks: SIGUSR1."""

    def toggle_quiet(self) -> object:
        """Claim nothing more and stay, or claim again: SIGUSR2."""


async def handle_signals(signals: AsyncIterator[int], target: SignalTarget) -> None:
    """Have the signals that `trio.open_signal_receiver` gives act on ``target``, until cancelled.

    The third SIGINT or SIGTERM ends the process with 130 or 143. Leases make that safe: other workers take over the
    jobs in flight. SIGHUP, SIGUSR1 and SIGUSR2 are no steps of that ladder.
    """
    steps = 0
    async for number in signals:
        match number:
            case signal.SIGHUP:
                target.hang_up()
            case signal.SIGUSR1:
                target.show_state()
            case signal.SIGUSR2:
                target.toggle_quiet()
            case _:
                steps += 1
                if steps == 1:
                    target.drain(signal.Signals(number).name)
                elif steps == 2:
                    target.hurry()
                else:
                    target.leave()
                    _end_process(number)


def _end_process(number: int) -> NoReturn:
    os._exit(_EXIT_CODES.get(signal.Signals(number), 1))
