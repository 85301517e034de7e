"""Pure. Settlements: the five verdicts on a job, how one is sent to Redis, and what Redis answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, TypeAlias, assert_never

from attrs import evolve

from trio_worker.queue.claim import Claim
from trio_worker.queue.record import Cause, Record, write_record
from trio_worker.records import frozen


@frozen
class Done:
    """The relay accepted the mail for all recipients still due."""


@frozen
class Delay:
    """Try the job again after ``seconds``."""

    seconds: float
    record: Record
    cause: Cause


@frozen
class Bury:
    """Move the job to the dead letters."""

    record: Record
    cause: Cause


@frozen
class Hold:
    """Keep the job until a person decides."""

    record: Record
    cause: Cause


@frozen
class Release:
    """Give the job back unchanged, due now; this counts as no attempt."""

    record: Record
    cause: Cause


Verdict: TypeAlias = Done | Delay | Bury | Hold | Release
DONE = Done()


class Settling(Protocol):
    """A settlement that can be sent to Redis."""

    @property
    def args(self) -> tuple[str, str]:
        """The arguments of the script: the id, and all else in one text."""


@frozen
class SettlementRecord:
    """A settlement as Redis and the journal get it: ``what`` is done, delay, release, hold or bury."""

    job_id: str
    token: str
    what: str
    delay_ms: int
    record: str
    uncertain: int = 0  # 1 if it is not known whether the mail was delivered

    @property
    def args(self) -> tuple[str, str]:
        """The arguments of the script: the id, and all else in one text."""
        return self.job_id, f"{self.token}|{self.what}|{self.delay_ms}|{self.uncertain}|{self.record}"


@frozen
class Settlement:
    """The verdict on a claimed job, to be sent to Redis; sending it again changes nothing."""

    claim: Claim
    verdict: Verdict
    is_uncertain: bool = False
    receipt: str = ""  # of a mail that is done, if receipts are kept

    @property
    def stored(self) -> SettlementRecord:
        """The settlement without the job's bytes, as the journal keeps it."""
        action, delay_ms, record = _verdict_args(self.verdict)
        record = self.receipt if action == "done" else record
        return SettlementRecord(self.claim.job_id, self.claim.token, action, delay_ms, record, int(self.is_uncertain))

    @property
    def args(self) -> tuple[str, str]:
        """The arguments of the script, see `SettlementRecord`."""
        return self.stored.args


class SettleResult(StrEnum):
    """The answer of Redis to a settlement."""

    SETTLED = "settled"
    REPEATED = "repeated"  # it was applied before, and its reply was lost
    FENCED = "fenced"  # another worker holds the job
    GONE = "gone"  # the job is done, or has never been claimed


def _verdict_args(verdict: Verdict) -> tuple[str, int, str]:
    match verdict:
        case Done():
            return "done", 0, ""
        case Delay(seconds, record):
            return "delay", max(0, round(seconds * 1000)), write_record(record)
        case Release(record, cause):
            # It waits for that, and an operator may ask why; the next attempt writes another cause, or none.
            return "release", 0, write_record(evolve(record, cause=cause))
        case Hold(record):
            return "hold", 0, write_record(record)
        case Bury(record):
            return "bury", 0, write_record(record)
        case _:
            assert_never(verdict)
