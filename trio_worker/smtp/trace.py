"""Pure. The protocol trace of a connection: one line for each command and its reply, addresses masked."""

from __future__ import annotations

from trio_worker.privacy import mask_address, mask_text
from trio_worker.records import frozen
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.smtp.transaction import Transaction


@frozen
class TraceLine:
    """One command and its reply, without content and with its addresses masked.

    ``seconds`` is the time since the last write on the connection; ``connection_id`` is None during the handshake.
    """

    said: str
    reply: str
    seconds: float
    connection_id: int | None = None


def command_text(stage: Stage, transaction: Transaction | None) -> str:
    """Return the command that a reply answers; call it before the transaction has counted the reply."""
    if transaction is None:
        return stage.upper()
    envelope = transaction.envelope
    match stage:
        case Stage.MAIL:
            return f"MAIL FROM:<{mask_address(envelope.sender) if envelope.sender else ''}>"
        case Stage.RCPT:
            return f"RCPT TO:<{mask_address(envelope.recipients[transaction.rcpts_answered])}>"
        case Stage.FINAL:
            return f"message of {len(envelope.content):,} bytes"
        case _:
            return stage.upper()


def trace_line_of(
    stage: Stage, transaction: Transaction | None, reply: Reply, seconds: float, connection_id: int
) -> TraceLine:
    """Return the line of a command, made from the reply that answered it."""
    return TraceLine(command_text(stage, transaction), mask_text(str(reply)), seconds, connection_id)
