"""Pure. Statistics of one delivery attempt for metrics and events: result, times, recipients counted, none named."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Loss, NotSent, Outcome, Refused, Uncertain, Unopened, Unsendable
from trio_worker.smtp.reply import Reply
from trio_worker.typed_frozen import typed_frozen
from trio_worker.worker.reply_classes import classify, is_for_good
from trio_worker.worker.reply_rule import ReplyRule


class AttemptResult(StrEnum):
    """The result of an attempt; the sum of all results is the denominator of every failure ratio."""

    OK = "ok"
    TRANSIENT = "transient"  # 4xx for every recipient
    PERMANENT = "permanent"  # 5xx for every recipient
    TIMEOUT = "timeout"  # no answer in time
    CONNECTION = "connection"  # the connection ended
    PROTOCOL = "protocol"  # answers that no command of ours can have earned
    CANCELLED = "cancelled"  # we gave up: the end of a drain's grace
    UNFIT = "unfit"  # not a byte was written: this relay cannot take this mail


@typed_frozen
class AttemptReport:
    """One mail on one connection; ``borrow_seconds`` went by until there was one with room.

    ``accepted``, ``deferred`` and ``refused`` count recipients; all are 0 where none was decided on.
    """

    result: AttemptResult
    content_bytes: int
    compose_seconds: float
    borrow_seconds: float
    accepted: int = 0
    deferred: int = 0
    refused: int = 0


def report_of(
    outcome: Outcome,
    recipients: int,
    content_bytes: int,
    compose_seconds: float,
    borrow_seconds: float,
    rules: Sequence[ReplyRule] = (),
) -> AttemptReport | None:
    """Return the report of an outcome for this number of recipients; None where no connection had the mail.

    The result is the reply's; the recipients are counted by what becomes of them: a refusal that speaks of us and not
    of a mail (`reply_classes`, the user's ``rules`` first) defers them.
    """
    match outcome:
        case Accepted(refusals=()):
            # The way of nearly every mail.
            return AttemptReport(AttemptResult.OK, content_bytes, compose_seconds, borrow_seconds, recipients)
        case Accepted(_, refusals):
            refused = sum(_is_lasting(refusal.reply, rules) for refusal in refusals)
            counts = (recipients - len(refusals), len(refusals) - refused, refused)
            return AttemptReport(AttemptResult.OK, content_bytes, compose_seconds, borrow_seconds, *counts)
        case Refused(reply, refusals):
            refused = sum(_is_lasting(refusal.reply, rules) for refusal in refusals)
            refused += (recipients - len(refusals)) * _is_lasting(reply, rules)
            result = AttemptResult.TRANSIENT if reply.is_transient else AttemptResult.PERMANENT
            return AttemptReport(
                result, content_bytes, compose_seconds, borrow_seconds, 0, recipients - refused, refused
            )
        case NotSent(loss) | Uncertain(loss):
            return AttemptReport(_result_of(loss), content_bytes, compose_seconds, borrow_seconds)
        case Unsendable():
            return AttemptReport(AttemptResult.UNFIT, content_bytes, compose_seconds, borrow_seconds, 0, 0, recipients)
        case Unopened():
            return None
        case _:
            assert_never(outcome)


def _result_of(loss: Loss) -> AttemptResult:
    match loss.how:
        case FailureKind.TIMEOUT:
            return AttemptResult.TIMEOUT
        case FailureKind.GARBLED:
            return AttemptResult.PROTOCOL
        case FailureKind.CANCELLED:
            return AttemptResult.CANCELLED
        case _:
            return AttemptResult.CONNECTION


def _is_lasting(reply: Reply, rules: Sequence[ReplyRule]) -> bool:
    return is_for_good(reply, classify(reply, rules))
