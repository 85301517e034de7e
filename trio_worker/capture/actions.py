"""Pure. Actions that a session asks its server to do, caught mails, and violations of the clients."""

from __future__ import annotations

from typing import TypeAlias

from attrs import field

from trio_worker.records import frozen


@frozen
class CaughtMail:
    """One accepted mail: its envelope, its exact content, and how it was sent.

    ``content``: the octets of the message, without the doubled dots of DATA. ``parameters``: those of MAIL, keys in
    capitals. ``user``: the name that logged in, if any.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    parameters: dict[str, str] = field(factory=dict)
    user: str | None = None
    tls: bool = False
    connection_id: int = 0
    used_bdat: bool = False


@frozen
class Violation:
    """A rule that a client broke: ``rule`` is the section of an RFC, ``reason`` says how, without any content."""

    rule: str
    reason: str
    connection_id: int = 0


@frozen
class Send:
    """Write these octets to the client."""

    payload: bytes


@frozen
class DelayReplies:
    """Send the following replies at least ``seconds`` after the input that caused them was read."""

    seconds: float


@frozen
class Keep:
    """Store this mail before the following actions are done: the 250 is a promise."""

    mail: CaughtMail


@frozen
class LoginTried:
    """A client tried to log in."""

    user: str
    accepted: bool


@frozen
class StartTls:
    """Do the TLS handshake as the server, then call `ServerSession.tls_started`."""


@frozen
class Close:
    """Close the connection so that all replies arrive."""


@frozen
class Drop:
    """Reset the connection."""


@frozen
class Stall:
    """Never reply again; without ``reads`` stop reading too, so that the client's writes block."""

    reads: bool = True


ServerAction: TypeAlias = Send | DelayReplies | Keep | Violation | LoginTried | StartTls | Close | Drop | Stall
