"""Trio. The worker: its nurseries, its signals, its end.

One nursery owns the consumers, a fixed set of tasks. The order of a shutdown is the nesting of the scopes, from the
inside out:

* claiming ends first: a signal cancels its scope;
* the consumers' scope gets one deadline, the grace; what waits for a connection goes back at once;
* the pool closes its connections when the consumers are done;
* settling and renewing leases live outside of all of them and end last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import trio
from attrs import define, evolve, field, frozen

from trio_worker import __version__
from trio_worker.fleet.orders import Drain, Order, Quiet, Resume, SetLogLevel, ShowTasks, Trace
from trio_worker.fleet.overview import Lookout, queue_seen
from trio_worker.fleet.presence import Presence, new_worker_name
from trio_worker.jobs.email_type import TypeSpec
from trio_worker.mail.composer import Composer, MailOptions
from trio_worker.option import option
from trio_worker.privacy import mask_text
from trio_worker.queue.broker import Broker, QueueOptions
from trio_worker.queue.history import PushHistory
from trio_worker.queue.journal import Journal
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.redis.durability import check_durability
from trio_worker.smtp.opener import OpenSession
from trio_worker.smtp.outcome import FailureKind, Trouble
from trio_worker.smtp.pool import Pool, PoolOptions, open_pool
from trio_worker.smtp.relay import Relay, RelayOptions
from trio_worker.smtp.reply import Stage
from trio_worker.smtp.session import Session, open_session
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.board import Board
from trio_worker.telemetry.heartbeat import Heartbeat, Suspended, Vitals, WorkerSeen, told_types
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.telemetry.words import trouble_said, trouble_words
from trio_worker.worker.claiming import BurstEnd, Claiming
from trio_worker.worker.consumer import Consumers
from trio_worker.worker.events import Event, Phase, PhaseChanged, Publish, QuietChanged, RedisWeak
from trio_worker.worker.gate import Gate, RedisHealth
from trio_worker.worker.in_flight import InFlight
from trio_worker.worker.leases import keep_leases
from trio_worker.worker.preparation import Preparation
from trio_worker.worker.settling import Settler
from trio_worker.worker.task_tree import task_tree
from trio_worker.worker.verdict import RetryPolicy

# A second signal leaves the mails in flight this long.
HURRIED_GRACE_SECONDS = 2.0
# Settlements get at least this long after the last mail, however little of the grace is left.
LEAST_SETTLING_SECONDS = 1.0
# What is said to Redis after the last settlement is a courtesy: a call that is not answered in this time is broken off.
FAREWELL_SECONDS = 1.0
# Figures of the queue are stale when they are older than this, or than so many looks take.
STALE_SECONDS = 5.0
LOOKS_MISSED = 2.5


@frozen
class ShutdownOptions:
    """How the worker stops (config section ``[shutdown]``)."""

    grace_seconds: float = option(30.0, "Time for mails in flight to finish after SIGTERM or Ctrl-C.", minimum=0)


@frozen
class WorkerOptions:
    """Everything that a worker is told; composed of the options of its parts."""

    number_workers: int
    queue: QueueOptions
    relay: Relay
    pool: PoolOptions
    retry: RetryPolicy
    mail: MailOptions
    shutdown: ShutdownOptions


@define(eq=False)
class Worker:
    """One worker on one queue and one relay; `run` it once, inside an open bridge.

    ``types`` are the templated email types of the composer. ``look_seconds`` is how often the queue is counted for
    whoever watches; 0 for never. Whoever ``looks_closely`` also sees how old the jobs are and how the server is.
    ``name`` tells it from other workers, ``config`` its settings from others (the first digits of a digest). The client
    and the journal are closed by whoever opened them.
    """

    options: WorkerOptions
    client: RedisClient
    composer: Composer
    types: Mapping[str, TypeSpec]
    sinks: Sequence[Publish] = ()
    is_burst: bool = False
    look_seconds: float = 0.0
    looks_closely: bool = False
    redis_name: str = ""
    name: str = field(factory=new_worker_name)
    config: str = ""
    open_with: OpenSession | None = None
    journal: Journal | None = None
    set_log_level: Callable[[str, float], bool] | None = None  # for so many seconds; None where no log is kept
    board: Board = field(init=False)
    broker: Broker = field(init=False)
    in_flight: InFlight = field(init=False)
    _relay: Relay = field(init=False)
    _refused: RelayOptions | None = None  # those with the login that the relay refused last
    _gate: Gate = field(init=False)
    _presence: Presence = field(init=False)
    _lookout: Lookout = field(init=False)
    _workers: tuple[WorkerSeen, ...] = ()
    _pool: Pool | None = None
    _history: PushHistory = field(factory=PushHistory)
    _consumers: Consumers | None = None
    _claiming: trio.CancelScope = field(factory=trio.CancelScope)
    _grace: trio.CancelScope = field(factory=trio.CancelScope)  # of the consumers; its deadline is the drain's
    _is_claiming: bool = False
    _draining_at: float | None = None  # local clock
    _why: str = ""
    _traces_until: float | None = None

    def __attrs_post_init__(self) -> None:
        options = self.options
        self._relay = options.relay
        self._gate = Gate(self.publish)
        self.broker = Broker(self.client, options.queue)
        self.in_flight = InFlight(options.number_workers * options.pool.depth)
        self.board = Board(
            queue_name=options.queue.name,
            redis_name=self.redis_name,
            relay_name=f"{options.relay.options.host}:{options.relay.options.port}",
            number_workers=options.number_workers,
            max_connections=options.pool.max_size,
            started_at=trio.current_time(),
            depth=options.pool.depth,
            worker_name=self.name,
            count_at_work=lambda: self.in_flight.at_work,
            count_busy=lambda: 0 if self._consumers is None else self._consumers.busy,
            idle_share=lambda now: None if self._consumers is None else self._consumers.idle_share(now),
            stale_after_seconds=max(STALE_SECONDS, LOOKS_MISSED * self.look_seconds),
        )
        self._lookout = Lookout(self.client, options.queue.name, self.looks_closely)
        self._presence = Presence(self.client, options.queue.name, self.name, self._take_beat, self._obey)

    async def run(self) -> int:
        """Work until `drain`, or until a burst is over; return the exit code.

        Every job that was claimed is settled when this returns, or counted as unsettled.
        """
        redis_health = RedisHealth(self.publish)
        settler = Settler(self.broker, self.in_flight, redis_health, self.publish, self.journal)
        self.publish(PhaseChanged(Phase.STARTING))
        async with trio.open_nursery() as background:
            background.start_soon(settler.run)
            background.start_soon(keep_leases, self.broker, self.in_flight, redis_health, self.publish)
            background.start_soon(self._examine)
            background.start_soon(self._presence.run)
            if self.look_seconds:
                background.start_soon(self._look)
            pool = open_pool(
                self.options.pool,
                self.options.relay.timeouts,
                self.open_with or self._open_session,
                self.publish,
                self._gate.note_opening,
                self._gate.standing_trouble,
            )
            async with pool as self._pool:
                end = await self._run_consumers(self._pool, redis_health, settler)
            await self._finish_settling(settler)
            if not redis_health.failing_seconds:
                background.start_soon(self._hasten_farewell)
                if self.look_seconds:
                    await self._look_once()
                began = self._draining_at
                await self._presence.leave(None if began is None else trio.current_time() - began)
            background.cancel_scope.cancel()
        self.publish(PhaseChanged(Phase.STOPPED, self._why))
        return int(end)

    def drain(self, why: str) -> None:
        """Stop as after a first signal: claim nothing more, let what is in flight finish within the grace."""
        self._why = self._why or why
        self._claiming.cancel()
        self._begin_grace()
        if self._pool is not None:
            self._pool.close()  # what a claim that is under way still brings is not sent

    def hurry(self) -> None:
        """Shorten the grace as a second signal does; before a drain has begun this begins it."""
        self.drain("hurried")
        self._grace.deadline = min(self._grace.deadline, trio.current_time() + HURRIED_GRACE_SECONDS)

    def quiet(self, why: str) -> None:
        """Claim nothing more, finish what is in hand, and stay."""
        self._set_quiet(why, is_quiet=True)

    def resume(self, why: str) -> None:
        """Claim again after `quiet`."""
        self._set_quiet(why, is_quiet=False)

    def tell_lag(self, tell: Callable[[float], object]) -> None:
        """Tell how late the loop wakes (seconds), each time that it is measured."""
        self._presence.meter.tell_lag = tell

    def describe(self) -> str:
        """Return what goes on here in a few lines, for a person who asks a process that is stuck; no address in it."""
        ledger, busy = self.board.ledger, 0 if self._consumers is None else self._consumers.busy
        jobs = f"{len(self.in_flight)} in hand, {self.in_flight.at_work} at work"
        lines = [
            f"{self.name}: {self.board.phase}{', quiet' if self.is_quiet else ''}, {jobs}",
            f"consumers busy {busy}/{self.board.number_workers}",
            ledger.so_far() if self.board.phase is not Phase.STOPPED else str(ledger),
            f"breaker: {type(self._gate.breaker).__name__.lower()}",
            repr(self._pool) if self._pool is not None else "no pool yet",
        ]
        views = sorted(self._pool.views() if self._pool is not None else (), key=lambda view: -view.state_seconds)
        lines += [
            f"connection {view.connection_id}: {view.state} for {view.state_seconds:.1f} s" for view in views[:10]
        ]
        return "\n".join(lines)

    @property
    def is_quiet(self) -> bool:
        return self._gate.is_quiet

    @property
    def is_login_refused(self) -> bool:
        """Whether the relay refuses our login now: then claiming stopped, or connections beside working ones did."""
        suspension = None if self._pool is None else self._pool.suspension
        troubles = (self._gate.standing_trouble(), None if suspension is None else suspension.trouble)
        return any(trouble is not None and trouble.how is FailureKind.LOGIN for trouble in troubles)

    @property
    def relay_trouble(self) -> Trouble | None:
        """What keeps the relay from taking mail; None while it works, as far as is known."""
        return self._gate.trouble

    def use_login(self, username: str, password: str) -> None:
        """Log in like this from now on; while the relay refuses us, try it at once if it is not what was refused."""
        options = evolve(self._relay.options, username=username, password=password)
        self._relay = evolve(self._relay, options=options)
        if self.is_login_refused and options != self._refused:
            self._gate.probe_now()
            if self._pool is not None:
                self._pool.try_suspended()

    def use_limits(self, number_workers: int, queue: QueueOptions, pool: PoolOptions, retry: RetryPolicy) -> None:
        """Keep to these limits from now on; jobs in hand and mails in flight beyond them are seen through."""
        self.options = evolve(self.options, number_workers=number_workers, queue=queue, pool=pool, retry=retry)
        self.broker.options = queue
        self.board.number_workers = number_workers
        self.board.max_connections, self.board.depth = pool.max_size, pool.depth
        self.in_flight.set_limit(number_workers * pool.depth)
        if self._pool is not None:
            self._pool.resize(pool)
        if self._consumers is not None:
            self._consumers.retry = retry
            self._consumers.set_number(number_workers)

    def publish(self, event: Event) -> None:
        """Tell an event to everybody who listens; the board first, so that the others may look at it."""
        self.board.note(event, trio.current_time(), time.time())
        self._presence.note(event)
        for sink in self.sinks:
            sink(event)

    def snapshot(self) -> Snapshot:
        """Return the figures at this moment."""
        views = self._pool.views() if self._pool is not None else ()
        deadline = self._grace.deadline
        grace_ends_at = None if deadline == float("inf") else deadline
        now, wall = trio.current_time(), time.time()
        snapshot = self.board.snapshot(now, wall, views, grace_ends_at, self._workers, self._presence.vitals)
        if self._pool is None:
            return snapshot
        return evolve(
            snapshot,
            connecting=self._pool.connecting,
            mails_in_flight=self._pool.mails_in_flight,
            suspended=self._suspended(now, wall),
        )

    def _take_beat(self, vitals: Vitals) -> Heartbeat:
        trouble = self._gate.trouble
        beat = self.board.heartbeat(
            self.name,
            __version__,
            trio.current_time(),
            time.time(),
            vitals=vitals,
            config=self.config,
            trouble="" if trouble is None else mask_text(trouble_words(trouble)),
            connections=self._pool.views() if self._pool is not None else (),
        )
        suspended = self._suspended(trio.current_time(), time.time())
        mails_in_flight = 0 if self._pool is None else self._pool.mails_in_flight
        return evolve(beat, types=told_types(self.types), suspended=suspended, mails_in_flight=mails_in_flight)

    def _suspended(self, now: float, wall: float) -> Suspended | None:
        """Return the connections that the pool does without for a while, in words that name nobody."""
        suspension = None if self._pool is None else self._pool.suspension
        if suspension is None:
            return None
        trouble = suspension.trouble
        until = wall + max(0.0, suspension.until - now)
        return Suspended(suspension.places, mask_text(trouble_said(trouble)), until, str(trouble.how))

    def _obey(self, order: Order) -> str:
        """Do what somebody elsewhere wants; return what came of it."""
        match order:
            case Quiet():
                self.quiet("worker quiet")
                return "quiet"
            case Resume():
                self.resume("worker resume")
                return "claiming"
            case Drain():
                self.drain("worker drain")
                return "draining"
            case ShowTasks():
                return f"{self.describe()}\n{task_tree()}"
            case SetLogLevel(level, seconds):
                if self.set_log_level is None:
                    return "keeps no log"
                return level if self.set_log_level(level, seconds) else f"knows no level {level}"
            case Trace(seconds):
                # Whoever asked before for longer is not cut off.
                self._traces_until = max(self._traces_until or 0.0, trio.current_time() + seconds)
                if self._pool is not None:
                    self._pool.trace(self._note_exchange)
                return "tracing"
            case _:
                assert_never(order)

    def _note_exchange(self, exchange: TraceLine) -> None:
        """Tell what was said on a connection, until the time is over or nobody looks any more."""
        is_over = self._traces_until is None or trio.current_time() > self._traces_until
        if is_over or not self._presence.is_watched:
            self._traces_until = None
            if self._pool is not None:
                self._pool.trace(None)
            return
        self._presence.note_exchange(exchange)

    def _set_quiet(self, why: str, *, is_quiet: bool) -> None:
        if is_quiet != self._gate.is_quiet:
            self._gate.set_quiet(is_quiet=is_quiet)
            self.publish(QuietChanged(is_quiet, why))

    async def _run_consumers(self, pool: Pool, redis_health: RedisHealth, settler: Settler) -> BurstEnd:
        options = self.options
        consumers = self._consumers = Consumers(
            preparation=Preparation(
                types=self.types,
                composer=self.composer,
                options=options.mail,
                only_to=options.relay.options.only_to,
                history=self._history,
                publish=self.publish,
            ),
            broker=self.broker,
            in_flight=self.in_flight,
            settler=settler,
            gate=self._gate,
            pool=pool,
            retry=options.retry,
        )
        claiming = Claiming(
            broker=self.broker,
            in_flight=self.in_flight,
            gate=self._gate,
            redis_health=redis_health,
            settler=settler,
            history=self._history,
            publish=self.publish,
            give=consumers.give,
            is_burst=self.is_burst,
            patience_seconds=options.shutdown.grace_seconds,
            relay_capacity=lambda: pool.size * pool.options.depth,
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
                        self._why = self._why or "the queue is done"
                    self._is_claiming = False
                    beside_claiming.cancel_scope.cancel()
                self._begin_drain(pool)
                consumers.close()
                consumers.release_waiting()  # a consumer may be busy for the whole grace
        consumers.release_waiting()
        return end

    def _begin_drain(self, pool: Pool) -> None:
        self.publish(PhaseChanged(Phase.DRAINING, self._why))
        self._draining_at = trio.current_time()
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
        seconds = max(self._grace.deadline - trio.current_time(), LEAST_SETTLING_SECONDS)
        with trio.move_on_after(seconds):
            await self.in_flight.wait_until_empty()
        with trio.move_on_after(LEAST_SETTLING_SECONDS):
            await settler.keep()
        settler.give_up()
        self.client.abort_calls()

    async def _hasten_farewell(self) -> None:
        while True:
            await trio.sleep(FAREWELL_SECONDS)
            self.client.abort_calls()

    async def _open_session(self) -> Session | Trouble:
        relay = self._relay
        began = trio.current_time()

        def tell(stage: Stage, says: str) -> None:
            nonlocal began
            if self._traces_until is not None:
                now = trio.current_time()
                self._note_exchange(TraceLine(stage.upper(), mask_text(says), now - began))
                began = now

        opened = await open_session(relay, tell)
        if isinstance(opened, Trouble) and opened.how is FailureKind.LOGIN:
            self._refused = relay.options
        return opened

    async def _examine(self) -> None:
        """Tell once how Redis is set up; a failing look is the claiming task's to tell."""
        risks = await check_durability(self.client)
        if not isinstance(risks, Unavailable):
            for risk in risks:
                self.publish(RedisWeak(risk))

    async def _look(self) -> None:
        while True:
            await self._look_once()
            await trio.sleep(self.look_seconds)

    async def _look_once(self) -> None:
        """Look at the queue and all workers for whoever watches; a failing look is the claiming task's to tell."""
        began = trio.current_time()
        looked = await self._lookout.look()
        if isinstance(looked, Unavailable):
            return
        overview, _ = looked
        seen, counts = queue_seen(overview, trio.current_time() - began), overview.counts
        self._workers = overview.workers
        self._history.note(counts.at, counts.pushed)
        # Our own samples, one a second, date the head better than those of the minutes.
        pushed_at = self._history.pushed_at(counts.popped + 1) if counts.waiting and seen.is_estimate else None
        if pushed_at is not None:
            seen = evolve(seen, oldest_seconds=max(0.0, counts.at - pushed_at))
        self.publish(seen)
