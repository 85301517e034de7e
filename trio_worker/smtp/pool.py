"""Trio. The pool: a memory channel of places, each an open connection to the relay or a vacancy.

There are ``max_size`` places, and at every moment each has exactly one owner: the channel, a borrower, or the pool's
keeper. A borrower receives a place and has its connection alone; it gives it back with `send_nowait`, which can neither
block nor be cancelled, since there are never more places than the channel holds. So no place can leak.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Literal, TypeAlias, TypeVarTuple

import trio
from attrs import define, evolve, field, frozen

from trio_worker.option import option
from trio_worker.smtp.backoff import LOGIN_BACKOFF
from trio_worker.smtp.connection import Connection, OnTrace
from trio_worker.smtp.events import (
    ConnectionClosed,
    ConnectionOpened,
    ConnectionView,
    PlacesRestored,
    PlacesSuspended,
    PublishConnectionEvent,
    Suspension,
)
from trio_worker.smtp.opener import Opener, OpenSession
from trio_worker.smtp.outcome import FailureKind, Trouble
from trio_worker.smtp.relay import Timeouts

# FailureKind often the keeper looks at the places that lie in the channel: closing one a second late harms nobody.
SWEEP_SECONDS = 1.0
# For how long places stay empty after a connection could not be opened though others work: most often it is the
# relay's limit on connections. A refused login waits as long as the breaker would make it.
SUSPENDED_SECONDS = 30.0
# All QUITs at the end share this time.
CLOSE_SECONDS = 2.0


@frozen
class PoolOptions:
    """FailureKind many connections, and how long each lives (config section ``[smtp.pool]``)."""

    max_size: int = option(10, "Maximum number of connections to the relay that this process opens.", minimum=1)
    min_idle: int = option(2, "Number of connections that stay open while there is nothing to send.", minimum=0)
    pipeline_depth: int = option(
        1,
        "Maximum number of mails in flight on one connection. More than 1 is faster with a distant relay.",
        minimum=1,
        maximum=1000,
    )
    idle_seconds: float = option(
        60.0, "Idle time after which a connection is closed, unless only min_idle connections are open.", minimum=0
    )
    max_lifetime_seconds: float = option(
        300.0, "Maximum age of a connection. An older connection is closed.", minimum=1
    )
    max_messages: int = option(
        1000, "Maximum number of mails over one connection. Then the connection is closed.", minimum=1
    )
    max_uncertain: int = option(
        64, "Maximum number of mails that are uncertain if a connection is lost. Limits pipeline_depth.", minimum=1
    )

    @property
    def depth(self) -> int:
        """Messages in flight at once on one connection, at the most."""
        return min(self.pipeline_depth, self.max_uncertain)


@frozen
class Vacancy:
    """A place without a connection: whoever has it may open one."""


@frozen
class PoolClosed:
    """The pool lends nothing more: the worker drains."""


Ts = TypeVarTuple("Ts")

VACANCY = Vacancy()
POOL_CLOSED = PoolClosed()

Place: TypeAlias = Connection | Vacancy
# Called when a connection that no mail asked for could not be opened, and no other one works.
OnTrouble: TypeAlias = Callable[[Trouble], object]
# Says why no connection may be opened now; None when one may.
StandingTrouble: TypeAlias = Callable[[], Trouble | None]
# What the keeper has places for.
_Work: TypeAlias = Literal["opening", "closing", "suspended", "closed"]


@define(eq=False)
class Pool:
    """Connections to one relay. Made by `open_pool`, which keeps it and closes every connection in the end."""

    options: PoolOptions
    timeouts: Timeouts
    publish: PublishConnectionEvent
    _open_session: OpenSession
    _on_trouble: OnTrouble
    _standing_trouble: StandingTrouble
    _tasks: trio.Nursery  # where connections are watched, opened ahead, and say QUIT when they are over
    is_closed: bool = False
    depth: int = field(init=False)
    size: int = field(init=False)  # places there are: max_size, and more while places too many are out
    borrowed: int = 0  # places that are out with borrowers
    waiting: int = 0  # who waits for a place
    _kept: dict[_Work, int] = field(factory=lambda: {"opening": 0, "closing": 0, "suspended": 0, "closed": 0})
    _opener: Opener = field(init=False)
    _send: trio.MemorySendChannel[Place] = field(init=False)
    _receive: trio.MemoryReceiveChannel[Place] = field(init=False)
    _open: dict[Connection, None] = field(factory=dict)  # for whoever looks or traces; limits nothing
    _opened_ever: int = 0
    _openings: set[trio.CancelScope] = field(factory=set)  # that borrowers wait for
    _suspension: Suspension | None = None
    _on_trace: OnTrace | None = None
    _context: Context = field(factory=copy_context)  # in which each task of the keeper starts

    def __attrs_post_init__(self) -> None:
        self.depth = self.options.depth
        self._opener = Opener(self._open_session, self.publish, self._count_working)
        self.size = self.options.max_size
        self._send, self._receive = trio.open_memory_channel[Place](self.size)
        for _ in range(self.size):
            self._send.send_nowait(VACANCY)

    def __repr__(self) -> str:
        kept = ", ".join(f"{count} {what}" for what, count in self._kept.items() if count) or "none"
        return f"<Pool of {self.size} places: {self.free} free, {self.borrowed} borrowed, kept: {kept}>"

    @property
    def free(self) -> int:
        """Places in the channel."""
        return self._receive.statistics().current_buffer_used

    @property
    def mails_in_flight(self) -> int:
        """Mails on connections whose outcome is not known yet."""
        return sum(connection.conversation.in_flight for connection in self._open)

    @property
    def kept(self) -> int:
        """Places that the keeper has: it opens or closes their connections, or leaves them empty for a while."""
        return sum(self._kept.values())

    @property
    def connecting(self) -> int:
        """Connections that are being opened."""
        return self._opener.connecting

    @property
    def suspension(self) -> Suspension | None:
        """The places that stay empty for a while, and why; None where there are none."""
        if self._suspension is None or not self._kept["suspended"]:
            return None
        return evolve(self._suspension, places=self._kept["suspended"])

    def views(self) -> tuple[ConnectionView, ...]:
        """Return what a dashboard shows of each connection."""
        return tuple(connection.view() for connection in self._open)

    def borrow(self) -> Borrowed:
        """Return what an ``async with`` waits with for a place and a connection, first come first served.

        The block is given `Trouble` when a connection would have to be opened and cannot be, `PoolClosed` when the pool
        was closed before there was one. The place goes back at the end of the block. A cancel while waiting gives
        nothing and keeps nothing. There is no checkpoint where nothing has to be waited for.
        """
        return Borrowed(self)

    async def acquire(self) -> Connection | Trouble | PoolClosed:
        """Wait for a connection, the most recently used one that is free; what is returned goes to `give_back`."""
        while not self.is_closed:
            try:
                place = self._next_place() or await self._wait_for_place()
            except trio.ClosedResourceError:  # the pool is closed, or has a larger channel now
                continue
            if self.is_closed:  # while the place was on its way to us
                self._put(place)
                break
            self.borrowed += 1
            if isinstance(place, Vacancy):
                opened = await self._fill_vacancy()
                if opened is not None:
                    return opened
                # No connection for this place, though others work: the keeper has it, and one of them must do.
            elif not self._why_over(place):
                return place
            else:
                self.give_back(place)
        return POOL_CLOSED

    def give_back(self, borrowed: Connection | Trouble | PoolClosed) -> None:
        """Take back what was borrowed. Never awaits, cannot fail."""
        if isinstance(borrowed, Connection):
            self.borrowed -= 1
            self._put(borrowed)

    def room(self, connection: Connection) -> int:
        """Return how many more messages may go over a borrowed connection now; 0 also when it is to be given back."""
        if self.is_closed or self._why_over(connection):
            return 0
        in_flight = connection.in_flight
        left = self.options.max_messages - connection.conversation.delivered - in_flight
        return max(0, min(left, connection.room(self.depth, in_flight)))

    def resize(self, options: PoolOptions) -> None:
        """Keep to other options from now on; mails in flight are seen through, connections too many end when idle."""
        self.options, self.depth = options, options.depth
        if self.is_closed:
            return
        places = self._take_all()
        if options.max_size > self.size:
            # A memory channel cannot grow. Whoever waits at the old one goes to the new one.
            self._receive.close()
            self._send, self._receive = trio.open_memory_channel[Place](options.max_size)
            places += [VACANCY] * (options.max_size - self.size)
            self.size = options.max_size
        withdrawn = min(self._kept["suspended"], max(0, self.size - options.max_size))
        self._kept["suspended"] -= withdrawn
        self.size -= withdrawn
        for place in sorted(places, key=lambda place: isinstance(place, Connection)):
            self._put(place)

    def trace(self, on_trace: OnTrace | None) -> None:
        """Call ``on_trace`` with each command and its reply on every connection from now on; None ends it."""
        self._on_trace = on_trace
        for connection in self._open:
            connection.trace(on_trace)

    def try_suspended(self) -> None:
        """Let suspended places be tried at once: what kept them empty may just have been mended."""
        self._restore()
        self._opener.trouble = None

    def close(self) -> None:
        """Lend nothing more: whoever waits for a place or a connection gets `PoolClosed` at once. Never awaits."""
        if self.is_closed:
            return
        self.is_closed = True
        self._kept["closed"] += len(self._take_all())
        self._receive.close()
        for scope in self._openings:
            scope.cancel()
        for connection in self._open:
            connection.nudge()  # whoever has more to send over it gives that back

    def _put(self, place: Place) -> None:
        """Put a place where the next one finds it, or to the keeper if its connection is over; drop one too many."""
        if isinstance(place, Connection):
            why = self._why_over(place)
            if place.end:
                place.abort()
                self._note_closed(place, why)
                place = VACANCY
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
        """Whether ``max_size`` was lowered, and places are still to go."""
        return self.size > self.options.max_size and not self.is_closed

    def _keep(self, what: _Work, work: Callable[[*Ts], Awaitable[Place | None]], *args: *Ts) -> None:
        """Have the keeper work on a place that is its own until then; ``work`` returns it, or None to suspend it."""

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
        # Whoever gives other options may have another context: that of the signals knows no asyncio loop.
        self._context.run(self._tasks.start_soon, run)

    def _next_place(self) -> Place | None:
        """Take the best of the places that lie in the channel; None where there is none."""
        try:
            first = self._receive.receive_nowait()
        except trio.WouldBlock:
            return None
        return self._best(first)

    async def _wait_for_place(self) -> Place:
        """Wait for the next place that comes back."""
        self.waiting += 1
        try:
            return await self._receive.receive()
        finally:
            self.waiting -= 1

    def _best(self, first: Place) -> Place:
        """Keep the most recently used connection of a place and what else lies in the channel, put the others back.

        To take them in turn would touch every connection and let each go stale.
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
        """Take whatever lies in the channel."""
        return [self._receive.receive_nowait() for _ in range(self.free)]

    def _why_over(self, connection: Connection) -> str:
        if connection.conversation.end is not None:
            return connection.end
        if connection.conversation.delivered >= self.options.max_messages:
            return "max_messages"
        # As of its last mail: what the clock says is asked once a second, by the keeper.
        is_old = connection.used_at - connection.opened_at >= self.options.max_lifetime_seconds
        return "max_lifetime" if is_old else ""

    def _count_working(self) -> int:
        return sum(connection.conversation.end is None for connection in self._open)

    def _has_working(self) -> bool:
        return self._count_working() > 0

    async def _fill_vacancy(self) -> Connection | Trouble | None:
        """Open a connection for a place just borrowed; None when the keeper has the place now, or the pool was closed.

        With trouble the place is back in the channel. Nothing is opened while trouble stands: a mail that was claimed
        before it came must not try again, for a login that is refused often is locked.
        """
        found = self._standing_trouble()
        if found is not None:
            self.borrowed -= 1
            self._put(VACANCY)
            return found
        opened: Connection | Trouble | None = None
        is_suspended = False
        with trio.CancelScope() as scope:  # for `close` to cancel
            self._openings.add(scope)
            try:
                opened = self._suspended_trouble() or await self._open_one()
            finally:
                self._openings.discard(scope)
                if not isinstance(opened, Connection):
                    self.borrowed -= 1
                    is_suspended = self._vacate(opened)
        # What keeps one place empty keeps nobody waiting who can have another.
        return None if opened is None or (isinstance(opened, Trouble) and is_suspended) else opened

    def _suspended_trouble(self) -> Trouble | None:
        if self._suspension is not None and not self._has_working():
            self._restore()
        return None if self._suspension is None else self._suspension.trouble

    def _vacate(self, trouble: Trouble | None) -> bool:
        """Put an empty place back; suspend it, which is returned, after trouble that other connections do not have."""
        if trouble is None or self.is_closed or not self._has_working():
            self._put(VACANCY)
            return False
        self._kept["suspended"] += 1
        if self._suspension is None:
            self._suspend(trouble, failures=1)
        return True

    def _suspend(self, trouble: Trouble, failures: int) -> None:
        """Leave every empty place alone for a while: openings that fail in a row look like an attack."""
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
        """Put suspended places back into the channel; so many ``tried`` ones come back by themselves."""
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
        connection = Connection(self._opened_ever, opened, self.timeouts)
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

    def _note_closed(self, connection: Connection, why: str) -> None:
        if connection not in self._open:
            return  # closed with all others while it said QUIT
        del self._open[connection]
        age_seconds = trio.current_time() - connection.opened_at
        self.publish(ConnectionClosed(connection.connection_id, why, connection.delivered, age_seconds))
        if not self._has_working():
            self._restore()  # with no connection left there is nothing to do with fewer of

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
            # What waits behind its mails may have a faster way over another one.
            connection.nudge_if_silent(now - SWEEP_SECONDS)
        spare = len(self._open) - self._kept["closing"] - self.options.min_idle
        for place in sorted(self._take_all(), key=_last_used):
            if not isinstance(place, Connection) or self._why_over(place):
                self._put(place)
            elif now - place.opened_at >= self.options.max_lifetime_seconds:
                spare -= 1
                self._keep("closing", self._retire, place, "max_lifetime")
            elif now - place.used_at >= self.options.idle_seconds and spare > 0:
                spare -= 1
                self._keep("closing", self._retire, place, "idle")
            else:
                self._put(place)
        self._look_at_suspension(now)
        self._open_ahead()

    def _look_at_suspension(self, now: float) -> None:
        """When its time is over try one place, whether or not a mail waits: what is told of it stays true."""
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
        self._restore(tried=1)
        return opened if isinstance(opened, Connection) else VACANCY

    def _open_ahead(self) -> None:
        """Open what is missing to ``min_idle``: not after a failure, for each try may count as a failed login."""
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
        """Say QUIT on a connection that is used no more; its place is empty when it is closed, and not before."""
        try:
            await connection.close()
        finally:
            self._note_closed(connection, why)
        return VACANCY

    async def close_connections(self) -> None:
        """Say QUIT on every connection, all at once, and end them."""
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
    """One place of a pool and its connection, for an ``async with`` block; see `Pool.borrow`."""

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
    """Open a pool and keep it for the block; all connections are closed at its end, also on a cancel.

    ``open_session`` opens one connection to the relay. ``on_trouble`` is called with the trouble of one that the pool
    opened for its own sake. While ``standing_trouble`` returns some, none is opened.

    No message may be in flight when the block ends: the tasks that borrow live in a nursery inside it.
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
