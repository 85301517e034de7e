"""Trio. Looking at a queue again and again: what changes slowly or costs more is asked more rarely, and kept between.

Every look is one round trip, whatever is asked in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import trio
from attrs import define, evolve

from trio_worker.fleet.overview import HOUR_MINUTES, Overview, overview_calls, overview_of
from trio_worker.jobs.job import read_enqueued_at
from trio_worker.queue.ages import SAMPLES, AgeBars, bars_of
from trio_worker.queue.history import pushed_at
from trio_worker.queue.keys import fleet_keys
from trio_worker.redis.client import Answer, RedisClient, Unavailable
from trio_worker.redis.server import ServerState, info_fields, read_server_state

SAMPLE_SECONDS = 5.0
SERVER_SECONDS = 10.0
# Two hundred jobs are far less, unless they carry attachments: these are not dated then.
MOST_SAMPLED_BYTES = 262_144


@define(eq=False)
class Lookout:
    """One who looks at a queue; ``is_close`` also samples ages and asks the server how it is."""

    client: RedisClient
    queue_name: str
    is_close: bool = False
    _ages: AgeBars | None = None
    _server: ServerState | None = None
    _sampled_at: float = -inf
    _asked_at: float = -inf

    async def look(
        self, minutes: int = HOUR_MINUTES, commands: Sequence[Sequence[bytes | str | float]] = ()
    ) -> tuple[Overview, list[Answer]] | Unavailable:
        """Look once; also return what ``commands``, run with it, answered."""
        now = trio.current_time()
        samples = self.is_close and now - self._sampled_at >= SAMPLE_SECONDS
        asks = self.is_close and now - self._asked_at >= SERVER_SECONDS
        calls = list(overview_calls(minutes))
        if samples:
            # Not the last one: that names the call in the metrics.
            calls.insert(0, ("ages", (MOST_SAMPLED_BYTES, *(figure for pair in SAMPLES for figure in pair))))
        more = [*commands, *([("INFO",)] if asks else [])]
        answers = await self.client.run_scripts(fleet_keys(self.queue_name), calls, more, may_fail=int(asks))
        if isinstance(answers, Unavailable):
            return answers
        ages, seen, rest = answers[: int(samples)], answers[int(samples) : len(calls)], answers[len(calls) :]
        overview = overview_of(seen, minutes)
        if samples:
            self._ages, self._sampled_at = _bars(ages[0], overview), now
        if asks:
            info, self._asked_at = rest.pop(), now
            # A hosted server may keep it to itself.
            self._server = None if info is None else read_server_state(info_fields(info))
        return evolve(overview, ages=self._ages, server=self._server), rest


def _bars(answer: Answer, overview: Overview) -> AgeBars:
    waiting, found = answer
    now, popped = overview.counts.at, overview.counts.popped
    ages: list[tuple[float | None, bool]] = []
    for place, raw in zip(found[::2], found[1::2], strict=True):
        said = read_enqueued_at(raw) if raw else None
        at = pushed_at(overview.marks, popped + place + 1) if said is None else said
        ages.append((None if at is None else max(0.0, now - at), said is None))
    return bars_of(ages, waiting)
