"""Trio. The ladder of signals: the first drains, the second hurries, the third ends the process at once.

SIGHUP stands beside it: a terminal that is gone drains, and else somebody asks to read the login anew.
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
    ladder = (signal.SIGINT, signal.SIGTERM)
    return ladder if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*ladder, signal.SIGHUP)


async def climb(
    signals: AsyncIterator[int],
    drain: Callable[[str], object],
    hurry: Callable[[], object],
    leave_at_once: Callable[[], object],
    hang_up: Callable[[], object],
) -> None:
    """Obey the signals that `trio.open_signal_receiver` gives, for ever.

    ``drain`` is called with the name of the signal. ``leave_at_once`` must be quick: it puts the terminal right before
    the third signal ends the process with 130 or 143. Leases make that safe: other workers take over what was in hand.
    ``hang_up`` is called on each SIGHUP, which is no step of the ladder.
    """
    climbed = 0
    async for number in signals:
        if number == signal.SIGHUP:
            hang_up()
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
