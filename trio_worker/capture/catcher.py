"""Trio. A running catcher: its mails, violations and connections, and methods to wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import trio
from attrs import field

from trio_worker.capture.actions import CaughtMail, Keep, LoginTried, ServerAction, Violation
from trio_worker.capture.chaos import Chaos, InjectedFaults
from trio_worker.capture.connection import ClientConnection
from trio_worker.capture.server_profile import ServerProfile
from trio_worker.capture.store import Store
from trio_worker.records import define

VIOLATIONS_KEPT = 1000
COMMAND_LOGS_KEPT = 200


@define(eq=False)
class Catcher:
    """A running catcher. All attributes may be read at any time; only ``faults`` may be set.

    ``total`` and `mails` are those of its store: an exact count, and the newest mails. ``problem`` is the last error of
    the store (the connection of that mail was dropped without a reply).
    """

    host: str
    port: int
    profile: ServerProfile
    store: Store
    chaos: Chaos
    connections_opened: int = field(default=0, init=False)
    logins_tried: int = field(default=0, init=False)
    problem: OSError | None = field(default=None, init=False)
    _open: dict[int, ClientConnection] = field(factory=dict, init=False)
    _violations: deque[Violation] = field(factory=lambda: deque(maxlen=VIOLATIONS_KEPT), init=False)
    _command_logs: dict[int, deque[str]] = field(factory=dict, init=False)
    _watchers: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    def mails(self) -> tuple[CaughtMail, ...]:
        """The newest mails, oldest first."""
        return self.store.mails

    @property
    def total(self) -> int:
        """How many mails were caught."""
        return self.store.total

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The latest violations, at most `VIOLATIONS_KEPT`."""
        return tuple(self._violations)

    @property
    def connections_open(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    @property
    def commands(self) -> Mapping[int, tuple[str, ...]]:
        """The latest verbs of each of the latest connections, by connection id."""
        return {connection_id: tuple(verbs) for connection_id, verbs in self._command_logs.items()}

    @property
    def faults(self) -> InjectedFaults:
        """The faults in force; setting them starts their counts again."""
        return self.chaos.faults

    @faults.setter
    def faults(self, faults: InjectedFaults) -> None:
        self.chaos.put_in_force(faults)

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until ``is_so()`` is true, which is called after each input, connect and disconnect. Has no timeout."""
        await trio.lowlevel.checkpoint()
        while not is_so():
            await self._watchers.park()

    async def wait_for_mails(self, count: int) -> tuple[CaughtMail, ...]:
        """Wait until ``count`` mails in total were caught; return the newest mails. Has no timeout."""
        await self.wait_until(lambda: self.total >= count)
        return self.mails

    def drop_all(self) -> None:
        """Reset all open connections."""
        for connection in tuple(self._open.values()):
            connection.reset()

    def admit(self, connection: ClientConnection) -> None:
        """Add a connection. Called by the server only."""
        connection_id = connection.session.connection_id
        self._open[connection_id] = connection
        self._command_logs[connection_id] = connection.session.commands
        if len(self._command_logs) > COMMAND_LOGS_KEPT:
            del self._command_logs[next(iter(self._command_logs))]
        self._watchers.unpark_all()

    def forget(self, connection: ClientConnection) -> None:
        """Remove a connection. Called by the server only."""
        del self._open[connection.session.connection_id]
        self._watchers.unpark_all()

    async def note(self, actions: list[ServerAction]) -> bool:
        """Store mails and record the rest, before any reply is sent; False if the store failed. For the server only."""
        self._violations.extend(action for action in actions if isinstance(action, Violation))
        self.logins_tried += sum(isinstance(action, LoginTried) for action in actions)
        mails = [action.mail for action in actions if isinstance(action, Keep)]
        is_kept = not mails or await self._keep(mails)
        self._watchers.unpark_all()
        return is_kept

    async def _keep(self, mails: list[CaughtMail]) -> bool:
        try:
            await self.store.keep(mails)
        except OSError as problem:
            self.problem = problem
            return False
        return True
