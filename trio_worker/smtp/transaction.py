"""Pure. One message in flight: which replies have come, and the commands that are written for it."""

from __future__ import annotations

from attrs import field

from trio_worker.records import define
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.outcome import Outcome, Refusal, Refused
from trio_worker.smtp.reply import Reply, Stage


@define(eq=False)
class Transaction:
    """One message in flight; ``outcome`` is None until it is decided, then it never changes.

    ``began`` and ``seconds``, from MAIL to the deciding reply, are set by the connection: a conversation has no clock.
    """

    envelope: Envelope
    outcome: Outcome | None = None
    began: float = 0.0
    seconds: float = 0.0
    end_offset_bytes: int | None = None  # the connection's ``written_bytes`` when this message was complete
    is_ahead: bool = False  # its MAIL was written while an earlier outcome was open
    mail_accepted: bool = False
    sender_refusal: Reply | None = None
    rcpts_answered: int = 0
    refusals: list[Refusal] = field(factory=list)

    @property
    def accepted_recipients(self) -> int:
        return self.rcpts_answered - len(self.refusals)

    @property
    def refused_so_far(self) -> Refused | None:
        """The refusal, if the replies so far have refused the sender or every recipient."""
        if self.sender_refusal is not None:
            return Refused(self.sender_refusal)
        if self.refusals and self.rcpts_answered == len(self.envelope.recipients) == len(self.refusals):
            return Refused(self.refusals[-1].reply, tuple(self.refusals))
        return None

    @property
    def has_no_trace(self) -> bool:
        """Whether a relay that refused it surely has no open transaction of it: MAIL was refused, and nothing taken.

        A refused BDAT leaves the state open (RFC 3030, 2), also where MAIL had been refused.
        """
        return self.sender_refusal is not None and not self.accepted_recipients and self.end_offset_bytes is None

    def refused(self, reply: Reply) -> Refused:
        """Return the refusal that decided: an earlier one, of which ``reply`` is only a consequence, else ``reply``."""
        return self.refused_so_far or Refused(reply, tuple(self.refusals))


@define(eq=False)
class WireStep:
    """Bytes that are written together: commands and the stages of their replies, or a content; of one transaction."""

    stages: tuple[Stage, ...]
    transaction: Transaction | None
    wire: bytes
    waits: bool = False  # until all earlier replies have come
    content: bytes = b""  # written after the commands, unchanged
