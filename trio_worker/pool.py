"""Trio. The connections to the relay: kept, and lent for a message each.

There are ``max_size * depth`` slots. To borrow is to take one and then, without a checkpoint, to choose the most
recently used connection whose window has room, or to open one, or to wait for room.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio
from attrs import define, field, frozen

from trio_worker.connection import Connection, TellExchange
from trio_worker.events import ConnectionClosed, ConnectionFailed, ConnectionOpened, ConnectionView, Publish
from trio_worker.opening import Opened, Timeouts
from trio_worker.option import option
from trio_worker.outcome import Trouble
from trio_worker.slots import Slots

# How often connections are looked through for those that are idle or old: closing one a second late harms nobody.
SWEEP_SECONDS = 1.0
# A connection that rested longer may have died unseen: its next message waits for the replies to RCPT.
RESTED_SECONDS = 5.0
# All QUITs at the end share this time.
CLOSE_SECONDS = 2.0


@frozen
class PoolOptions:
    """How many connections, and how long each lives (config section ``[smtp.pool]``)."""

    max_size: int = option(10, "Most connections to the relay that this process opens.", least=1)
    min_idle: int = option(2, "Connections kept open while there is nothing to send.", least=0)
    pipeline_depth: int = option(
        1,
        "Messages in flight at once on one connection; more hide the round trip to a distant relay.",
        least=1,
        most=1000,
    )
    idle_seconds: float = option(60.0, "Rest after which a connection beyond min_idle is closed.", least=0)
    max_lifetime_seconds: float = option(300.0, "Age at which a connection is closed.", least=1)
    max_messages: int = option(1000, "Messages after which a connection is closed.", least=1)
    max_uncertain: int = option(
        64, "Most messages that one lost connection may leave uncertain; bounds pipeline_depth.", least=1
    )

    @property
    def depth(self) -> int:
        """Messages in flight at once on one connection, at the most."""
        return min(self.pipeline_depth, self.max_uncertain)


@frozen
class Shut:
    """The pool lets no more messages in: the worker drains."""


_SHUT = Shut()

Open: TypeAlias = Callable[[], Awaitable[Opened | Trouble]]
# Told of trouble with an opening that no mail asked for, when no connection works.
TellTrouble: TypeAlias = Callable[[Trouble], object]
# Says why no connection may be opened now; None when one may.
StandingTrouble: TypeAlias = Callable[[], Trouble | None]


@define(eq=False)
class Pool:
    """Connections to one relay. Made by `open_pool`, which keeps it and closes every connection in the end."""

    options: PoolOptions
    timeouts: Timeouts
    publish: Publish
    _open_session: Open
    _tell_trouble: TellTrouble
    _standing_trouble: StandingTrouble
    _tasks: trio.Nursery  # where connections are watched, and say QUIT when they are over
    _connections: list[Connection] = field(factory=list)  # the most recently used last
    _opening: int = 0
    _opened_ever: int = 0
    _trouble: Trouble | None = None  # of the last opening; None after a good one
    _is_proven: bool = False  # whether the last opening went well, so that several may open at once
    _single_flight: trio.Lock = field(factory=trio.Lock)
    _queue: dict[trio.Event, None] = field(factory=dict)  # who waits for room, in the order of coming
    _entering: set[trio.CancelScope] = field(factory=set)
    _is_shut: bool = False
    _tell_exchange: TellExchange | None = None
    _depth: int = field(init=False)
    _slots: Slots = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._depth = self.options.depth
        self._slots = Slots(self.options.max_size * self._depth)

    @property
    def capacity(self) -> int:
        return self._slots.capacity

    @property
    def slots_home(self) -> int:
        """Slots that nobody has borrowed, withheld ones included."""
        return self._slots.home

    def __repr__(self) -> str:
        busy = sum(connection.lent > 0 for connection in self._connections)
        return (
            f"<Pool: {len(self._connections)} connections, {busy} busy, {self._opening} opening; "
            f"{self.slots_home} of {self.capacity} slots home>"
        )

    def views(self) -> tuple[ConnectionView, ...]:
        """Return what a dashboard shows of each connection."""
        return tuple(connection.view() for connection in self._connections)

    def borrow(self) -> Loan:
        """Return what an ``async with`` waits with for a slot and a connection with room for one message.

        The block is given `Trouble` when a connection would have to be opened and cannot be, `Shut` when the pool was
        shut before there was one. The slot goes home at the end of the block. A cancel while waiting gives nothing and
        keeps nothing. There is no checkpoint where nothing has to be waited for.
        """
        return Loan(self)

    def lend_nowait(self) -> Connection | None:
        """Lend a slot and a connection with room, if both are there."""
        if self._is_shut or self._queue or not self._slots.take_nowait():
            return None
        chosen = self._choose()
        if chosen is None:
            self._slots.bring_home()
            return None
        chosen.lent += 1
        return chosen

    async def lend(self) -> Connection | Trouble | Shut:
        """Wait for a slot, and then for a connection with room; `Shut` comes without a slot."""
        if self._is_shut:
            return _SHUT
        has_slot = False
        with trio.CancelScope() as scope:  # for `shut` to cancel
            self._entering.add(scope)
            try:
                while True:
                    await self._slots.take()
                    has_slot = True
                    lent = await self._connection()
                    has_slot = False
                    if lent is not None:
                        return lent
                    # No connection for this slot, though others work: the relay may limit them. Do with fewer slots.
                    self._slots.withhold()
            finally:
                self._entering.discard(scope)
                if has_slot:
                    self._slots.bring_home()
        return _SHUT

    def take_back(self, lent: Connection | Trouble | Shut) -> None:
        """Take back what was lent, and its slot. Never awaits, cannot fail."""
        if isinstance(lent, Shut):
            return
        if isinstance(lent, Connection):
            lent.lent -= 1
            if not lent.lent:
                self._retire_if_over(lent)
            self._wake_for_room()
        self._slots.bring_home()

    def resize(self, options: PoolOptions) -> None:
        """Keep to other options from now on; mails in flight are seen through, connections too many end when idle."""
        self.options, self._depth = options, options.depth
        self._slots.resize(options.max_size * self._depth)
        self._wake_for_room()

    @property
    def connecting(self) -> int:
        """Connections that are being opened."""
        return self._opening

    @property
    def backing_off(self) -> int:
        """Places for connections that stay empty for a while after one could not be opened."""
        return self._slots.withheld // self._depth

    def trace(self, tell: TellExchange | None) -> None:
        """Tell each command and its reply on every connection from now on; None ends it."""
        self._tell_exchange = tell
        for connection in self._connections:
            connection.trace(tell)

    def shut(self) -> None:
        """Let no more messages in: whoever waits for a slot or a connection gets `Shut` at once."""
        self._is_shut = True
        for scope in self._entering:
            scope.cancel()

    def abort(self) -> None:
        """Break every connection: what waited for a final reply becomes uncertain. Never awaits."""
        for connection in tuple(self._connections):
            connection.abort()

    async def _connection(self) -> Connection | Trouble | None:
        """Return a connection with room, opening one if need be; None when only that failed while others work."""
        while True:
            chosen = self._choose()
            if chosen is not None:
                chosen.lent += 1
                return chosen
            if len(self._connections) + self._opening >= self.options.max_size:
                # Every window is full, or every place taken by a connection that is being opened for the pool's sake.
                await self._wait_for_room()
                continue
            opened = await self._open_one()
            match opened:
                case Connection():
                    opened.lent += 1
                    return opened
                case Trouble():
                    return None if any(not each.end for each in self._connections) else opened
                case None:
                    pass  # somebody else's opening went well while this one queued: look again

    def _choose(self) -> Connection | None:
        """Return the most recently used connection with room; retire what must not be used again."""
        for connection in reversed(self._connections):
            if self._room(connection) > 0:
                if connection is not self._connections[-1]:
                    self._connections.remove(connection)
                    self._connections.append(connection)
                return connection
            if not connection.lent:
                self._retire_if_over(connection)
        return None

    def _room(self, connection: Connection) -> int:
        """How many more messages a connection takes now; none when it is over, or only has to finish those it has."""
        most = min(self._depth, connection.room)
        left = self.options.max_messages - connection.delivered
        if connection.lent >= most or left <= 0 or connection.is_old or connection.end:
            return 0
        return max(0, min(most, left) - connection.lent)

    async def _wait_for_room(self) -> None:
        """Wait, first come first served, until a connection may have room or another one may be opened."""
        woken = trio.Event()
        self._queue[woken] = None
        try:
            await woken.wait()
        except trio.Cancelled:
            if woken.is_set():
                self._wake_for_room()  # the room that this one was woken for is somebody else's now
            raise
        finally:
            self._queue.pop(woken, None)

    def _wake_for_room(self) -> None:
        """Wake as many of those who wait as there is room for; whoever finds none waits again."""
        if not self._queue:
            return
        room = sum(map(self._room, self._connections))
        places = self.options.max_size - len(self._connections) - self._opening
        for woken in tuple(self._queue)[: max(1, room + max(0, places))]:
            del self._queue[woken]
            woken.set()

    def is_rested(self, connection: Connection, now: float) -> bool:
        """Whether the next message on this connection must be careful: it is new, or may have died unseen."""
        return connection.delivered == 0 or now - connection.used_at > RESTED_SECONDS

    def _retire_if_over(self, connection: Connection) -> None:
        """Let go of a connection with nothing on it, if it is to be used no more."""
        why = self._why_over(connection)
        if not why or connection not in self._connections:
            return
        self._remove(connection, why)
        if connection.end:
            connection.abort()
        else:
            self._tasks.start_soon(connection.close)

    def _why_over(self, connection: Connection) -> str:
        if connection.end:
            return connection.end
        if connection.delivered >= self.options.max_messages:
            return "max_messages"
        return "max_lifetime" if connection.is_old else ""

    async def _open_one(self) -> Connection | Trouble | None:
        """Open one connection; alone while nothing proves that the relay lets us in, and not while trouble stands.

        A mail that was claimed before the trouble came must not try again: a login that is refused often is locked.
        """
        standing = self._standing_trouble()
        if standing is not None:
            return standing
        if self._is_proven:
            return await self._open_now()
        before = self._opened_ever
        trouble_before = self._trouble
        async with self._single_flight:
            if self._opened_ever != before:
                return None
            if self._trouble is not None and self._trouble is not trouble_before:
                return self._trouble
            return await self._open_now()

    async def _open_now(self) -> Connection | Trouble:
        self._opening += 1
        try:
            opened = await self._open_session()
        finally:
            self._opening -= 1
            self._wake_for_room()
        if isinstance(opened, Trouble):
            self._trouble, self._is_proven = opened, False
            ceiling = len(self._connections) if self._connections else None
            self.publish(ConnectionFailed(opened, ceiling))
            return opened
        self._trouble, self._is_proven = None, True
        self._opened_ever += 1
        connection = Connection(self._opened_ever, opened, self.timeouts)
        connection.trace(self._tell_exchange)
        self._connections.append(connection)
        self._tasks.start_soon(connection.watch)
        self._tasks.start_soon(connection.write)
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

    def _remove(self, connection: Connection, why: str) -> None:
        self._connections.remove(connection)
        age_seconds = trio.current_time() - connection.opened_at
        self.publish(ConnectionClosed(connection.connection_id, why, connection.delivered, age_seconds))
        self._wake_for_room()

    async def keep(self) -> None:
        """Close what has rested or lived too long, and keep ``min_idle`` connections open, until a cancel."""
        while True:
            now = trio.current_time()
            for connection in tuple(self._connections):
                connection.is_old = now - connection.opened_at >= self.options.max_lifetime_seconds
                why = "" if connection.lent else self._why_over(connection) or self._why_idle(connection)
                if why:
                    self._remove(connection, why)
                    self._tasks.start_soon(connection.close)
            # With no connection left there is nothing to shrink to.
            self._slots.restore(all_of_them=not self._connections)
            if self._may_open_ahead() and self._missing_idle() > 0:
                opened = await self._open_one()
                if isinstance(opened, Trouble) and not self._connections:
                    self._tell_trouble(opened)
            else:
                await trio.sleep(SWEEP_SECONDS)

    def _may_open_ahead(self) -> bool:
        """Whether to open without a mail: not after a failure, for each try may count as a failed login."""
        return not self._is_shut and self._trouble is None and self._standing_trouble() is None

    def _why_idle(self, connection: Connection) -> str:
        if len(self._connections) > self.options.max_size:
            return "idle"
        rested = trio.current_time() - connection.used_at
        if rested < self.options.idle_seconds or len(self._connections) <= self.options.min_idle:
            return ""
        return "idle"

    def _missing_idle(self) -> int:
        places = self.options.max_size - len(self._connections) - self._opening
        return min(self.options.min_idle - len(self._connections) - self._opening, places)

    async def close(self) -> None:
        """Say QUIT on every connection, all at once, and end them."""
        self.shut()
        connections = tuple(self._connections)
        for connection in connections:
            self._remove(connection, connection.end or "drained")
        with trio.move_on_after(CLOSE_SECONDS):
            async with trio.open_nursery() as closing:
                for connection in connections:
                    closing.start_soon(connection.close)
        for connection in connections:
            connection.abort()


@define(eq=False)
class Loan:
    """One slot of a pool and a connection with room for a message, for an ``async with`` block; see `Pool.borrow`."""

    _pool: Pool
    _lent: Connection | Trouble | Shut = _SHUT

    async def __aenter__(self) -> Connection | Trouble | Shut:
        self._lent = self._pool.lend_nowait() or await self._pool.lend()
        return self._lent

    def keep(self) -> None:
        """Do not give back at the end of the block: whoever was told to calls `Pool.take_back` later."""
        self._lent = _SHUT

    async def __aexit__(self, *_: object) -> None:
        self._pool.take_back(self._lent)


@asynccontextmanager
async def open_pool(
    options: PoolOptions,
    timeouts: Timeouts,
    open_with: Open,
    publish: Publish,
    tell_trouble: TellTrouble = lambda _: None,
    standing_trouble: StandingTrouble = lambda: None,
) -> AsyncIterator[Pool]:
    """Open a pool and keep it for the block; all connections are closed at its end, also on a cancel.

    ``open_with`` opens one connection to the relay. ``tell_trouble`` is called with the trouble of one that the pool
    opened for its own sake. While ``standing_trouble`` returns some, none is opened.

    No message may be in flight when the block ends: the tasks that borrow live in a nursery inside it.
    """
    async with trio.open_nursery() as keeping:
        pool = Pool(options, timeouts, publish, open_with, tell_trouble, standing_trouble, keeping)
        keeping.start_soon(pool.keep)
        try:
            yield pool
        finally:
            keeping.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS + 1):
                await pool.close()
