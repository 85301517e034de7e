"""Pure. Notices of a worker about a Redis that answers: it lost data, refuses calls, or does not let wait for jobs."""

from __future__ import annotations

import time

from attrs import define, field

from trio_worker.privacy import mask_text
from trio_worker.telemetry.log_line import LOSS_WORDS
from trio_worker.telemetry.notice import REFUSED_WORD, RedisNotice
from trio_worker.worker.events import DataLost, Event, LossSign, WaitTroubled

# How long a loss of data is shown. Nothing repairs it, and an operator must have the time to see it.
LOSS_SHOWN_SECONDS = 86_400.0


@define
class RedisNotices:
    """The notices of one worker, from its events."""

    _losses: dict[LossSign, tuple[float, int]] = field(factory=dict)  # time of day of the last one, and their sum
    _wait_trouble: str = ""

    def note(self, event: Event, wall: float) -> None:
        """Add one event; ``wall`` is the time of day in epoch seconds."""
        match event:
            case DataLost(sign, count):
                at, before = self._losses.get(sign, (0.0, 0))
                self._losses[sign] = (wall, count + (before if wall - at < LOSS_SHOWN_SECONDS else 0))
            case WaitTroubled(why, polls):
                self._wait_trouble = why if polls else ""
            case _:
                pass

    def at(self, wall: float) -> tuple[RedisNotice, ...]:
        """Return the notices of this moment."""
        found = []
        for sign, (at, count) in sorted(self._losses.items()):
            if wall - at < LOSS_SHOWN_SECONDS:
                when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
                found.append(RedisNotice("LOSS", f"Redis lost data, seen {when}: {LOSS_WORDS[sign]} ({count:,})"))
        if self._wait_trouble:
            text = f"jobs are looked for every second: {mask_text(self._wait_trouble)}"
            found.append(RedisNotice("WAIT", text, is_severe=False))
        return tuple(found)


def refusal(reason: str) -> RedisNotice:
    """Return the notice for a heartbeat that arrives although the worker's other calls fail: Redis refuses them."""
    return RedisNotice(REFUSED_WORD, f"Redis refuses what a worker needs, nothing is claimed: {mask_text(reason)}")
