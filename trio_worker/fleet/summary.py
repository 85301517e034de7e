"""Pure. The figures of all workers at one moment, from their heartbeats: a snapshot like that of one worker.

Counts of jobs and rates are the queue's own, so they hold whichever worker sent; times, causes and jobs in flight are
the sums of the last heartbeats.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from attrs import evolve, field

from trio_worker.queue.history import MINUTE_SECONDS, MinuteSample
from trio_worker.records import define, frozen
from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.telemetry.growth import OUTCOMES_KEPT, RATE_SECONDS, SLOPE_SECONDS, SPARK_SECONDS, heading
from trio_worker.telemetry.heartbeat import Heartbeat, Rates, Suspended, Vitals, WorkerSeen, summed_causes
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.quantiles import added
from trio_worker.telemetry.snapshot import Scope, Snapshot
from trio_worker.worker.breaker import Closed
from trio_worker.worker.phase import Disposition, Phase
from trio_worker.worker.queue_seen import QueueSeen

if TYPE_CHECKING:
    from trio_worker.telemetry.feed import FeedOutcome


@frozen
class QueueTotals:
    """What a poll counted; ``at`` in epoch seconds, totals since the queue began."""

    at: float
    popped: int
    sent: int
    delays: int
    deaths: int
    waiting: int

    @property
    def pushed(self) -> int:
        """Jobs ever pushed: taken from the list or still in it."""
        return self.popped + self.waiting


@define
class Fleet:
    """Polls of the queue and its workers come in, snapshots of all workers go out."""

    queue_name: str
    redis_name: str
    _polls: deque[tuple[QueueTotals, QueueSeen]] = field(factory=deque)
    _workers: tuple[WorkerSeen, ...] = ()
    _latest: deque[FeedOutcome] = field(factory=lambda: deque(maxlen=OUTCOMES_KEPT))
    _polled_at: float | None = None
    _failing: tuple[float, str] | None = None
    _recoveries: int = 0
    _redis_seconds: float | None = None
    _write_refusal: str = ""
    _login_refusal: str = ""
    _growth: float | None = None
    _past: tuple[QueueTotals, ...] = ()  # of whole minutes before the first poll, oldest first

    def note_poll(
        self,
        totals: QueueTotals,
        seen: QueueSeen,
        workers: Iterable[WorkerSeen],
        now: float,
        redis_seconds: float,
        growth: float | None = None,
    ) -> None:
        """Add a poll that took ``redis_seconds``; ``now`` is a local clock that never goes back.

        ``growth`` (jobs per second) is that of the last minute, as the workers recorded it; it counts as long as there
        are too few polls.
        """
        if self._polls and totals.at <= self._polls[-1][0].at:
            self._past = ()
            self._polls.clear()  # Redis' clock went back, or another server answers
        self._polls.append((totals, seen))
        while totals.at - self._polls[0][0].at > SPARK_SECONDS:
            self._polls.popleft()
        self._workers = tuple(sorted(workers, key=lambda worker: worker.beat.worker))
        self._recoveries += self._failing is not None
        self._polled_at, self._failing, self._redis_seconds, self._growth = now, None, redis_seconds, growth

    def note_past(self, minutes: Iterable[MinuteSample]) -> None:
        """Take over what the workers recorded before the first poll, so that a chart begins with it."""
        if self._past or not self._polls:
            return
        first = self._polls[0][0].at
        ends = ((sample, (sample.minute + 1.0) * MINUTE_SECONDS) for sample in minutes)
        self._past = tuple(
            QueueTotals(at, sample.popped, sample.sent, sample.delays, sample.deaths, sample.waiting)
            for sample, at in ends
            if first - SPARK_SECONDS - MINUTE_SECONDS < at < first
        )

    def note_refusal(self, refusal: Unavailable | None) -> None:
        """Note why Redis refuses what workers write to show themselves; None if it does not.

        A missing permission is that of our login, and theirs may have it.
        """
        is_ours = refusal is not None and refusal.is_denied
        self._write_refusal = "" if refusal is None or is_ours else refusal.reason
        self._login_refusal = refusal.reason if refusal is not None and is_ours else ""

    def note_failure(self, what: str, now: float) -> None:
        """Note that a poll failed; the figures stay as they were, and say how old they are."""
        since = now if self._failing is None else self._failing[0]
        self._failing = (since, what)

    def note_outcomes(self, outcomes: Iterable[FeedOutcome]) -> None:
        """Add what became of jobs, oldest first."""
        self._latest.extend(outcomes)

    def snapshot(self, now: float, wall: float) -> Snapshot:
        """Return the figures at ``now``; ``wall`` is the time of day in epoch seconds."""
        age = 0.0 if self._polled_at is None else now - self._polled_at
        workers = tuple(evolve(worker, seen_seconds=worker.seen_seconds + age) for worker in self._workers)
        beats = [worker.beat for worker in workers if not worker.is_lost]
        phase, why = _phase_of(beats)
        if not beats and self._write_refusal:
            why = "Redis refuses what workers write"
        ledger = _ledger_of(beats)
        leased = self._polls[-1][1].leased if self._polls else 0
        return Snapshot(
            at=wall,
            phase=phase,
            phase_why=why,
            up_seconds=max((wall - beat.started_at for beat in beats), default=0.0),
            queue_name=self.queue_name,
            redis_name=self.redis_name,
            relay_name="",
            queue=self._polls[-1][1] if self._polls else None,
            queue_seen_seconds=None if self._polled_at is None else age,
            ledger=ledger,
            # Heartbeats are up to two seconds old: what is not leased any more is in nobody's hand.
            in_hand=min(leased, sum(beat.in_hand for beat in beats)),
            at_work=min(leased, sum(beat.at_work for beat in beats)),
            number_workers=sum(beat.number_workers for beat in _telling(beats)),
            rates=self._rates(beats),
            waiting_slope=self._slope(),
            spark_sent=self._spark(),
            wait=added(beat.wait for beat in beats).quantiles(),
            smtp=added(beat.smtp for beat in beats).quantiles(),
            total=added(beat.total for beat in beats).quantiles(),
            latency=added(beat.latency for beat in beats).quantiles(),
            idle_share=_idle_share(_telling(beats)),
            connections=(),
            max_connections=sum(beat.max_connections for beat in beats),
            breaker=Closed(),
            breaker_seconds=0.0,
            causes=summed_causes(beat.causes for beat in beats),
            latest=tuple(self._latest),
            write_refusal=self._write_refusal,
            login_refusal=self._login_refusal,
            redis_down_seconds=None if self._failing is None else now - self._failing[0],
            redis_trouble="" if self._failing is None else self._failing[1],
            journal_trouble="",
            grace_seconds_left=None,
            is_quiet=bool(beats) and all(beat.is_quiet for beat in beats),
            scope=Scope.FLEET,
            workers=workers,
            vitals=Vitals(redis_seconds=self._redis_seconds),
            redis_recoveries=self._recoveries,
            is_at_dead_limit=any(beat.is_at_dead_limit for beat in beats),
            suspended=_suspended(beats),
            depth_limit=next((beat.depth_limit for beat in beats if beat.depth_limit is not None), None),
            mails_in_flight=_at_most(leased, _mails_in_flight(beats)),
            busy_consumers=_at_most(leased, _busy_consumers(beats)),
            at_work_limit=sum(beat.at_work_limit for beat in beats),
        )

    def _rates(self, beats: Sequence[Heartbeat]) -> Rates:
        """Return the rates of the queue's totals; before these were seen for long, the sum of what the workers say.

        Claims are always what the workers say: the queue counts those of fresh jobs alone. What was sent within the
        moment between two polls, beside claims of the last ten seconds, would seem to disagree with them.
        """
        claimed = sum(beat.rates.claimed for beat in beats)
        last = self._polls[-1][0] if self._polls else None
        first = next((totals for totals, _ in self._polls if last and last.at - totals.at <= RATE_SECONDS), last)
        seconds = 0.0 if last is None or first is None else last.at - first.at
        if last is None or first is None or not seconds or (beats and seconds < RATE_SECONDS / 2):
            return Rates(
                claimed=claimed,
                sent=sum(beat.rates.sent for beat in beats),
                delayed=sum(beat.rates.delayed for beat in beats),
                dead=sum(beat.rates.dead for beat in beats),
            )
        return Rates(
            claimed=claimed,
            sent=max(0, last.sent - first.sent) / seconds,
            delayed=max(0, last.delays - first.delays) / seconds,
            dead=max(0, last.deaths - first.deaths) / seconds,
        )

    def _slope(self) -> float | None:
        if not self._polls:
            return None
        last = self._polls[-1][0].at
        points = [
            (totals.at - last, seen.waiting + seen.due)
            for totals, seen in self._polls
            if last - totals.at <= SLOPE_SECONDS
        ]
        slope = heading(points)
        return self._growth if slope is None else slope

    def _spark(self) -> tuple[int, ...]:
        """Return the mails sent in each second, oldest first; those between two polls are spread evenly."""
        sent = [0.0] * SPARK_SECONDS
        looks = [*self._past, *(totals for totals, _ in self._polls)]
        for before, after in pairwise(looks):
            span = after.at - before.at
            for ago in range(int(looks[-1].at - after.at), min(SPARK_SECONDS, int(looks[-1].at - before.at) + 1)):
                ends = looks[-1].at - ago
                shared = min(after.at, ends) - max(before.at, ends - 1)
                sent[SPARK_SECONDS - 1 - ago] += max(0, after.sent - before.sent) * max(0.0, shared) / span
        # The running sum is rounded, not each second: or few mails a minute would be none.
        sums = [round(each) for each in accumulate(sent, initial=0.0)]
        return tuple(after - before for before, after in pairwise(sums))


def _phase_of(beats: Sequence[Heartbeat]) -> tuple[Phase, str]:
    phases = {beat.phase for beat in beats}
    if not phases:
        return Phase.STOPPED, "no worker is heard"
    for phase in (Phase.RUNNING, Phase.STARTING, Phase.DRAINING):
        if phase in phases:
            return phase, next(beat.why for beat in beats if beat.phase is phase)
    return Phase.STOPPED, "no worker is heard"


def _ledger_of(beats: Sequence[Heartbeat]) -> Ledger:
    settled: Counter[Disposition] = Counter()
    for beat in beats:
        settled.update({d: beat.settled.get(str(d), 0) for d in Disposition})
    return Ledger(
        claimed=sum(beat.claimed for beat in beats),
        settled=settled,
        uncertain=sum(beat.uncertain for beat in beats),
        recovered=sum(beat.recovered for beat in beats),
        opened=sum(beat.opened for beat in beats),
        opening_seconds=sum(beat.opening_seconds for beat in beats),
    )


def _telling(beats: Sequence[Heartbeat]) -> Sequence[Heartbeat]:
    """Return the workers that have consumers; all, where none has: their version had other limits."""
    return [beat for beat in beats if beat.busy_consumers is not None] or beats


def _busy_consumers(beats: Sequence[Heartbeat]) -> int | None:
    known = [beat.busy_consumers for beat in beats if beat.busy_consumers is not None]
    return sum(known) if known or not beats else None


def _idle_share(beats: Sequence[Heartbeat]) -> float | None:
    known = [(beat.idle_share, beat.number_workers) for beat in beats if beat.idle_share is not None]
    consumers = sum(number for _, number in known)
    return sum(share * number for share, number in known) / consumers if consumers else None


def _mails_in_flight(beats: Sequence[Heartbeat]) -> int | None:
    known = [beat.mails_in_flight for beat in beats if beat.mails_in_flight is not None]
    return sum(known) if known or not beats else None


def _at_most(most: int, number: int | None) -> int | None:
    return None if number is None else min(most, number)


def _suspended(beats: Iterable[Heartbeat]) -> Suspended | None:
    """Return the suspended connections of all: in the words of the first, or of the first refused login."""
    found = [beat.suspended for beat in beats if beat.suspended is not None]
    if not found:
        return None
    first = next((each for each in found if each.how == FailureKind.LOGIN), found[0])
    return evolve(first, count=sum(each.count for each in found), until=max(each.until for each in found))
