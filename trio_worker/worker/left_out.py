"""Pure. Recipients that go without a mail that others have: its job is not done, but dead with their names.

One may be refused for good at an attempt that delays the job for others, and one may be unfit: the relay lacks the
extension that its address needs.
"""

from __future__ import annotations

from typing import assert_never

from attrs import evolve

from trio_worker.queue.record import Cause, Failed, Record
from trio_worker.queue.settlement import Bury, Delay, Done, Hold, Release, Verdict
from trio_worker.smtp.reply import Stage
from trio_worker.worker.verdict import bury

WHY_UNFIT = "not ASCII before the @, and the relay does not offer SMTPUTF8"


def with_left_out(verdict: Verdict, unfit: tuple[str, ...], served: int, record: Record, now: float) -> Verdict:
    """Return the verdict on a mail that had ``served`` recipients, and left out the ``unfit`` ones.

    ``record`` is the one before the attempt. Where all its recipients are still due, as after a lost connection, nobody
    has to be told apart yet.
    """
    failed = (*record.failed, *(Failed(recipient, "", WHY_UNFIT) for recipient in unfit))
    match verdict:
        case Done():
            if not failed:
                return verdict
            return bury(evolve(record, due=(), delivered=record.delivered + served, failed=failed), _cause(failed), now)
        case Delay() | Bury() | Hold() | Release():
            if not unfit or verdict.record.due == record.due:
                return verdict
            more = verdict.record.failed[len(record.failed) :]
            return evolve(verdict, record=evolve(verdict.record, failed=(*failed, *more)))
        case _:
            assert_never(verdict)


def _cause(failed: tuple[Failed, ...]) -> Cause:
    """Return why a mail is dead that all others have: the reply to the first who was refused, else why one is unfit."""
    refused = next((each for each in failed if each.codes), None)
    if refused is not None:
        return Cause("refused", refused.codes, Stage.RCPT, refused.text)
    return Cause("unfit", text=f"{len(failed)} of its recipients: {failed[0].text}")
