"""Pure. The ledger: the sums of the events of a run, which must balance: claimed = in hand + settled."""

from __future__ import annotations

from collections import Counter

from attrs import field

from trio_worker.records import define
from trio_worker.worker.phase import Disposition


@define
class Ledger:
    """The sums of a run: claimed jobs, and settled jobs by disposition."""

    claimed: int = 0
    settled: Counter[Disposition] = field(factory=Counter)
    uncertain: int = 0
    recovered: int = 0
    opened: int = 0
    opening_seconds: float = 0.0
    deaths: Counter[str] = field(factory=Counter)  # by codes or word

    @property
    def in_hand(self) -> int:
        """Return the number of jobs claimed and not settled."""
        return self.claimed - sum(self.settled.values())

    @property
    def balances(self) -> bool:
        """Return whether every claimed job is settled or in hand."""
        return self.in_hand == 0

    def __str__(self) -> str:
        sign = "=" if self.balances else f"!= ({self.in_hand:,} not accounted for)"
        return f"{self.claimed:,} claimed {sign} {self._parts()}"

    def so_far(self) -> str:
        """Return the line of a running worker; jobs in hand are not lost."""
        return f"{self.claimed:,} claimed = {self._parts()} + {self.in_hand:,} in hand"

    def _parts(self) -> str:
        # Jobs that Redis has lost are so rare that their word stands there only when there are any.
        shown = [each for each in Disposition if self.settled[each] or each is not Disposition.GONE]
        return " + ".join(f"{self.settled[each]:,} {each}" for each in shown)
