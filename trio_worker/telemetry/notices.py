"""Pure. Notices of a worker that works: of a Redis that refuses calls, of a relay that limits the rate."""

from __future__ import annotations

from trio_worker.privacy import mask_text
from trio_worker.records import define
from trio_worker.telemetry.notice import RATE_WORD, REFUSED_WORD, Notice
from trio_worker.worker.events import Event, HeartbeatTroubled, RateLimited, RateLimitLifted, WaitTroubled


@define
class Notices:
    """The notices of one worker, from its events."""

    _wait_trouble: str = ""
    _heartbeat: HeartbeatTroubled | None = None
    _rate_limit: RateLimited | None = None

    def note(self, event: Event) -> None:
        """Add one event."""
        match event:
            case HeartbeatTroubled(why):
                self._heartbeat = event if why else None
            case WaitTroubled(why, polls):
                self._wait_trouble = why if polls else ""
            case RateLimited():
                self._rate_limit = event
            case RateLimitLifted():
                self._rate_limit = None
            case _:
                pass

    def now(self) -> tuple[Notice, ...]:
        """Return the notices of this moment."""
        found = []
        if self._heartbeat is not None:
            found.append(Notice("MUTE", heartbeat_words(self._heartbeat), is_severe=False))
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


def heartbeat_words(trouble: HeartbeatTroubled) -> str:
    """Return what follows for operators from a heartbeat that Redis refuses."""
    what = "no command can give it orders" if trouble.is_heard else "no command shows it, or gives it orders"
    return f"Redis refuses this worker its heartbeat, so {what}: {mask_text(trouble.why)}"
