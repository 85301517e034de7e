"""Pure. What can be said of a job to Redis: five verdicts, the settlement that tells one, and its answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol, TypeAlias, assert_never

from attrs import frozen

from trio_worker.queue.claim import Claim
from trio_worker.queue.record import Cause, Record, write_record


@frozen
class Done:
    """The mail was accepted for everybody it was still due to."""


@frozen
class Delay:
    """Try again after ``seconds``; ``spends_attempt`` tells a retry from a job that came before its time."""

    seconds: float
    record: Record
    cause: Cause
    spends_attempt: bool = True


@frozen
class Bury:
    """To the dead letters."""

    record: Record
    cause: Cause


@frozen
class Hold:
    """Kept for a human to decide."""

    record: Record
    cause: Cause


@frozen
class Release:
    """Back as it was, due now, no attempt spent."""

    record: Record
    cause: Cause


Verdict: TypeAlias = Done | Delay | Bury | Hold | Release
DONE = Done()


class Settling(Protocol):
    """What can be told to Redis as a settlement: its ``words`` are the id, and all else in one word."""

    @property
    def words(self) -> tuple[str, str]: ...


@frozen
class SettlementRecord:
    """A settlement as Redis is told it: ``what`` is done, delay, release, hold or bury."""

    job_id: str
    token: str
    what: str
    delay_ms: int
    record: str
    uncertain: int = 0  # 1 if the mail may have been delivered without anybody knowing

    @property
    def words(self) -> tuple[str, str]:
        """The id, and all else in one word, as the script takes them."""
        return self.job_id, f"{self.token}|{self.what}|{self.delay_ms}|{self.uncertain}|{self.record}"


@frozen
class Settlement:
    """What became of a job, to be told to Redis; repeating it changes nothing."""

    claim: Claim
    verdict: Verdict
    is_uncertain: bool = False

    @property
    def entry(self) -> SettlementRecord:
        """The settlement without its job: what the journal keeps."""
        what, delay_ms, record = _settle_words(self.verdict)
        return SettlementRecord(self.claim.job_id, self.claim.token, what, delay_ms, record, int(self.is_uncertain))

    @property
    def words(self) -> tuple[str, str]:
        """Those of its entry."""
        return self.entry.words


class SettleResult(StrEnum):
    """What Redis answered to a settlement."""

    SETTLED = "settled"
    REPEATED = "repeated"  # it was applied before, and its reply was lost
    FENCED = "fenced"  # another worker holds the job
    GONE = "gone"  # nobody does


def _settle_words(verdict: Verdict) -> tuple[str, int, str]:
    match verdict:
        case Done():
            return "done", 0, ""
        case Delay(seconds, record):
            return "delay", max(0, round(seconds * 1000)), write_record(record)
        case Release(record):
            return "release", 0, write_record(record)
        case Hold(record):
            return "hold", 0, write_record(record)
        case Bury(record):
            return "bury", 0, write_record(record)
        case _:
            assert_never(verdict)
