"""Pure. Events of connections, which the pool publishes, and the state of a connection as a dashboard shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from trio_worker.records import frozen
from trio_worker.smtp.capabilities import Capabilities
from trio_worker.smtp.outcome import Loss, Trouble


@frozen
class ConnectionView:
    """The state of one connection, as a dashboard shows it."""

    connection_id: int
    state: str
    state_seconds: float
    delivered: int
    age_seconds: float
    tls: str
    last_reply: str

    @property
    def is_busy(self) -> bool:
        """Whether a mail is being sent over it."""
        return self.state not in {"idle", "closed"}


@frozen
class Suspension:
    """Why some places stay empty while other connections work, and ``until`` when (local clock, seconds)."""

    trouble: Trouble
    until: float
    failures: int = 1  # openings that failed in a row
    places: int = 0


@frozen
class OneAtATime:
    """Why each connection carries one mail at a time, and ``until`` when (local clock, seconds)."""

    loss: Loss
    until: float


@frozen
class ConnectionOpened:
    """A connection to the relay is ready for mail."""

    connection_id: int
    seconds: float
    capabilities: Capabilities
    tls: str = ""
    certificate_ends_at: float | None = None  # epoch seconds


@frozen
class ConnectionFailed:
    """A connection to the relay could not be opened."""

    trouble: Trouble
    ceiling: int | None = None  # connections that work; None if there is no other


@frozen
class PlacesSuspended:
    """The pool leaves places empty for ``seconds``: a connection could not be opened while others work."""

    trouble: Trouble
    seconds: float


@frozen
class PlacesRestored:
    """Suspended places of the pool may be filled again."""

    count: int


@frozen
class DepthLimited:
    """For ``seconds`` each connection carries one mail at a time: ``loss`` took more than one with it."""

    loss: Loss
    seconds: float
    depth: int = 1


@frozen
class DepthRestored:
    """Connections may carry ``depth`` mails at a time again."""

    depth: int


@frozen
class ConnectionClosed:
    """A connection ended."""

    connection_id: int
    why: str
    delivered: int
    age_seconds: float


ConnectionEvent: TypeAlias = (
    ConnectionOpened
    | ConnectionFailed
    | PlacesSuspended
    | PlacesRestored
    | DepthLimited
    | DepthRestored
    | ConnectionClosed
)
PublishConnectionEvent: TypeAlias = Callable[[ConnectionEvent], None]
