"""Trio. Whether this worker may claim: the circuit breaker and the pace of its relay, the operator's quiet, Redis."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

import trio
from attrs import evolve, field

from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Outcome, Refused, Trouble, Unopened
from trio_worker.worker.breaker import (
    Breaker,
    Closed,
    HalfOpen,
    Open,
    after_idle_probe,
    after_trouble,
    after_wait,
)
from trio_worker.worker.events import (
    BreakerChanged,
    Publish,
    RateLimited,
    RateLimitLifted,
    RedisFailed,
    RedisRecovered,
)
from trio_worker.worker.evidence import Attribution, Circumstances, Evidence, Judgement, judge
from trio_worker.worker.pace import MEASURED_SECONDS, Credit, RelayPace, is_forgotten, slowed
from trio_worker.worker.reply_rule import ReplyRule
from trio_worker.worker.verdict import relay_trouble

# Trouble that another refusal does not end: a relay whose quota is used up may still refuse an address for itself.
_ENDS_WITH_ACCEPTANCE = frozenset({FailureKind.US, FailureKind.STANDING, FailureKind.GUARD})


@define(eq=False)
class Gate:
    """Lets claims through while the breaker is closed, one job at a time while half open, none while open.

    ``guard`` and ``rules`` are the settings ``retry.guard`` and ``[[replies]]``. While the relay limits the rate of
    mails, claims go no faster than the `RelayPace` that its refusals have taught.
    """

    publish: Publish
    guard: int = 0
    rules: Sequence[ReplyRule] = ()
    dice: Callable[[], float] = field(default=random.random)
    breaker: Breaker = field(factory=Closed)
    is_quiet: bool = False  # an operator has stopped this worker from claiming
    pace: RelayPace | None = None  # None while the relay takes mails as fast as they come
    accepted: int = 0  # mails, since the start
    _evidence: Evidence = field(factory=Evidence)
    _credit: Credit = field(factory=lambda: Credit(1.0, 0.0))
    _samples: deque[tuple[float, int]] = field(factory=deque)  # of accepted mails, by the local clock
    _since: float | None = None  # the first trouble after the last mail that went through
    _changed: trio.Event = field(factory=trio.Event)

    @property
    def is_probing(self) -> bool:
        return isinstance(self.breaker, HalfOpen)

    def standing_trouble(self) -> Trouble | None:
        """Return the trouble of an open breaker; None while mails, or one as a probe, may go."""
        return self.breaker.trouble if isinstance(self.breaker, Open) else None

    @property
    def trouble(self) -> Trouble | None:
        """What the relay's trouble is; None while it works."""
        match self.breaker:
            case Closed():
                return None
            case Open(trouble=trouble) | HalfOpen(Open(trouble=trouble)):
                return trouble
            case _:
                assert_never(self.breaker)

    @property
    def troubled_seconds(self) -> float:
        """How long the relay has been in trouble; 0 while it works."""
        return 0.0 if self._since is None else trio.current_time() - self._since

    def note(self, outcome: Outcome, job_id: str = "", losses: int = 0) -> Judgement | None:
        """Learn from the outcome of one mail; an outcome that says nothing of the relay changes nothing.

        Returns whose matter a refusal is. ``losses`` is how often the mail has met the relay's trouble before.
        """
        if isinstance(outcome, Accepted):
            self.accepted += 1
            if not isinstance(self.breaker, Closed):
                self._change(Closed())
            return None
        if isinstance(outcome, Refused):
            return self._note_refusal(outcome, job_id, losses)
        trouble = relay_trouble(outcome)
        if trouble is not None:
            self.note_trouble(trouble)
        return None

    def note_trouble(self, trouble: Trouble) -> None:
        """Stop claims: the relay takes no mail, or none over the last connection that it leaves us."""
        self._change(after_trouble(self.breaker, trouble, trio.current_time(), self.dice()))

    def note_opening(self, trouble: Trouble) -> None:
        """Learn from a connection that could not be opened ahead of any mail; it may have been a due probe."""
        self._change(after_wait(self.breaker, trio.current_time()))
        self.note(Unopened(trouble))

    def probe_now(self) -> None:
        """Let a probe go at once: the cause of the trouble may just have been fixed."""
        if isinstance(self.breaker, Open):
            self._change(evolve(self.breaker, probe_at=trio.current_time()))

    def end_probe(self) -> None:
        """Note that the probe's job is settled; if that said nothing of the relay, another probe may go at once."""
        self._change(after_idle_probe(self.breaker, trio.current_time()))

    def set_quiet(self, *, is_quiet: bool) -> None:
        """Let no more claims through, or let them through again."""
        self.is_quiet = is_quiet
        self._announce()

    async def wait(self) -> None:
        """Wait until a claim may be made; if the breaker was open it is half open then."""
        self._sample()
        while (opens_at := self._opens_at()) > trio.current_time():
            with trio.move_on_at(opens_at):
                await self._changed.wait()
        self._change(after_wait(self.breaker, trio.current_time()))

    @property
    def limit(self) -> float:
        """How many jobs may be claimed now: one as a probe, what the pace allows, or any number."""
        if self.is_probing:
            return 1
        return math.inf if self.pace is None else max(1, int(self._credit.mails))

    def spend(self, mails: int) -> None:
        """Note that ``mails`` were claimed."""
        if self.pace is not None:
            self._credit = self._credit.spent(mails)

    def _opens_at(self) -> float:
        """Return when a claim may be made, unless something changes before (local clock); -inf for now."""
        if self.is_quiet:
            return math.inf
        if isinstance(self.breaker, Open):
            return self.breaker.probe_at
        if self.pace is None:
            return -math.inf
        now = trio.current_time()
        if is_forgotten(self.pace, now):
            self.pace = None
            self.publish(RateLimitLifted())
            return -math.inf
        self._credit = self._credit.grown(self.pace, now)
        missing = 1.0 - self._credit.mails
        # A little more than what is missing, so that rounding never makes this wait twice.
        return max(self.pace.since, now + (missing + 1e-6) / self.pace.per_second(now) if missing > 0 else -math.inf)

    def _sample(self) -> None:
        now, samples = trio.current_time(), self._samples
        samples.append((now, self.accepted))
        while samples[0][0] < now - MEASURED_SECONDS:
            samples.popleft()

    def _note_refusal(self, refused: Refused, job_id: str, losses: int) -> Judgement:
        around = Circumstances(self.accepted, isinstance(self.breaker, Closed), losses, self.guard, self.rules)
        judgement = judge(refused, job_id, self._evidence, around)
        self._evidence = judgement.evidence
        trouble = judgement.trouble
        if trouble is None:
            if judgement.attribution is Attribution.MAIL and not self._needs_acceptance:
                self._change(Closed())
        elif trouble.how is FailureKind.RATE:
            self._slow_down(trouble)
        elif trouble.how is not FailureKind.CONCURRENCY:  # that is for the pool, which may have a connection too many
            self.note_trouble(trouble)
        return judgement

    @property
    def _needs_acceptance(self) -> bool:
        trouble = self.trouble
        return trouble is not None and trouble.how in _ENDS_WITH_ACCEPTANCE

    def _slow_down(self, trouble: Trouble) -> None:
        now = trio.current_time()
        self._sample()
        began, accepted = self._samples[0]
        sent_per_second = (self.accepted - accepted) / max(MEASURED_SECONDS, now - began)
        pace = slowed(self.pace, trouble, now, sent_per_second, self.accepted)
        if pace is not self.pace:
            self.pace, self._credit = pace, Credit(1.0, pace.since)
            self.publish(RateLimited(trouble, pace.since - now, pace.per_second(pace.since)))
            self._announce()

    def _change(self, breaker: Breaker) -> None:
        if breaker == self.breaker:
            return
        self.breaker = breaker
        if isinstance(breaker, Closed):
            self._since = None
        elif self._since is None:
            self._since = trio.current_time()
        self._announce()
        self.publish(BreakerChanged(breaker))

    def _announce(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@define(eq=False)
class RedisHealth:
    """Whether Redis answers; publishes an event for each change and each new error."""

    publish: Publish
    _failing_since: float | None = None
    _last: str = ""

    @property
    def failing_seconds(self) -> float:
        """How long Redis has not answered; 0 while it does."""
        return 0.0 if self._failing_since is None else trio.current_time() - self._failing_since

    def failed(self, doing: str, unavailable: Unavailable) -> None:
        if self._failing_since is None:
            self._failing_since = trio.current_time()
        if unavailable.reason != self._last:
            self._last = unavailable.reason
            self.publish(RedisFailed(doing, unavailable.reason, unavailable.is_refusal))

    def answered(self) -> None:
        if self._failing_since is not None:
            self.publish(RedisRecovered(self.failing_seconds))
        self._failing_since, self._last = None, ""
