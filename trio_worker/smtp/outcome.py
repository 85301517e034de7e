"""Pure. What became of one attempt to deliver one mail: a closed set."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from attrs import frozen

from trio_worker.smtp.reply import Reply, Stage


class FailureKind(StrEnum):
    """How a connection ended, or why none could be had."""

    CLOSING = "closing"  # the relay said 421
    EOF = "eof"  # the relay closed without a word
    RESET = "reset"  # the network or the kernel broke the connection
    TIMEOUT = "timeout"  # a deadline of ours passed
    GARBLED = "garbled"  # replies that no command of ours can have earned
    CANCELLED = "cancelled"  # we gave up: a drain, or the end of its grace
    RESOLVE = "resolve"  # the relay's name has no address
    CONNECT = "connect"  # nobody listens there, or no route
    TLS = "tls"  # no encryption: not offered, refused, or a bad certificate
    GREETING = "greeting"  # the relay greeted with a refusal
    LOGIN = "login"  # the relay refused the login
    LOCAL = "local"  # our own machine: out of file descriptors


@frozen
class Loss:
    """The end of a connection as one mail saw it.

    ``had_delivered`` tells whether the connection had worked before; ``mail_accepted`` whether the relay had taken
    this mail's sender when it ended.
    """

    how: FailureKind
    stage: Stage
    what: str
    reply: Reply | None = None
    had_delivered: bool = False
    mail_accepted: bool = False

    def __str__(self) -> str:
        return f"{self.how} at {self.stage}: {self.reply or self.what}"


@frozen
class Trouble:
    """Why no connection could be opened: the relay's trouble or ours, never that of a mail."""

    how: FailureKind
    stage: Stage
    what: str
    reply: Reply | None = None

    def __str__(self) -> str:
        return f"{self.how} at {self.stage}: {self.reply or self.what}"


@frozen
class Refusal:
    """One recipient that the relay refused at RCPT, with its own reply."""

    recipient: str
    reply: Reply


@frozen
class Accepted:
    """The relay answered the end of the message with 2xx: it must never be sent again to the accepted recipients."""

    reply: Reply
    refusals: tuple[Refusal, ...] = ()


@frozen
class Refused:
    """The relay took the message for nobody.

    ``reply.stage`` says where. At RCPT every recipient stands in ``refusals``; at MAIL, DATA or FINAL ``reply`` is
    meant for all recipients that ``refusals`` does not name.
    """

    reply: Reply
    refusals: tuple[Refusal, ...] = ()


@frozen
class NotSent:
    """The connection ended and it is certain that nothing was accepted."""

    loss: Loss


@frozen
class Uncertain:
    """Every byte of the message went out and no final reply came: it may have been delivered (RFC 1047)."""

    loss: Loss


@frozen
class Unsendable:
    """The mail cannot go over this relay as it is: over its SIZE, or in need of an extension it lacks."""

    why: str


@frozen
class Unopened:
    """No connection could be opened, so nothing was tried with this mail."""

    trouble: Trouble


Outcome: TypeAlias = Accepted | Refused | NotSent | Uncertain | Unsendable | Unopened
