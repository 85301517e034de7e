"""Pure. Outcomes of one delivery attempt of one mail: a closed set; and why a connection ended or could not open."""

from __future__ import annotations

from typing import TypeAlias

from trio_worker.records import frozen
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.typed_frozen import typed_frozen


@frozen
class Loss:
    """The end of a connection while a mail was in flight on it.

    ``had_delivered``: whether the connection had delivered a mail before, or answered it at least. ``mail_accepted``:
    whether the relay had accepted this mail's MAIL command.
    """

    how: FailureKind
    stage: Stage
    reason: str
    reply: Reply | None = None
    had_delivered: bool = False
    mail_accepted: bool = False

    def __str__(self) -> str:
        return f"{self.how} at {self.stage}: {self.reply or self.reason}"


@frozen
class Trouble:
    """Why the relay takes no mail now: a fault of the relay or of our side, never of a mail.

    ``again_seconds`` is the time to wait that the relay named. With ``is_doubtful`` it may yet be the fault of the few
    mails that met it, so another one is tried soon.
    """

    how: FailureKind
    stage: Stage
    reason: str
    reply: Reply | None = None
    again_seconds: float | None = None
    is_doubtful: bool = False

    def __str__(self) -> str:
        return f"{self.how} at {self.stage}: {self.reply or self.reason}"


@frozen
class Refusal:
    """One recipient that the relay refused at RCPT, with the reply."""

    recipient: str
    reply: Reply


@typed_frozen
class Accepted:
    """The final reply was 2xx: the mail must never be sent again to the recipients that were accepted."""

    reply: Reply
    refusals: tuple[Refusal, ...] = ()


@frozen
class Refused:
    """The relay accepted the mail for no recipient.

    ``reply.stage`` says at which command. At RCPT, ``refusals`` has every recipient; at MAIL, DATA or FINAL, ``reply``
    is for all recipients that are not in ``refusals``.
    """

    reply: Reply
    refusals: tuple[Refusal, ...] = ()


@frozen
class NotSent:
    """The connection ended, and it is certain that the mail was not accepted."""

    loss: Loss


@frozen
class Uncertain:
    """The whole message was written and no final reply came: it may have been delivered (RFC 1047)."""

    loss: Loss


@frozen
class Unsendable:
    """The mail cannot go over this relay: it is larger than SIZE allows, or needs an extension that is not offered."""

    why: str


@frozen
class Unopened:
    """No connection could be opened, so the mail was not tried."""

    trouble: Trouble


Outcome: TypeAlias = Accepted | Refused | NotSent | Uncertain | Unsendable | Unopened
