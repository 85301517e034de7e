"""The ledger: every claimed job is accounted for, in any order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.claim import Source
from trio_worker.queue.record import Cause
from trio_worker.telemetry.ledger import Ledger
from trio_worker.telemetry.ledger_entry import enter
from trio_worker.worker.events import Claimed, LeasesRecovered, Settled, SettledJob
from trio_worker.worker.phase import Disposition

dispositions = st.lists(st.sampled_from(Disposition), max_size=40)


@given(dispositions, st.integers(0, 5))
def test_it_balances_when_every_claim_is_settled_and_only_then(ended: list[Disposition], more: int) -> None:
    """Jobs in hand are the difference, and the printed line has them."""
    ledger = Ledger()
    enter(ledger, Claimed(tuple((f"j{number}", Source.FRESH, 1) for number in range(len(ended) + more))))
    for number, disposition in enumerate(ended):
        enter(ledger, Settled((SettledJob(f"j{number}", disposition),)))

    assert ledger.in_hand == more
    assert ledger.balances == (more == 0)
    assert ("not accounted for" in str(ledger)) == (more > 0)
    assert ledger.so_far().endswith(f" unsettled + {more} in hand")
    assert "not accounted for" not in ledger.so_far()
    assert sum(ledger.settled.values()) == len(ended)


def test_every_uncertain_delivery_is_counted() -> None:
    """A lost final reply is one, and so is each lease that ran out: its worker may have sent the mail."""
    ledger = Ledger()
    enter(ledger, Settled((SettledJob("a", Disposition.DELAYED, is_uncertain=True),)))
    enter(ledger, Settled((SettledJob("b", Disposition.SENT),)))
    enter(ledger, LeasesRecovered(3))

    assert ledger.uncertain == 4
    assert ledger.recovered == 3


def test_deaths_are_counted_by_code_or_else_by_word() -> None:
    """A relay's code where there is one."""
    ledger = Ledger()
    enter(ledger, Settled((SettledJob("a", Disposition.DEAD, cause=Cause("refused", "550 5.1.1", "rcpt")),)))
    enter(ledger, Settled((SettledJob("b", Disposition.DEAD, cause=Cause("not_json")),)))

    assert ledger.deaths == {"550 5.1.1": 1, "not_json": 1}
