"""Jobs in flight: how many more there may be, and which task is woken when there is room or a job comes back."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.claim import Claim, Source
from trio_worker.queue.record import Record
from trio_worker.worker.in_flight import InFlight

RECORD = Record(1.0, "Registration")


def claim_of(number: int) -> Claim:
    return Claim(f"job{number}", b"", RECORD, "run.1", Source.FRESH, 1, claimed_at=0.0, began=0.0)


@given(st.integers(1, 9), st.integers(0, 20), st.integers(0, 20))
def test_at_most_the_limit_is_at_work_and_as_many_wait_to_be_settled(limit: int, taken: int, done: int) -> None:
    """Room is what both leave."""
    in_flight = InFlight(limit)
    in_flight.take([claim_of(number) for number in range(taken)], 0.0)
    in_flight.finish(min(done, taken))

    assert in_flight.at_work == taken - min(done, taken)
    assert in_flight.room == min(limit - in_flight.at_work, 2 * limit - len(in_flight))


async def test_who_waits_for_room_is_woken_when_there_is_as_much(autojump_clock: trio.testing.MockClock) -> None:
    """Not before; also a second time, and when the limit is what changes."""
    in_flight, claims, woken = InFlight(3), [claim_of(number) for number in range(3)], []

    async def wait(wanted: int) -> None:
        await in_flight.wait_for_room(wanted)
        woken.append(wanted)

    async with trio.open_nursery() as nursery:
        in_flight.take(claims, 0.0)
        nursery.start_soon(wait, 2)
        await trio.testing.wait_all_tasks_blocked()
        in_flight.finish(1)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        in_flight.finish(1)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == [2]
        in_flight.drop(claims[:2], comes_back=False)
        nursery.start_soon(wait, 3)
        await trio.testing.wait_all_tasks_blocked()
        in_flight.set_limit(4)
    assert woken == [2, 3]


async def test_who_waits_for_more_room_than_a_lower_limit_has_is_woken_by_all_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """SIGHUP may lower the limit at any time; a worker that waited for the old one would never claim again."""
    in_flight, claims = InFlight(3), [claim_of(number) for number in range(3)]
    in_flight.take(claims, 0.0)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_flight.wait_for_room, 3)
            await trio.testing.wait_all_tasks_blocked()
            in_flight.set_limit(2)
            in_flight.finish(3)
            in_flight.drop(claims, comes_back=False)

    assert in_flight.room == 2


async def test_a_job_that_is_claimed_again_is_another_one() -> None:
    """Our own release may come back before we let go of it."""
    in_flight, first, second = InFlight(3), claim_of(1), claim_of(1)
    until_return = in_flight.expect_return(or_empty=False)
    in_flight.take([first, second], 0.0)
    in_flight.finish(1)
    in_flight.drop([first], comes_back=True)

    assert in_flight.claims() == (second,)
    assert until_return.cancel_called


def test_a_lease_is_young_from_its_renewal_until_it_is_lost() -> None:
    """What is lost is not renewed any more, and what is settled is forgotten."""
    in_flight, claims = InFlight(3), [claim_of(number) for number in range(3)]
    in_flight.take(claims, 10.0)
    assert in_flight.are_young(claims, 10.0)
    assert not in_flight.are_young(claims, 10.5)

    assert in_flight.note_renewed(claims, [claims[2]], 20.0) == [claims[2]]
    assert in_flight.are_young(claims[:2], 15.0)
    assert [in_flight.is_young(claim, 15.0) for claim in claims] == [True, True, False]
    assert not in_flight.are_young(claims, 15.0)
    assert in_flight.claims() == tuple(claims[:2])

    in_flight.finish(3)
    in_flight.drop(claims, comes_back=False)
    assert (len(in_flight), in_flight.claims(), in_flight._lost) == (0, (), set())
