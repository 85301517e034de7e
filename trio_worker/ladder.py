"""Trio. The ladder of signals: the first drains, the second hurries, the third ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import NoReturn

# What a shell reports for a process that a signal ended: 128 and its number.
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


async def climb(
    signals: AsyncIterator[int],
    drain: Callable[[str], object],
    hurry: Callable[[], object],
    leave_at_once: Callable[[], object],
) -> None:
    """Obey the signals that `trio.open_signal_receiver` gives, for ever.

    ``drain`` is called with the name of the signal. ``leave_at_once`` must be quick: it puts the terminal right before
    the third signal ends the process with 130 or 143. Leases make that safe: other workers take over what was in hand.
    """
    climbed = 0
    async for number in signals:
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
