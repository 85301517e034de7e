"""Trio. The connection pool: a memory channel of places, each an open connection to the relay or a vacancy.

There are ``max_size`` places, and at every moment each has exactly one owner: the channel, a borrower, or the pool's
keeper (the background task of the pool). A borrower takes a place out of the channel and is the only user of its
connection. It puts the place back with `send_nowait`, which can neither block nor be cancelled, since there are never
more places than the channel holds. So no place can leak.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Literal, TypeAlias, TypeVarTuple

import trio
from attrs import evolve, field

from trio_worker.records import define, frozen
from trio_worker.smtp.backoff import LOGIN_BACKOFF
from trio_worker.smtp.connection import Connection, OnTrace
from trio_worker.smtp.depth import Depth
from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionView,
    OneAtATime,
    PlacesRestored,
    PlacesSuspended,
    PublishConnectionEvent,
    Suspension,
)
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.opener import Opener, OpenSession
from trio_worker.smtp.options import PoolOptions, Timeouts
from trio_worker.smtp.outcome import Loss, Trouble
from trio_worker.smtp.withdrawal import Withdrawals

# How often the keeper checks the places in the channel: a connection that is closed a second late does no harm.
SWEEP_SECONDS = 1.0
# How long places stay empty after a connection could not be opened while others work: the usual cause is the relay's
# limit on connections. After a refused login they stay empty as long as the circuit breaker would wait.
SUSPENDED_SECONDS = 30.0
# At the end all connections say QUIT at the same time, and all together have this long.
CLOSE_SECONDS = 2.0


@frozen
class Vacancy:
    """A place without a connection: its owner may open one."""


@frozen
class PoolClosed:
    """The pool is closed and hands out no more connections: the worker drains."""


_Ts = TypeVarTuple("_Ts")

VACANCY = Vacancy()
POOL_CLOSED = PoolClosed()

Place: TypeAlias = Connection | Vacancy
# Called when a connection for min_idle could not be opened, and no other connection works.
OnTrouble: TypeAlias = Callable[[Trouble], object]
# Returns why no connection may be opened now; None when one may.
StandingTrouble: TypeAlias = Callable[[], Trouble | None]
# What the keeper owns a place for.
_Work: TypeAlias = Literal["opening", "closing", "suspended", "closed"]


@define(eq=False)
class Pool:
    """The connections to one relay. Made by `open_pool`, which also runs its keeper and closes every connection."""

    options: PoolOptions
    timeouts: Timeouts
    publish: PublishConnectionEvent
    _open_session: OpenSession
    _on_trouble: OnTrouble
    _standing_trouble: StandingTrouble
    _tasks: trio.Nursery  # for the tasks that watch connections, open them ahead and close them
    is_closed: bool = False
    size: int = field(init=False)  # number of places: max_size, or more until a surplus has come back
    borrowed: int = 0  # places that are out with borrowers
    waiting: int = 0  # tasks that wait for a place
    _kept: dict[_Work, int] = field(factory=lambda: {"opening": 0, "closing": 0, "suspended": 0, "closed": 0})
    _opener: Opener = field(init=False)
    _send: trio.MemorySendChannel[Place] = field(init=False)
    _receive: trio.MemoryReceiveChannel[Place] = field(init=False)
    _open: dict[Connection, None] = field(factory=dict)  # in the order of opening; for views and traces, limits nothing
    _opened_ever: int = 0
    _openings: set[trio.CancelScope] = field(factory=set)  # of openings that borrowers wait for
    _suspension: Suspension | None = None
    _depth: Depth = field(init=False)
    _withdrawals: Withdrawals = field(factory=Withdrawals)  # each is closed when it is given back
    _on_trace: OnTrace | None = None
    _context: Context = field(factory=copy_context)  # each task of the keeper starts in it

    def __attrs_post_init__(self) -> None:
        self._depth = Depth(self.options.depth, self.publish)
        self._opener = Opener(self._open_session, self.publish, self._count_working)
        self.size = self.options.max_size
        self._send, self._receive = trio.open_memory_channel[Place](self.size)
        for _ in range(self.size):
            self._send.send_nowait(VACANCY)

    def __repr__(self) -> str:
        kept = ", ".join(f"{count} {what}" for what, count in self._kept.items() if count) or "none"
        return f"<Pool of {self.size} places: {self.free} free, {self.borrowed} borrowed, kept: {kept}>"

    @property
    def depth(self) -> int:
        """How many mails may be in flight on each connection now."""
        return self._depth.current

    @property
    def one_at_a_time(self) -> OneAtATime | None:
        """Why the depth is 1 for now; None while it is that of the options."""
        return self._depth.one_at_a_time

    @property
    def free(self) -> int:
        """Places in the channel."""
        return self._receive.statistics().current_buffer_used

    @property
    def mails_in_flight(self) -> int:
        """Mails on the connections whose outcome is not known yet."""
        return sum(connection.conversation.in_flight for connection in self._open)

    @property
    def kept(self) -> int:
        """Places that the keeper owns: their connections are being opened or closed, or they are suspended."""
        return sum(self._kept.values())

    @property
    def connecting(self) -> int:
        """Connections that are being opened now."""
        return self._opener.connecting

    @property
    def suspension(self) -> Suspension | None:
        """How many places are suspended, and why; None if no place is."""
        if self._suspension is None or not self._kept["suspended"]:
            return None
        return evolve(self._suspension, places=self._kept["suspended"])

    def views(self) -> tuple[ConnectionView, ...]:
        """Return the state of each connection, as a dashboard shows it."""
        return tuple(connection.view() for connection in self._open)

    def borrow(self) -> Borrowed:
        """Return a context manager that waits for a connection, first come first served, and gives it back.

        Its ``as`` value is a `Connection`, `Trouble` if one had to be opened and could not be, or `PoolClosed`. A
        cancel during the wait leaves the pool as it was. If a connection is free at once there is no checkpoint.
        """
        return Borrowed(self)

    async def acquire(self) -> Connection | Trouble | PoolClosed:
        """Wait for a connection, the most recently used one that is free; pass the result to `give_back` afterwards."""
        while not self.is_closed:
            try:
                place = self._next_place() or await self._wait_for_place()
            except trio.ClosedResourceError:  # the pool was closed, or has a new, larger channel
                continue
            if self.is_closed:  # while the place was on its way to this task
                self._put(place)
                break
            self.borrowed += 1
            if isinstance(place, Vacancy):
                opened = await self._fill_vacancy()
                if opened is not None:
                    return opened
                # No connection for this place while others work: the keeper owns it now; wait for one of the others.
            elif not self._why_close(place):
                return place
            else:
                self.give_back(place)
        return POOL_CLOSED

    def give_back(self, borrowed: Connection | Trouble | PoolClosed) -> None:
        """Give back what `acquire` returned. Never awaits, cannot fail."""
        if isinstance(borrowed, Connection):
            self.borrowed -= 1
            self._put(borrowed)

    def room(self, connection: Connection) -> int:
        """Return how many more messages a borrowed connection may take now; 0 also if it must be given back."""
        if self.is_closed or self._why_close(connection):
            return 0
        in_flight = connection.in_flight
        left = self.options.max_messages - connection.conversation.delivered - in_flight
        return max(0, min(left, connection.room(self.depth, in_flight)))

    def resize(self, options: PoolOptions) -> None:
        """Use other options from now on; mails in flight are finished, surplus connections are closed when idle."""
        self.options = options
        self._depth.change(options.depth)
        if self.is_closed:
            return
        places = self._take_all()
        if options.max_size > self.size:
            # A memory channel cannot grow. The tasks that wait at the old one go on to the new one.
            self._receive.close()
            self._send, self._receive = trio.open_memory_channel[Place](options.max_size)
            places += [VACANCY] * (options.max_size - self.size)
            self.size = options.max_size
        withdrawn = min(self._kept["suspended"], max(0, self.size - options.max_size))
        self._kept["suspended"] -= withdrawn
        self.size -= withdrawn
        for place in sorted(places, key=lambda place: isinstance(place, Connection)):
            self._put(place)

    def withdraw(self, connection_id: int, trouble: Trouble, began: float) -> bool:
        """Do without a connection over which the relay said that there are too many; its place stays empty for a while.

        ``began`` is when the refused mail was sent (local clock): what the relay said while others were still being
        closed is no new evidence. False if it is the last connection that works, which then stays.
        """
        refused = next((each for each in self._open if each.connection_id == connection_id), None)
        if refused is None or not self._withdrawals.is_news(connection_id, began):
            return True
        working = (each for each in self._open if each.conversation.end is None)
        staying = sum(each.connection_id not in self._withdrawals for each in working)
        if staying <= 1:
            return bool(self._withdrawals)
        if self._withdrawals.choose(connection_id, staying):
            self._suspend(trouble, failures=1)
        return True

    def trace(self, on_trace: OnTrace | None) -> None:
        """Call ``on_trace`` with each command and its reply on every connection from now on; None ends it."""
        self._on_trace = on_trace
        for connection in self._open:
            connection.trace(on_trace)

    def try_suspended(self) -> None:
        """End a suspension at once, for example after the settings changed: its cause may be gone."""
        self._restore()
        self._opener.trouble = None

    def close(self) -> None:
        """Hand out no more connections: every task that waits gets `PoolClosed` at once. Never awaits."""
        if self.is_closed:
            return
        self.is_closed = True
        self._kept["closed"] += len(self._take_all())
        self._receive.close()
        for scope in self._openings:
            scope.cancel()
        for connection in self._open:
            connection.nudge()  # its borrower gives back the mails that have not begun

    def _put(self, place: Place) -> None:
        """Put a place into the channel, or give it to the keeper to close its connection; drop a surplus place."""
        if isinstance(place, Connection):
            why = self._why_close(place)
            if place.end:
                place.abort()
                was_withdrawn = place.connection_id in self._withdrawals
                self._note_closed(place, why)
                if was_withdrawn and self._suspension is not None and not self.is_closed:
                    self._kept["suspended"] += 1
                    return
                place = VACANCY
            elif place.connection_id in self._withdrawals and not self.is_closed:
                self._keep("closing", self._retire_withdrawn, place)
                return
            elif why or self._has_too_many:
                self._keep("closing", self._retire, place, why or "idle")
                return
        if self.is_closed:
            self._kept["closed"] += 1
        elif self._has_too_many:
            self.size -= 1
        else:
            self._send.send_nowait(place)

    @property
    def _has_too_many(self) -> bool:
        """Whether ``max_size`` was lowered and there are still more places than that."""
        return self.size > self.options.max_size and not self.is_closed

    def _keep(self, what: _Work, work: Callable[[*_Ts], Awaitable[Place | None]], *args: *_Ts) -> None:
        """Let the keeper own a place while ``work`` runs; that returns the place to put back, or None to suspend it."""

        async def run() -> None:
            place: Place | None = VACANCY
            try:
                place = await work(*args)
            finally:
                self._kept[what] -= 1
                if place is None:
                    self._kept["suspended"] += 1
                else:
                    self._put(place)

        self._kept[what] += 1
        # `resize` may be called in another context: that of the signal handler knows no asyncio loop.
        self._context.run(self._tasks.start_soon, run)

    def _next_place(self) -> Place | None:
        """Take the best place out of the channel; None if it is empty."""
        try:
            first = self._receive.receive_nowait()
        except trio.WouldBlock:
            return None
        return self._best(first)

    async def _wait_for_place(self) -> Place:
        """Wait for the next place that is put into the channel."""
        self.waiting += 1
        try:
            return await self._receive.receive()
        finally:
            self.waiting -= 1

    def _best(self, first: Place) -> Place:
        """Return the most recently used of ``first`` and the places in the channel; put the others back.

        Using the connections in turn would keep each of them just long enough to be stale.
        """
        others = self._take_all()
        if not others:
            return first
        places = [first, *others]
        best = max(places, key=_last_used)
        places.remove(best)
        for place in places:
            self._send.send_nowait(place)
        return best

    def _take_all(self) -> list[Place]:
        """Take all places out of the channel."""
        return [self._receive.receive_nowait() for _ in range(self.free)]

    def _why_close(self, connection: Connection) -> str:
        if connection.conversation.end is not None:
            return connection.end
        if connection.conversation.spent:
            return connection.conversation.spent
        if connection.connection_id in self._withdrawals:
            return "concurrency"
        if connection.conversation.delivered >= self.options.max_messages:
            return "max_messages"
        # Its age as of its last mail: the keeper checks the clock once a second.
        is_old = connection.used_at - connection.opened_at >= self.options.max_lifetime_seconds
        return "max_lifetime" if is_old else ""

    def _count_working(self) -> int:
        return sum(connection.conversation.end is None for connection in self._open)

    def _has_working(self) -> bool:
        return self._count_working() > 0

    async def _fill_vacancy(self) -> Connection | Trouble | None:
        """Open a connection for a vacancy just borrowed; None if the keeper owns the place now, or the pool was closed.

        If `Trouble` is returned, the place is back in the channel. While there is a standing trouble nothing is opened:
        a mail that was claimed before it must not cause another try, since relays lock a login that fails often.
        """
        found = self._standing_trouble()
        if found is not None:
            self.borrowed -= 1
            self._put(VACANCY)
            return found
        opened: Connection | Trouble | None = None
        is_suspended = False
        with trio.CancelScope() as scope:  # so that `close` can cancel it
            self._openings.add(scope)
            try:
                opened = self._suspended_trouble() or await self._open_one()
            finally:
                self._openings.discard(scope)
                if not isinstance(opened, Connection):
                    self.borrowed -= 1
                    is_suspended = self._vacate(opened)
        # If only this place is suspended, the caller can wait for another one.
        return None if opened is None or (isinstance(opened, Trouble) and is_suspended) else opened

    def probe(self) -> None:
        """Open a connection now if none works, whatever failed before; a suspension ends at once."""
        self.try_suspended()
        if self.is_closed or self._has_working() or self._kept["opening"]:
            return
        for place in self._take_all():
            if isinstance(place, Vacancy) and not self._kept["opening"]:
                self._keep("opening", self._open_idle)
            else:
                self._send.send_nowait(place)

    def _suspended_trouble(self) -> Trouble | None:
        if self._suspension is not None and not self._has_working():
            self._restore()
        return None if self._suspension is None else self._suspension.trouble

    def _vacate(self, trouble: Trouble | None) -> bool:
        """Put an empty place back, or suspend it after trouble that other connections do not have; return which."""
        if trouble is None or self.is_closed or not self._has_working():
            self._put(VACANCY)
            return False
        self._kept["suspended"] += 1
        if self._suspension is None:
            self._suspend(trouble, failures=1)
        return True

    def _suspend(self, trouble: Trouble, failures: int) -> None:
        """Open nothing for any empty place for a while: openings that fail in a row look like an attack."""
        seconds = SUSPENDED_SECONDS
        if trouble.how is FailureKind.LOGIN:
            seconds = min(LOGIN_BACKOFF.cap_seconds, LOGIN_BACKOFF.first_seconds * 2.0 ** min(failures - 1, 20))
        self._suspension = Suspension(trouble, trio.current_time() + seconds, failures)
        for place in self._take_all():
            if isinstance(place, Vacancy):
                self._kept["suspended"] += 1
            else:
                self._send.send_nowait(place)
        self.publish(PlacesSuspended(trouble, seconds))

    def _restore(self, tried: int = 0) -> None:
        """Put suspended places back into the channel; ``tried`` others come back by themselves and are only counted."""
        if self._suspension is None:
            return
        self._suspension = None
        count, self._kept["suspended"] = self._kept["suspended"], 0
        for _ in range(count):
            self._put(VACANCY)
        self.publish(PlacesRestored(count + tried))

    async def _open_one(self) -> Connection | Trouble:
        opened = await self._opener.open()
        if isinstance(opened, Trouble):
            return opened
        self._opened_ever += 1
        connection = Connection(self._opened_ever, opened, self.timeouts, on_deep_loss=self._note_deep_loss)
        connection.trace(self._on_trace)
        self._open[connection] = None
        self._tasks.start_soon(connection.watch)
        self.publish(
            ConnectionOpened(
                connection.connection_id,
                opened.seconds,
                opened.capabilities,
                opened.tls,
                opened.certificate_ends_at,
            )
        )
        return connection

    def _note_deep_loss(self, loss: Loss) -> None:
        self._depth.limit(loss, trio.current_time())

    def _note_closed(self, connection: Connection, why: str) -> None:
        if connection not in self._open:
            return  # `close_connections` has closed it while it said QUIT
        del self._open[connection]
        now = trio.current_time()
        self._withdrawals.note_closed(connection.connection_id, now)
        age_seconds = now - connection.opened_at
        self.publish(ConnectionClosed(connection.connection_id, why, connection.delivered, age_seconds))
        if not self._has_working():
            self._restore()  # a suspension makes sense only while other connections work

    async def keep(self) -> None:
        """Close connections that were idle or lived too long, and keep ``min_idle`` of them open, until a cancel."""
        while True:
            self._sweep()
            await trio.sleep(SWEEP_SECONDS)

    def _sweep(self) -> None:
        if self.is_closed:
            return
        now = trio.current_time()
        for connection in self._open:
            # Mails that wait for this connection may be sent faster over another one.
            connection.nudge_if_silent(now - SWEEP_SECONDS)
        spare = len(self._open) - self._kept["closing"] - self.options.min_idle
        for place in sorted(self._take_all(), key=_last_used):
            if not isinstance(place, Connection) or self._why_close(place):
                self._put(place)
            elif now - place.opened_at >= self.options.max_lifetime_seconds:
                spare -= 1
                self._keep("closing", self._retire, place, "max_lifetime")
            elif now - place.used_at >= self.options.idle_seconds and spare > 0:
                spare -= 1
                self._keep("closing", self._retire, place, "idle")
            else:
                self._put(place)
        self._depth.restore_if_due(now)
        self._check_suspension(now)
        self._open_ahead()

    def _check_suspension(self, now: float) -> None:
        """Try one suspended place when the time is over, even if no mail waits, so that the figures shown stay true."""
        suspension = self._suspension
        is_due = suspension is not None and now >= suspension.until and not self._kept["opening"]
        if suspension is None or not is_due or self._standing_trouble() is not None:
            return
        if self._kept["suspended"]:
            self._kept["suspended"] -= 1
            self._keep("opening", self._try_suspended_place, suspension)
        else:
            self._restore()

    async def _try_suspended_place(self, suspension: Suspension) -> Place | None:
        opened = await self._open_one()
        if self._suspension is suspension and isinstance(opened, Trouble) and self._has_working():
            self._suspend(opened, suspension.failures + 1)
            return None
        if self._suspension is suspension and suspension.trouble.how is FailureKind.CONCURRENCY:
            # That it could be opened says nothing: its first mail will. The other places come back one after another.
            self._suspension = evolve(suspension, until=trio.current_time() + SUSPENDED_SECONDS)
            self.publish(PlacesRestored(1))
            return opened if isinstance(opened, Connection) else VACANCY
        self._restore(tried=1)
        return opened if isinstance(opened, Connection) else VACANCY

    def _open_ahead(self) -> None:
        """Open connections up to ``min_idle``; not after a failure, since each try may count as a failed login."""
        coming = max(self.connecting, self._kept["opening"])
        missing = self.options.min_idle - (len(self._open) - self._kept["closing"]) - coming
        if self._opener.trouble is not None or self._standing_trouble() is not None:
            return
        for place in self._take_all():
            if isinstance(place, Vacancy) and missing > 0:
                missing -= 1
                self._keep("opening", self._open_idle)
            else:
                self._send.send_nowait(place)

    async def _open_idle(self) -> Place | None:
        opened = await self._open_one()
        if isinstance(opened, Connection):
            return opened
        if self._has_working():
            if self._suspension is None:
                self._suspend(opened, failures=1)
            return None
        self._on_trouble(opened)
        return VACANCY

    async def _retire(self, connection: Connection, why: str) -> Place:
        """Close a connection with QUIT; its place becomes a vacancy when it is closed, not before."""
        try:
            await connection.close()
        finally:
            self._note_closed(connection, why)
        return VACANCY

    async def _retire_withdrawn(self, connection: Connection) -> Place | None:
        """Close a connection that is one too many; its place is suspended while others work."""
        await self._retire(connection, "concurrency")
        return None if self._suspension is not None and not self.is_closed else VACANCY

    async def close_connections(self) -> None:
        """Say QUIT on all connections at the same time, and close them."""
        self.close()
        whys = {connection: connection.end or "drained" for connection in self._open}
        with trio.move_on_after(CLOSE_SECONDS):
            async with trio.open_nursery() as closing:
                for connection in whys:
                    closing.start_soon(connection.close)
        for connection, why in whys.items():
            connection.abort()
            self._note_closed(connection, why)


def _last_used(place: Place) -> float:
    return place.used_at if isinstance(place, Connection) and not place.end else -math.inf


@define(eq=False)
class Borrowed:
    """A place borrowed from a pool for an ``async with`` block; see `Pool.borrow`."""

    _pool: Pool
    _borrowed: Connection | Trouble | PoolClosed = POOL_CLOSED

    async def __aenter__(self) -> Connection | Trouble | PoolClosed:
        self._borrowed = await self._pool.acquire()
        return self._borrowed

    async def __aexit__(self, *_: object) -> None:
        self._pool.give_back(self._borrowed)


@asynccontextmanager
async def open_pool(
    options: PoolOptions,
    timeouts: Timeouts,
    open_session: OpenSession,
    publish: PublishConnectionEvent,
    on_trouble: OnTrouble = lambda _: None,
    standing_trouble: StandingTrouble = lambda: None,
) -> AsyncIterator[Pool]:
    """Open a pool for the block; all connections are closed at its end, also on a cancel.

    ``open_session`` opens one session with the relay. ``on_trouble`` is called if a connection for ``min_idle`` cannot
    be opened and no other works. While ``standing_trouble`` returns a trouble, no connection is opened.

    No message may be in flight when the block ends: run the tasks that borrow in a nursery inside it.
    """
    async with trio.open_nursery() as keeping:
        pool = Pool(options, timeouts, publish, open_session, on_trouble, standing_trouble, keeping)
        keeping.start_soon(pool.keep)
        try:
            yield pool
        finally:
            keeping.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS + 1):
                await pool.close_connections()
