"""Hands: how many jobs they take, who is told when there is room, and how what became of a job is told to Redis."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.broker import Claim, Settlement
from trio_worker.events import Source
from trio_worker.hands import Hands
from trio_worker.record import Cause, Record
from trio_worker.verdict import DONE, Bury, Delay, Hold, Release, Verdict

RECORD, CAUSE = Record(1.0, "Registration"), Cause("refused", "451 4.7.1", "rcpt", "later")


def claim_of(number: int) -> Claim:
    return Claim(f"job{number}", b"", RECORD, "run.1", Source.FRESH, 1, 0.0, 0.0)


@pytest.mark.parametrize("is_uncertain", [False, True])
@pytest.mark.parametrize(
    "verdict",
    [DONE, Delay(1.5, RECORD, CAUSE), Release(RECORD, CAUSE), Hold(RECORD, CAUSE), Bury(RECORD, CAUSE)],
    ids=lambda verdict: type(verdict).__name__,
)
def test_redis_is_told_what_the_journal_would_keep(verdict: Verdict, *, is_uncertain: bool) -> None:
    """Also of a mail that is done, for which no entry is made."""
    settlement = Settlement(claim_of(1), verdict, is_uncertain)

    assert settlement.words == settlement.entry.words


@given(st.integers(1, 9), st.integers(0, 20), st.integers(0, 20))
def test_at_most_the_limit_is_at_work_and_as_many_wait_to_be_settled(limit: int, taken: int, done: int) -> None:
    """Room is what both leave."""
    hands = Hands(limit)
    for number in range(taken):
        hands.take(claim_of(number))
    for _ in range(min(done, taken)):
        hands.finish()

    assert hands.at_work == taken - min(done, taken)
    assert hands.room == min(limit - hands.at_work, 2 * limit - len(hands))


async def test_who_waits_for_room_is_woken_when_there_is_as_much(autojump_clock: trio.testing.MockClock) -> None:
    """Not before; also a second time, and when the limit is what changes."""
    hands, claims, woken = Hands(3), [claim_of(number) for number in range(3)], []

    async def wait(wanted: int) -> None:
        await hands.wait_for_room(wanted)
        woken.append(wanted)

    async with trio.open_nursery() as nursery:
        for claim in claims:
            hands.take(claim)
        nursery.start_soon(wait, 2)
        await trio.testing.wait_all_tasks_blocked()
        hands.finish()
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        hands.finish()
        await trio.testing.wait_all_tasks_blocked()
        assert woken == [2]
        hands.drop(claims[:2], comes_back=False)
        nursery.start_soon(wait, 3)
        await trio.testing.wait_all_tasks_blocked()
        hands.set_limit(4)
    assert woken == [2, 3]


async def test_who_waits_for_more_room_than_a_lower_limit_has_is_woken_by_all_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """SIGHUP may lower the limit at any time; a worker that waited for the old one would never claim again."""
    hands, claims = Hands(3), [claim_of(number) for number in range(3)]
    for claim in claims:
        hands.take(claim)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hands.wait_for_room, 3)
            await trio.testing.wait_all_tasks_blocked()
            hands.set_limit(2)
            for _ in claims:
                hands.finish()
            hands.drop(claims, comes_back=False)

    assert hands.room == 2


async def test_a_job_that_is_claimed_again_is_another_one() -> None:
    """Our own release may come back before we let go of it."""
    hands, first, second = Hands(3), claim_of(1), claim_of(1)
    until_return = hands.expect_return(or_empty=False)
    hands.take(first)
    hands.take(second)
    hands.finish()
    hands.drop([first], comes_back=True)

    assert hands.claims() == (second,)
    assert until_return.cancel_called
