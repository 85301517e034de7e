"""Pure. Notices of a worker that works: of a Redis that lost data or refuses calls, of a relay that limits the rate."""

from __future__ import annotations

import time

from attrs import field

from trio_worker.privacy import mask_text
from trio_worker.records import define
from trio_worker.telemetry.log_line import LOSS_WORDS
from trio_worker.telemetry.notice import RATE_WORD, REFUSED_WORD, Notice
from trio_worker.worker.events import DataLost, Event, LossSign, RateLimited, RateLimitLifted, WaitTroubled

# How long a loss of data is shown. Nothing repairs it, and an operator must have the time to see it.
LOSS_SHOWN_SECONDS = 86_400.0


@define
class Notices:
    """The notices of one worker, from its events."""

    _losses: dict[LossSign, tuple[float, int]] = field(factory=dict)  # time of day of the last one, and their sum
    _wait_trouble: str = ""
    _rate_limit: RateLimited | None = None

    def note(self, event: Event, wall: float) -> None:
        """Add one event; ``wall`` is the time of day in epoch seconds."""
        match event:
            case DataLost(sign, count):
                at, before = self._losses.get(sign, (0.0, 0))
                self._losses[sign] = (wall, count + (before if wall - at < LOSS_SHOWN_SECONDS else 0))
            case WaitTroubled(why, polls):
                self._wait_trouble = why if polls else ""
            case RateLimited():
                self._rate_limit = event
            case RateLimitLifted():
                self._rate_limit = None
            case _:
                pass

    def at(self, wall: float) -> tuple[Notice, ...]:
        """Return the notices of this moment."""
        found = []
        for sign, (at, count) in sorted(self._losses.items()):
            if wall - at < LOSS_SHOWN_SECONDS:
                when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at))
                found.append(Notice("LOSS", f"Redis lost data, seen {when}: {LOSS_WORDS[sign]} ({count:,})"))
        if self._wait_trouble:
            text = f"jobs are looked for every second: {mask_text(self._wait_trouble)}"
            found.append(Notice("WAIT", text, is_severe=False))
        if self._rate_limit is not None:
            found.append(Notice(RATE_WORD, _rate_words(self._rate_limit), is_severe=False))
        return tuple(found)


def refusal(reason: str) -> Notice:
    """Return the notice for a heartbeat that arrives although the worker's other calls fail: Redis refuses them."""
    return Notice(REFUSED_WORD, f"Redis refuses what a worker needs, nothing is claimed: {mask_text(reason)}")


def _rate_words(limit: RateLimited) -> str:
    said = limit.trouble.reply or limit.trouble.reason
    return f"the relay limits the rate, about {limit.per_second:.1f} mails a second are sent: {mask_text(str(said))}"
