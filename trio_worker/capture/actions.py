"""Pure. What the catcher caught, which rules its clients broke, and what a session asks its server to do."""

from __future__ import annotations

from typing import TypeAlias

from attrs import field, frozen


@frozen
class CaughtMail:
    """One accepted mail: its envelope, its exact content, and how it came.

    ``content`` holds the octets of the message with the transparency dots of DATA removed. ``parameters`` are those of
    MAIL, keys in capitals. ``user`` is the name that logged in, if any.
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
    """A rule that a client broke: ``rule`` names the section of an RFC, ``what`` says how, without any content."""

    rule: str
    what: str
    connection_id: int = 0


@frozen
class Send:
    """Write these octets to the client."""

    payload: bytes


@frozen
class DelayReplies:
    """Let what follows leave no sooner than ``seconds`` after the input that led to it was read."""

    seconds: float


@frozen
class Keep:
    """Store this mail before anything that follows is done: a 250 is a promise."""

    mail: CaughtMail


@frozen
class LoginTried:
    """A login was decided."""

    user: str
    accepted: bool


@frozen
class StartTls:
    """Start the TLS handshake as its server, then say `ServerSession.tls_started`."""


@frozen
class Close:
    """End the connection in order, so that the replies already sent arrive."""


@frozen
class Drop:
    """Abort the connection with a reset."""


@frozen
class Stall:
    """Never say anything again; without ``reads`` stop reading too, so that the client's writes block."""

    reads: bool = True


ServerAction: TypeAlias = Send | DelayReplies | Keep | Violation | LoginTried | StartTls | Close | Drop | Stall
