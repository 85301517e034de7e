"""One try of a mail: its word, and what became of its recipients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import (
    Accepted,
    Loss,
    NotSent,
    Outcome,
    Refusal,
    Refused,
    Trouble,
    Uncertain,
    Unopened,
    Unsendable,
)
from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.worker.attempt import AttemptResult, report_of

OK = reply_from(250, "2.0.0 queued", Stage.FINAL)
LATER = reply_from(451, "4.7.1 later", Stage.RCPT)
FULL = reply_from(552, "5.2.2 full", Stage.RCPT)
UNKNOWN = reply_from(550, "5.1.1 unknown", Stage.RCPT)
TOO_BIG = reply_from(552, "5.3.4 too big", Stage.FINAL)


def loss(how: FailureKind) -> Loss:
    return Loss(how, Stage.FINAL, "x")


@pytest.mark.parametrize(
    ("outcome", "recipients", "result", "counts"),
    [
        (Accepted(OK), 3, AttemptResult.OK, (3, 0, 0)),
        (Accepted(OK, (Refusal("a", LATER), Refusal("b", UNKNOWN))), 3, AttemptResult.OK, (1, 1, 1)),
        (Refused(UNKNOWN, (Refusal("a", UNKNOWN),)), 1, AttemptResult.PERMANENT, (0, 0, 1)),
        (Refused(FULL, (Refusal("a", FULL),)), 1, AttemptResult.PERMANENT, (0, 1, 0)),
        (Refused(TOO_BIG, (Refusal("a", LATER),)), 3, AttemptResult.PERMANENT, (0, 1, 2)),
        (Refused(LATER), 2, AttemptResult.TRANSIENT, (0, 2, 0)),
        (NotSent(loss(FailureKind.EOF)), 2, AttemptResult.CONNECTION, (0, 0, 0)),
        (NotSent(loss(FailureKind.CANCELLED)), 2, AttemptResult.CANCELLED, (0, 0, 0)),
        (Uncertain(loss(FailureKind.TIMEOUT)), 2, AttemptResult.TIMEOUT, (0, 0, 0)),
        (Uncertain(loss(FailureKind.GARBLED)), 2, AttemptResult.PROTOCOL, (0, 0, 0)),
        (Unsendable("too large"), 2, AttemptResult.UNFIT, (0, 0, 2)),
    ],
)
def test_each_outcome_has_its_word(
    outcome: Outcome, recipients: int, result: AttemptResult, counts: tuple[int, int, int]
) -> None:
    """A full mailbox is refused by its reply and deferred by our policy."""
    tried = report_of(outcome, recipients, 100, 0.1, 0.2)

    assert tried is not None
    assert (tried.result, (tried.accepted, tried.deferred, tried.refused)) == (result, counts)


def test_mail_without_a_connection_was_not_tried() -> None:
    """It is the relay's trouble, counted among the connections that could not be opened."""
    assert report_of(Unopened(Trouble(FailureKind.CONNECT, Stage.CONNECT, "x")), 1, 100, 0.1, 0.2) is None


replies = st.builds(reply_from, st.integers(400, 599), st.just("x"), st.sampled_from([Stage.RCPT, Stage.FINAL]))


@given(replies, st.lists(replies, max_size=5), st.integers(0, 5), st.booleans())
def test_every_recipient_that_was_decided_on_is_counted_once(
    reply: Reply,
    refusing: list[Reply],
    others: int,
    is_accepted: bool,  # noqa: FBT001
) -> None:
    """With any replies, the three counts add up to the recipients."""
    refusals = tuple(Refusal(str(number), each) for number, each in enumerate(refusing))
    outcome = Accepted(OK, refusals) if is_accepted else Refused(reply, refusals)
    tried = report_of(outcome, len(refusals) + others, 1, 0.0, 0.0)

    assert tried is not None
    assert tried.accepted + tried.deferred + tried.refused == len(refusals) + others
