"""Trio. The worker: its nurseries and cancel scopes, from start to drain.

One nursery owns the consumers, a fixed set of tasks. The order of a shutdown is the nesting of the scopes, from the
inside out:

* claiming ends first: a signal cancels its scope;
* the consumers' scope gets one deadline, the grace; what waits for a connection goes back at once;
* the pool closes its connections when the consumers are done;
* settling and renewing leases live outside of all of them and end last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import trio
from attrs import evolve, field

from trio_worker.jobs.email_type import TypeSpec
from trio_worker.mail.composer import Composer
from trio_worker.mail.options import MailOptions
from trio_worker.privacy import mask_text
from trio_worker.queue.broker import Broker
from trio_worker.queue.history import PushHistory
from trio_worker.queue.journal import Journal
from trio_worker.queue.options import HistoryOptions, QueueOptions
from trio_worker.records import define, frozen
from trio_worker.redis.client import RedisClient
from trio_worker.smtp.connection import OnTrace
from trio_worker.smtp.events import ConnectionEvent, DepthLimited, DepthRestored
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.opener import OpenSession
from trio_worker.smtp.options import PoolOptions, RelayOptions
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.pool import Pool, open_pool
from trio_worker.smtp.relay import Relay
from trio_worker.smtp.reply import Stage
from trio_worker.smtp.session import Session, open_session
from trio_worker.smtp.trace import TraceLine
from trio_worker.worker.breaker import Breaker
from trio_worker.worker.claiming import BurstEnd, Claiming
from trio_worker.worker.consumer import Consumers
from trio_worker.worker.events import Event, PhaseChanged, Publish, QuietChanged
from trio_worker.worker.gate import Gate, RedisHealth
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.leases import keep_leases
from trio_worker.worker.loss_watch import LossWatch
from trio_worker.worker.options import RetryPolicy, ShutdownOptions
from trio_worker.worker.phase import Phase
from trio_worker.worker.preparation import Preparation
from trio_worker.worker.redis_watch import follow_primary, watch_redis
from trio_worker.worker.reply_rule import ReplyRule
from trio_worker.worker.settling import Settler
from trio_worker.worker.state import WorkerState

if TYPE_CHECKING:
    from trio_worker.queue.receipt import ReceiptWriter

# A second signal leaves the mails in flight this long.
HURRIED_GRACE_SECONDS = 2.0
# What only watches begins after the first claim was answered, or at the latest after this time.
FIRST_CLAIM_SECONDS = 1.0
# Replies on an open session that another login may change (RFC 4954, 4 and 6).
_LOGIN_CODES = frozenset({432, 454, 530, 535, 538})
# Settlements get at least this long after the last mail, however little of the grace is left.
MIN_SETTLING_SECONDS = 1.0


@frozen
class WorkerOptions:
    """All options of a worker, composed of those of its parts."""

    number_workers: int
    queue: QueueOptions
    relay: Relay
    pool: PoolOptions
    retry: RetryPolicy
    mail: MailOptions
    shutdown: ShutdownOptions
    replies: tuple[ReplyRule, ...] = ()
    history: HistoryOptions = field(factory=HistoryOptions)


@define(eq=False)
class Worker:
    """One worker on one queue and one relay; `run` it once, inside an open bridge.

    ``types`` are the templated email types of the composer. ``sinks`` are called with every event, in their order. The
    client and the journal are closed by their opener.
    """

    options: WorkerOptions
    client: RedisClient
    composer: Composer
    types: Mapping[str, TypeSpec]
    sinks: Sequence[Publish] = ()
    is_burst: bool = False
    open_with: OpenSession | None = None
    journal: Journal | None = None
    broker: Broker = field(init=False)
    losses: LossWatch = field(init=False)
    in_flight: InFlight = field(init=False)
    history: PushHistory = field(factory=PushHistory)  # dates jobs whose producer does not
    pool: Pool | None = field(init=False, default=None)  # while it is open, and after that
    why: str = ""  # it drains, or ended
    _relay: Relay = field(init=False)
    _refused: RelayOptions | None = None  # those with the login that the relay refused last
    _gate: Gate = field(init=False)
    _consumers: Consumers | None = None
    _claiming: trio.CancelScope = field(factory=trio.CancelScope)
    _grace: trio.CancelScope = field(factory=trio.CancelScope)  # of the consumers; its deadline is the drain's
    _is_claiming: bool = False
    _has_claimed: trio.Event = field(factory=trio.Event)
    _on_trace: OnTrace | None = None

    def __attrs_post_init__(self) -> None:
        options = self.options
        self._relay = options.relay
        self._gate = Gate(self.publish, options.retry.guard, options.replies)
        self.broker = Broker(self.client, options.queue)
        self.losses = LossWatch(self.client, options.queue.name, self.publish)
        self.in_flight = InFlight(options.number_workers * options.pool.depth)

    async def run(self) -> int:
        """Work until `drain`, or until a burst is over; return the exit code.

        Every job that was claimed is settled when this returns, or counted as unsettled. STOPPED is published by the
        `Reporter`, after its farewell to Redis.
        """
        redis_health = RedisHealth(self.publish)
        settler = Settler(self.broker, self.in_flight, redis_health, self.publish, self.losses, self.journal)
        self.publish(PhaseChanged(Phase.STARTING))
        async with trio.open_nursery() as background:
            background.start_soon(settler.run)
            background.start_soon(keep_leases, self.broker, self.in_flight, redis_health, self.publish)
            background.start_soon(self._watch_redis)
            background.start_soon(follow_primary, self.client)
            background.start_soon(self.losses.run)
            pool = open_pool(
                self.options.pool,
                self.options.relay.timeouts,
                self.open_with or self._open_session,
                self._publish_connection,
                self._gate.note_opening,
                self._gate.standing_trouble,
            )
            async with pool as self.pool:
                self.pool.trace(self._on_trace)
                end = await self._run_consumers(self.pool, redis_health, settler)
            await self._finish_settling(settler)
            if not redis_health.failing_seconds:
                await self.losses.note()
            background.cancel_scope.cancel()
        return int(end)

    async def wait_for_first_claim(self) -> None:
        """Wait until the first claim was answered, at most a second: reports do not keep the first mail waiting."""
        with trio.move_on_after(FIRST_CLAIM_SECONDS):
            await self._has_claimed.wait()

    def drain(self, why: str) -> None:
        """Stop as after a first signal: claim nothing more, let what is in flight finish within the grace."""
        self.why = self.why or why
        self._claiming.cancel()
        self._begin_grace()
        if self.pool is not None:
            self.pool.close()  # what a claim that is under way still brings is not sent

    def hurry(self) -> None:
        """Shorten the grace as a second signal does; before a drain has begun this begins it."""
        self.drain("hurried")
        self._grace.deadline = min(self._grace.deadline, trio.current_time() + HURRIED_GRACE_SECONDS)

    def quiet(self, why: str) -> None:
        """Claim nothing more, finish the jobs in flight, and stay."""
        self._set_quiet(why, is_quiet=True)

    def resume(self, why: str) -> None:
        """Claim again after `quiet`."""
        self._set_quiet(why, is_quiet=False)

    def trace(self, on_trace: OnTrace | None) -> None:
        """Call with what is said on each connection from now on, those being opened too; None ends it."""
        self._on_trace = on_trace
        if self.pool is not None:
            self.pool.trace(on_trace)

    @property
    def is_quiet(self) -> bool:
        return self._gate.is_quiet

    @property
    def is_login_refused(self) -> bool:
        """Whether the relay refuses our login now: then claiming stopped, or connections beside working ones did."""
        suspension = None if self.pool is None else self.pool.suspension
        troubles = (self._gate.standing_trouble(), None if suspension is None else suspension.trouble)
        return any(trouble is not None and _is_about_login(trouble) for trouble in troubles)

    @property
    def relay_trouble(self) -> Trouble | None:
        """What keeps the relay from taking mail; None while it works, as far as is known."""
        return self._gate.trouble

    @property
    def breaker(self) -> Breaker:
        """Whether claiming stopped because the relay is in trouble, and when it is probed."""
        return self._gate.breaker

    def probe(self) -> bool:
        """Try the relay now if it is in trouble, or refuses connections beside others; return whether it is so."""
        if self._gate.trouble is None and (self.pool is None or self.pool.suspension is None):
            return False
        self._gate.probe_now()
        if self.pool is not None:
            self.pool.probe()
        return True

    def use_login(self, username: str, password: str) -> None:
        """Log in like this from now on; while the relay refuses the login, try another one than the refused at once."""
        before = self._relay.options
        options = evolve(before, username=username, password=password)
        self._relay = evolve(self._relay, options=options)
        # A reply on an open session may open the breaker as well: it has not refused this login.
        refused = before if self._refused is None else self._refused
        if self.is_login_refused and options != refused:
            self._gate.probe_now()
            if self.pool is not None:
                self.pool.try_suspended()

    def use_replies(self, rules: tuple[ReplyRule, ...]) -> None:
        """Take replies by these rules from now on; one may have ended the relay's trouble, so a probe goes at once."""
        if rules != self._gate.rules:
            self._gate.rules = rules
            self._gate.probe_now()

    def use_limits(self, number_workers: int, queue: QueueOptions, pool: PoolOptions, retry: RetryPolicy) -> None:
        """Keep to these limits from now on; jobs and mails in flight beyond them are finished."""
        self.options = evolve(self.options, number_workers=number_workers, queue=queue, pool=pool, retry=retry)
        self._gate.guard = retry.guard
        self.broker.options = queue
        self.in_flight.set_limit(number_workers * pool.depth)
        if self.pool is not None:
            self.pool.resize(pool)
        if self._consumers is not None:
            self._consumers.retry = retry
            self._consumers.set_number(number_workers)

    def publish(self, event: Event) -> None:
        """Call every sink with an event."""
        for sink in self.sinks:
            sink(event)

    def _publish_connection(self, event: ConnectionEvent) -> None:
        if isinstance(event, DepthLimited | DepthRestored):
            self.in_flight.set_limit(self.options.number_workers * event.depth)
        self.publish(event)

    def state(self) -> WorkerState:
        """Return the figures of this moment that no event carries."""
        options, pool, consumers = self.options, self.pool, self._consumers
        deadline = self._grace.deadline
        return WorkerState(
            number_workers=options.number_workers,
            max_connections=options.pool.max_size,
            depth=options.pool.depth if pool is None else pool.depth,
            in_flight=len(self.in_flight),
            at_work=self.in_flight.at_work,
            busy_consumers=0 if consumers is None else consumers.busy,
            idle_share=None if consumers is None else consumers.idle_share(trio.current_time()),
            connections=() if pool is None else pool.views(),
            connecting=0 if pool is None else pool.connecting,
            mails_in_flight=0 if pool is None else pool.mails_in_flight,
            suspension=None if pool is None else pool.suspension,
            one_at_a_time=None if pool is None else pool.one_at_a_time,
            trouble=self._gate.trouble,
            grace_ends_at=None if math.isinf(deadline) else deadline,
        )

    def _set_quiet(self, why: str, *, is_quiet: bool) -> None:
        if is_quiet != self._gate.is_quiet:
            self._gate.set_quiet(is_quiet=is_quiet)
            self.publish(QuietChanged(is_quiet, why))

    async def _run_consumers(self, pool: Pool, redis_health: RedisHealth, settler: Settler) -> BurstEnd:
        options = self.options
        relay_name = f"{options.relay.options.host}:{options.relay.options.port}"
        consumers = self._consumers = Consumers(
            preparation=Preparation(
                types=self.types,
                composer=self.composer,
                options=options.mail,
                only_to=options.relay.options.only_to,
                history=self.history,
                publish=self.publish,
            ),
            broker=self.broker,
            in_flight=self.in_flight,
            settler=settler,
            gate=self._gate,
            pool=pool,
            retry=options.retry,
            receipts=self._receipts(relay_name),
        )
        claiming = Claiming(
            broker=self.broker,
            in_flight=self.in_flight,
            gate=self._gate,
            redis_health=redis_health,
            settler=settler,
            losses=self.losses,
            history=self.history,
            publish=self.publish,
            give=consumers.give,
            is_burst=self.is_burst,
            patience_seconds=options.shutdown.grace_seconds,
            relay_capacity=lambda: pool.size * pool.depth,
            has_claimed=self._has_claimed,
        )
        end = BurstEnd.EMPTY
        with self._grace:
            async with trio.open_nursery() as nursery:
                consumers.start(nursery, options.number_workers)
                self.publish(PhaseChanged(Phase.RUNNING))
                self._is_claiming = True
                async with trio.open_nursery() as beside_claiming:
                    beside_claiming.start_soon(self._break_off_claim)
                    with self._claiming:
                        end = await claiming.run()
                        self.why = self.why or "the queue is done"
                    self._is_claiming = False
                    beside_claiming.cancel_scope.cancel()
                self._begin_drain(pool)
                consumers.close()
                consumers.release_waiting()  # a consumer may be busy for the whole grace
        consumers.release_waiting()
        return end

    def _receipts(self, relay_name: str) -> ReceiptWriter | None:
        if not self.options.history.days:
            return None
        from trio_worker.queue.receipt import ReceiptWriter  # noqa: PLC0415  most workers keep no history

        return ReceiptWriter(self.options.history, relay_name)

    async def _watch_redis(self) -> None:
        await self.wait_for_first_claim()
        await watch_redis(self.client, self.publish, self.losses)

    def _begin_drain(self, pool: Pool) -> None:
        self.publish(PhaseChanged(Phase.DRAINING, self.why))
        pool.close()
        self._begin_grace()

    def _begin_grace(self) -> None:
        """Let the grace run from now on, unless it does: a claim that is waited for after the signal is part of it."""
        grace_ends_at = trio.current_time() + self.options.shutdown.grace_seconds
        self._grace.deadline = min(self._grace.deadline, grace_ends_at)

    async def _break_off_claim(self) -> None:
        """When the grace is over and a claim still waits for Redis, end it: its jobs are left to their leases."""
        try:
            await trio.sleep_forever()
        finally:
            if self._is_claiming:
                self.client.abort_calls()

    async def _finish_settling(self, settler: Settler) -> None:
        seconds = max(self._grace.deadline - trio.current_time(), MIN_SETTLING_SECONDS)
        with trio.move_on_after(seconds):
            await self.in_flight.wait_until_empty()
        with trio.move_on_after(MIN_SETTLING_SECONDS):
            await settler.keep()
        settler.give_up()
        self.client.abort_calls()

    async def _open_session(self) -> Session | Trouble:
        while True:
            relay = self._relay
            opened = await self._open_session_with(relay)
            is_refused = isinstance(opened, Trouble) and opened.how is FailureKind.LOGIN
            self._refused = relay.options if is_refused else None
            # A login that was changed meanwhile was not refused, so nothing is to be concluded from this.
            if not is_refused or self._relay.options == relay.options:
                return opened

    async def _open_session_with(self, relay: Relay) -> Session | Trouble:
        began = trio.current_time()

        def note_step(stage: Stage, text: str) -> None:
            nonlocal began
            if self._on_trace is not None:
                now = trio.current_time()
                self._on_trace(TraceLine(stage.upper(), mask_text(text), now - began))
                began = now

        return await open_session(relay, note_step)


def _is_about_login(trouble: Trouble) -> bool:
    """Whether another login may end this trouble: the relay refused ours, or wants one on an open session."""
    is_wanted = trouble.how is FailureKind.US and trouble.reply is not None and trouble.reply.code in _LOGIN_CODES
    return trouble.how is FailureKind.LOGIN or is_wanted
