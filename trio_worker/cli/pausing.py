"""Trio. Pauses and resumes the queue for a key of a dashboard, and returns the notice that the dashboard shows.

A separate module, because `run` and `top` share it and must not load each other.
"""

from __future__ import annotations

from trio_worker.cli.audit_log import user_name
from trio_worker.queue.pause import PAUSE_SECONDS, pause_queue, resume_queue
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.telemetry.number_words import duration


async def pause_by_key(client: RedisCalls, name: str, reason: str) -> str:
    """Pause the queue for the default time; return the notice."""
    failed = await pause_queue(client, name, reason, user_name())
    return f"not paused: {failed.reason}" if failed else f"paused for {duration(PAUSE_SECONDS)}; p resumes"


async def resume_by_key(client: RedisCalls, name: str) -> str:
    """End the pause of the queue; return the notice."""
    was_paused = await resume_queue(client, name)
    if isinstance(was_paused, Unavailable):
        return f"not resumed: {was_paused.reason}"
    return "resumed" if was_paused else "the queue was not paused"
