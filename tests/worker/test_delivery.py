"""A delivery: its settlement for Redis, and its event."""

from __future__ import annotations

import pytest

from trio_worker.queue.claim import Claim, Source
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import DONE, Bury, Delay, Hold, Release, Verdict
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Loss, Outcome, Uncertain
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.worker.delivery import Delivery
from trio_worker.worker.phase import Disposition

RECORD, CAUSE = Record(1.0, "Registration"), Cause("refused", "451 4.7.1", "rcpt", "later")
CLAIM = Claim("job1", b"", RECORD, "run.1", Source.FRESH, 1, claimed_at=0.0, began=0.0)
ACCEPTED = Accepted(Reply(250, "queued", Stage.FINAL, "2.0.0"))
UNCERTAIN = Uncertain(Loss(FailureKind.EOF, Stage.FINAL, "gone"))


@pytest.mark.parametrize("outcome", [ACCEPTED, UNCERTAIN], ids=lambda outcome: type(outcome).__name__)
@pytest.mark.parametrize(
    "verdict",
    [DONE, Delay(1.5, RECORD, CAUSE), Release(RECORD, CAUSE), Hold(RECORD, CAUSE), Bury(RECORD, CAUSE)],
    ids=lambda verdict: type(verdict).__name__,
)
def test_redis_is_told_what_the_journal_would_keep(verdict: Verdict, outcome: Outcome) -> None:
    """Also for a mail that is done, which takes a short cut."""
    if verdict is DONE and isinstance(outcome, Uncertain):
        return  # who may have a mail is never done with
    delivery = Delivery(CLAIM, RECORD)
    delivery.verdict, delivery.outcome = verdict, outcome

    assert delivery.args == delivery.settlement.stored.args
    assert delivery.settlement.is_uncertain == isinstance(outcome, Uncertain)


def test_cause_of_a_mail_that_is_done_is_the_reply_that_took_it() -> None:
    """And of any other what its verdict says, also where a relay took it for some."""
    delivery = Delivery(CLAIM, RECORD)
    delivery.outcome = ACCEPTED
    delivery.verdict = DONE
    assert delivery.settled(Disposition.SENT, 2.0).cause == Cause("accepted", "250 2.0.0", "final")

    delivery.verdict = Delay(1.5, RECORD, CAUSE)
    told = delivery.settled(Disposition.DELAYED, 2.0)
    assert (told.cause, told.delay_seconds, told.total_seconds, told.attempt) == (CAUSE, 1.5, 2.0, 1)
