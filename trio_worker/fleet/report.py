"""Trio. Reports on a worker: its figures here, its heartbeat and outcomes in Redis, and the orders that come back.

A `Reporter` runs around its worker, so the nesting says the order of the end: the worker is taken off the list after
its last settlement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Never, assert_never

import trio
from attrs import evolve, field

from trio_worker import __version__
from trio_worker.fleet.orders import Drain, Order, Probe, Quiet, Resume, SetLogLevel, ShowTasks, Trace
from trio_worker.fleet.overview import OverviewPoller, queue_seen
from trio_worker.fleet.presence import Presence, new_worker_name
from trio_worker.privacy import mask_text
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.board import Board
from trio_worker.telemetry.heartbeat import (
    DepthLimit,
    Heartbeat,
    RelayDown,
    Suspended,
    Vitals,
    WorkerSeen,
    reported_types,
)
from trio_worker.telemetry.snapshot import Snapshot
from trio_worker.telemetry.words import deep_loss_words, trouble_quoted, trouble_words
from trio_worker.worker.breaker import Breaker, Closed, HalfOpen, Open
from trio_worker.worker.events import Event, PhaseChanged
from trio_worker.worker.phase import Phase
from trio_worker.worker.state import WorkerState
from trio_worker.worker.task_tree import task_tree
from trio_worker.worker.worker import Worker

# Figures of the queue are stale when they are older than this, or than 2.5 polls take.
STALE_SECONDS = 5.0
POLLS_MISSED = 2.5
# What is said to Redis after the last settlement is a courtesy: a call that is not answered in this time is broken off.
FAREWELL_SECONDS = 1.0
_CONNECTIONS_DESCRIBED = 10


@define(eq=False)
class Reporter:
    """The reports on one worker; `run` runs the worker inside of them.

    It hears every event before the worker's other sinks, so that they may look at its figures. ``poll_seconds`` is how
    often the queue is counted, 0 for never; with ``polls_closely`` also the ages of its jobs and the server's state.
    ``name`` tells the worker from others, ``config`` (the first digits of a digest) its settings from theirs.
    ``set_log_level`` logs from a level on for some seconds, and says whether there is such a level; None where no log
    is kept.
    """

    worker: Worker
    redis_name: str = ""
    config: str = ""
    poll_seconds: float = 0.0
    polls_closely: bool = False
    set_log_level: Callable[[str, float], bool] | None = None
    name: str = field(factory=new_worker_name)
    board: Board = field(init=False)
    presence: Presence = field(init=False)
    _poller: OverviewPoller = field(init=False)
    _workers: tuple[WorkerSeen, ...] = ()
    _draining_at: float | None = None  # local clock
    _traces_until: float | None = None

    def __attrs_post_init__(self) -> None:
        worker, options = self.worker, self.worker.options
        relay = options.relay.options
        self.board = Board(
            queue_name=options.queue.name,
            redis_name=self.redis_name,
            relay_name=f"{relay.host}:{relay.port}",
            started_at=trio.current_time(),
            worker_name=self.name,
            stale_after_seconds=max(STALE_SECONDS, POLLS_MISSED * self.poll_seconds),
        )
        self._poller = OverviewPoller(worker.client, options.queue.name, self.polls_closely, trio.current_time)
        self.presence = Presence(
            worker.client,
            options.queue.name,
            self.name,
            self._heartbeat,
            self._carry_out,
            worker.losses.see,
            worker.publish,
        )
        worker.sinks = [self.note, *worker.sinks]

    async def run(self) -> int:
        """Run the worker to its end, take it off the list, and return its exit code; a cancel ends both at once."""
        async with trio.open_nursery() as background:
            background.start_soon(self._begin_reports, background)
            code = await self.worker.run()
            # Where Redis refuses to be worked with, it may still take a heartbeat.
            if self.presence.is_heard or not self.board.is_redis_failing:
                background.start_soon(self._hasten_farewell)
                if self.poll_seconds:
                    await self._poll()
                began = self._draining_at
                await self.presence.leave(None if began is None else trio.current_time() - began)
            background.cancel_scope.cancel()
        self.worker.publish(PhaseChanged(Phase.STOPPED, self.worker.why))
        return code

    async def _begin_reports(self, reports: trio.Nursery) -> None:
        await self.worker.wait_for_first_claim()
        reports.start_soon(self.presence.run)
        if self.poll_seconds:
            reports.start_soon(self._keep_polling)

    def note(self, event: Event) -> None:
        """Take in one event of the worker."""
        now = trio.current_time()
        if isinstance(event, PhaseChanged) and event.phase is Phase.DRAINING:
            self._draining_at = now
        self.board.note(event, now, time.time())
        self.presence.note(event)

    def snapshot(self) -> Snapshot:
        """Return the figures at this moment."""
        now, wall, state = trio.current_time(), time.time(), self.worker.state()
        snapshot = self.board.snapshot(now, wall, state, self._workers, self.presence.vitals)
        return evolve(snapshot, suspended=_suspended(state, now, wall), depth_limit=_depth_limit(state, now, wall))

    def describe(self) -> str:
        """Return the worker's state in a few lines, for a person who asks a process that is stuck; no address in it."""
        board, state = self.board, self.worker.state()
        phase = f"{board.phase}{', quiet' if self.worker.is_quiet else ''}"
        lines = [
            f"{self.name}: {phase}, {state.in_flight} in hand, {state.at_work} at work",
            f"consumers busy {state.busy_consumers}/{state.number_workers}",
            str(board.ledger) if board.phase is Phase.STOPPED else board.ledger.so_far(),
            f"breaker: {board.breaker_name}",
            "no pool yet" if self.worker.pool is None else repr(self.worker.pool),
        ]
        longest = sorted(state.connections, key=lambda view: -view.state_seconds)
        lines += [
            f"connection {view.connection_id}: {view.state} for {view.state_seconds:.1f} s"
            for view in longest[:_CONNECTIONS_DESCRIBED]
        ]
        return "\n".join(lines)

    def _heartbeat(self, vitals: Vitals) -> Heartbeat:
        now, wall, state = trio.current_time(), time.time(), self.worker.state()
        beat = self.board.heartbeat(now, wall, state, __version__, vitals)
        return evolve(
            beat,
            config=self.config,
            trouble="" if state.trouble is None else mask_text(trouble_words(state.trouble)),
            suspended=_suspended(state, now, wall),
            depth_limit=_depth_limit(state, now, wall),
            types=reported_types(self.worker.types),
            relay=self.board.relay_name,
            relay_down=_relay_down(self.worker.breaker, now, wall),
        )

    def _carry_out(self, order: Order) -> str:
        """Carry out an order; return what came of it."""
        worker = self.worker
        match order:
            case Quiet():
                worker.quiet("worker quiet")
                return "quiet"
            case Resume():
                worker.resume("worker resume")
                return "claiming"
            case Drain():
                worker.drain("worker drain")
                return "draining"
            case Probe():
                return "probing" if worker.probe() else "works"
            case ShowTasks():
                return f"{self.describe()}\n{task_tree()}"
            case SetLogLevel(level, seconds):
                if self.set_log_level is None:
                    return "keeps no log"
                return level if self.set_log_level(level, seconds) else f"knows no level {level}"
            case Trace(seconds):
                # A trace that was asked for before, and for longer, is not cut off.
                self._traces_until = max(self._traces_until or 0.0, trio.current_time() + seconds)
                worker.trace(self._note_trace)
                return "tracing"
            case _:
                assert_never(order)

    def _note_trace(self, line: TraceLine) -> None:
        """Publish what was said on a connection, until the time is over or no watcher is left."""
        is_over = self._traces_until is None or trio.current_time() > self._traces_until
        if is_over or not self.presence.is_watched:
            self._traces_until = None
            self.worker.trace(None)
            return
        self.presence.note_trace(line)

    async def _keep_polling(self) -> Never:
        while True:
            await self._poll()
            await trio.sleep(self.poll_seconds)

    async def _poll(self) -> None:
        """Count the queue and read all heartbeats; a poll that fails is the claiming task's to tell."""
        began = trio.current_time()
        looked = await self._poller.poll()
        if isinstance(looked, Unavailable):
            return
        overview, _ = looked
        seen, counts, history = queue_seen(overview, trio.current_time() - began), overview.counts, self.worker.history
        self._workers = overview.workers
        history.note(counts.at, counts.pushed)
        # Our own samples, one a second, date the head better than those of the minutes.
        pushed_at = history.pushed_at(counts.popped + 1) if counts.waiting and seen.is_estimate else None
        if pushed_at is not None:
            seen = evolve(seen, oldest_seconds=max(0.0, counts.at - pushed_at))
        self.board.keep_moment(trio.current_time(), self.worker.state())
        self.worker.publish(seen)

    async def _hasten_farewell(self) -> Never:
        while True:
            await trio.sleep(FAREWELL_SECONDS)
            self.worker.client.abort_calls()


def _relay_down(breaker: Breaker, now: float, wall: float) -> RelayDown | None:
    """Return why nothing is sent, in words that name nobody; None while the breaker is closed."""
    match breaker:
        case Closed():
            return None
        case Open(trouble, _, probe_at, failures):
            return RelayDown(mask_text(trouble_quoted(trouble)), failures, wall + max(0.0, probe_at - now))
        case HalfOpen(before):
            return RelayDown(mask_text(trouble_quoted(before.trouble)), before.failures)
        case _:
            assert_never(breaker)


def _suspended(state: WorkerState, now: float, wall: float) -> Suspended | None:
    """Return the connections that the pool does without for a while, in words that name nobody."""
    suspension = state.suspension
    if suspension is None:
        return None
    until = wall + max(0.0, suspension.until - now)
    return Suspended(
        suspension.places, mask_text(trouble_quoted(suspension.trouble)), until, str(suspension.trouble.how)
    )


def _depth_limit(state: WorkerState, now: float, wall: float) -> DepthLimit | None:
    """Return why connections carry one mail at a time, in words that name nobody."""
    limit = state.one_at_a_time
    return None if limit is None else DepthLimit(deep_loss_words(limit.loss), wall + max(0.0, limit.until - now))
