"""Trio. The ladder of signals: the first drains, the second hurries, the third ends the process at once.

Beside it stand SIGHUP (a terminal that is gone drains; else somebody asks to read the login anew), SIGUSR1 (show what
goes on) and SIGUSR2 (claim nothing more and stay; again: claim).
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import NoReturn

# What a shell reports for a process that a signal ended: 128 and its number.
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def signals_to_obey() -> tuple[signal.Signals, ...]:
    """Return the signals to open the receiver for: without SIGHUP where it is ignored, as under nohup."""
    ladder = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    return ladder if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*ladder, signal.SIGHUP)


async def climb(
    signals: AsyncIterator[int],
    drain: Callable[[str], object],
    hurry: Callable[[], object],
    leave_at_once: Callable[[], object],
    hang_up: Callable[[], object],
    show_state: Callable[[], object],
    toggle_quiet: Callable[[], object],
) -> None:
    """Obey the signals that `trio.open_signal_receiver` gives, for ever.

    ``drain`` is called with the name of the signal. ``leave_at_once`` must be quick: it puts the terminal right before
    the third signal ends the process with 130 or 143. Leases make that safe: other workers take over what was in hand.
    ``hang_up``, ``show_state`` and ``toggle_quiet`` are called on each SIGHUP, SIGUSR1 and SIGUSR2, which are no steps
    of the ladder.
    """
    climbed = 0
    async for number in signals:
        beside = {signal.SIGHUP: hang_up, signal.SIGUSR1: show_state, signal.SIGUSR2: toggle_quiet}
        if number in beside:
            beside[signal.Signals(number)]()
            continue
        climbed += 1
        if climbed == 1:
            drain(signal.Signals(number).name)
        elif climbed == 2:
            hurry()
        else:
            leave_at_once()
            _end_process(number)


def _end_process(number: int) -> NoReturn:
    os._exit(_EXIT_CODES.get(signal.Signals(number), 1))
