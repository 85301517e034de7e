"""Edge. Polls a queue: its counts, all heartbeats, the minutes of the past day.

Counts are read at each poll, ages sampled every 5 s, the server's INFO read every 10 s.

All of it is one round trip whatever the queue holds, and constant work for Redis; no key is ever searched for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from time import monotonic

from attrs import evolve

from trio_worker.jobs.date_time import read_enqueued_at
from trio_worker.queue.ages import SAMPLES, AgeBars, bars_of
from trio_worker.queue.counts import Counts, counts_of
from trio_worker.queue.history import MinuteSample, PushMark, marks_of, pushed_at, read_mark, read_sample
from trio_worker.queue.keys import keys_of
from trio_worker.queue.losses import LostData, read_losses
from trio_worker.records import define, frozen
from trio_worker.redis.calls import RedisAnswer, RedisCalls, ScriptCall, Unavailable
from trio_worker.redis.server import ServerState, info_fields, read_server_state
from trio_worker.telemetry.heartbeat import WorkerSeen, read_heartbeat
from trio_worker.worker.queue_seen import QueueSeen

# Enough for the last hour and the minute before it; the default of a poll.
HOUR_MINUTES = 61
DAY_MINUTES = 1440
# A head that is longer is not worth its way every second: its age is estimated then.
MAX_HEAD_BYTES = 16_384
AGES_POLL_SECONDS = 5.0
INFO_POLL_SECONDS = 10.0
# Two hundred jobs are far less, unless they carry attachments: these are not dated then.
MAX_SAMPLED_BYTES = 262_144


@frozen
class Overview:
    """One consistent poll; ``unreadable`` counts heartbeats of other versions that this one cannot read.

    ``oldest_seconds`` is the age of the head of the list, None for an empty list or one that nothing dates;
    ``is_estimate`` unless its producer dated it.
    """

    counts: Counts
    workers: tuple[WorkerSeen, ...]
    minutes: tuple[MinuteSample, ...]  # oldest first; minutes in which no worker ran are missing
    oldest_seconds: float | None
    is_estimate: bool
    unreadable: int
    marks: tuple[PushMark, ...] = ()  # by which a place in the list is dated, oldest first
    ages: AgeBars | None = None  # only from a close poll; some seconds old
    server: ServerState | None = None  # the same
    losses: tuple[LostData, ...] = ()  # of data, in the last day


async def read_overview(client: RedisCalls, name: str, minutes: int = HOUR_MINUTES) -> Overview | Unavailable:
    """Read the queue and its workers; writes nothing."""
    answers = await client.run_scripts(keys_of(name), overview_calls(minutes))
    return answers if isinstance(answers, Unavailable) else overview_of(answers, minutes)


def overview_calls(minutes: int) -> Sequence[tuple[str, Sequence[int]]]:
    """Return the scripts whose answers `overview_of` reads."""
    return [("inspect", ()), ("overview", (minutes, MAX_HEAD_BYTES))]


def overview_of(answers: Sequence[RedisAnswer], minutes: int) -> Overview:
    """Read the answers to `overview_calls`."""
    counts = counts_of(answers[0])
    now, seen, samples, head, fine, lost = answers[1]
    workers = [_worker(each, int(now)) for each in seen]
    past = sorted(filter(None, map(read_sample, samples)), key=lambda sample: sample.minute)
    # A ring holds what was written a day ago where nothing was written since.
    recent = tuple(sample for sample in past if sample.minute > int(now) // 60_000 - minutes)
    marks = marks_of(recent, list(filter(None, map(read_mark, fine))), PushMark(counts.at, counts.pushed))
    oldest_seconds, is_estimate = _oldest(counts, head, marks)
    return Overview(
        counts=counts,
        workers=tuple(worker for worker in workers if worker is not None),
        minutes=recent,
        oldest_seconds=oldest_seconds,
        is_estimate=is_estimate,
        unreadable=sum(worker is None for worker in workers),
        marks=marks,
        losses=read_losses(lost, int(now) / 1000),
    )


def queue_seen(overview: Overview, poll_seconds: float) -> QueueSeen:
    """Return what a look that took so long tells of the queue."""
    counts = overview.counts
    return QueueSeen(
        waiting=counts.waiting,
        delayed=counts.delayed,
        leased=counts.leased,
        held=counts.held,
        dead=counts.dead,
        due=counts.due,
        oldest_seconds=overview.oldest_seconds,
        is_estimate=overview.is_estimate,
        paused=counts.paused,
        pause_seconds_left=counts.pause_seconds_left,
        next_due_seconds=None if counts.next_due_at is None else counts.next_due_at - counts.at,
        poll_seconds=poll_seconds,
        operator_counts=counts.operator_counts,
        ages=overview.ages,
        server=overview.server,
        losses=overview.losses,
    )


def _worker(seen: RedisAnswer, now_ms: int) -> WorkerSeen | None:
    _name, at_ms, wire = seen
    beat = read_heartbeat(wire)
    # One from the future was sent before Redis' clock was set back, and is no sign of life either.
    return None if beat is None else WorkerSeen(beat, abs(now_ms - float(at_ms)) / 1000)


def _oldest(counts: Counts, head: bytes, marks: Sequence[PushMark]) -> tuple[float | None, bool]:
    if not counts.waiting:
        return None, False
    said = read_enqueued_at(head) if head else None
    if said is not None:
        return max(0.0, counts.at - said), False
    at = pushed_at(marks, counts.popped + 1)
    return None if at is None else max(0.0, counts.at - at), True


@define(eq=False)
class OverviewPoller:
    """Polls one queue; ``is_close_up`` also samples ages and reads the server's INFO. ``clock`` gives local seconds."""

    client: RedisCalls
    queue_name: str
    is_close_up: bool = False
    clock: Callable[[], float] = monotonic
    _ages: Sequence[tuple[float | None, bool]] | None = None  # of the last sample, at which so many jobs waited
    _sampled_waiting: int = 0
    _server: ServerState | None = None
    _sampled_at: float = -inf
    _asked_at: float = -inf

    async def poll(
        self,
        minutes: int = HOUR_MINUTES,
        commands: Sequence[Sequence[bytes | str | float]] = (),
        first: Sequence[ScriptCall] = (),
    ) -> tuple[Overview, list[RedisAnswer]] | Unavailable:
        """Poll once; also return the answers to ``commands``, which run in the same round trip.

        So do the scripts ``first``, whose answers are left out.
        """
        now = self.clock()
        samples = self.is_close_up and now - self._sampled_at >= AGES_POLL_SECONDS
        asks = self.is_close_up and now - self._asked_at >= INFO_POLL_SECONDS
        calls: list[ScriptCall] = list(overview_calls(minutes))
        if samples:
            # Not the last one: that names the call in the metrics.
            calls.insert(0, ("ages", (MAX_SAMPLED_BYTES, *(figure for pair in SAMPLES for figure in pair))))
        calls = [*first, *calls]
        more = [*commands, *([("INFO",)] if asks else [])]
        answers = await self.client.run_scripts(keys_of(self.queue_name), calls, more, may_fail=int(asks))
        if isinstance(answers, Unavailable):
            return answers
        of_calls, rest = answers[len(first) : len(calls)], answers[len(calls) :]
        ages, seen = of_calls[: int(samples)], of_calls[int(samples) :]
        overview = overview_of(seen, minutes)
        if samples:
            self._ages, self._sampled_waiting = _sampled_ages(ages[0], overview), ages[0][0]
            self._sampled_at = now
        if asks:
            info, self._asked_at = rest.pop(), now
            # A hosted server may refuse it.
            self._server = None if info is None else read_server_state(info_fields(info))
        return evolve(overview, ages=self._bars(overview.counts.waiting), server=self._server), rest

    def _bars(self, waiting: int) -> AgeBars | None:
        """Return the sampled ages as bars of the jobs that wait now; None if none of them can have been sampled."""
        if not self.is_close_up or self._ages is None:
            return None
        if waiting and not self._sampled_waiting:
            # The next poll samples the list that was empty, however soon that is.
            self._sampled_at = -inf
            return None
        bars = bars_of(self._ages if waiting else (), waiting)
        return bars if bars.looked_at <= waiting else evolve(bars, looked_at=waiting, is_estimate=True)


def _sampled_ages(answer: RedisAnswer, overview: Overview) -> list[tuple[float | None, bool]]:
    _waiting, found = answer
    now, popped = overview.counts.at, overview.counts.popped
    ages: list[tuple[float | None, bool]] = []
    for place, raw in zip(found[::2], found[1::2], strict=True):
        said = read_enqueued_at(raw) if raw else None
        at = pushed_at(overview.marks, popped + place + 1) if said is None else said
        ages.append((None if at is None else max(0.0, now - at), said is None))
    return ages
