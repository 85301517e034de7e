"""What SIGHUP changes: limits and the login at once, all else with the next start; with a fault, nothing."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.support.pool import Opener, send, several
from tests.support.workers import WorkerMaker
from trio_worker.settings.reader import Settings
from trio_worker.settings.reload import changes_of
from trio_worker.smtp.options import PoolOptions, RelayOptions, Timeouts
from trio_worker.smtp.outcome import Accepted
from trio_worker.smtp.pool import open_pool

BEFORE = Settings(smtp=RelayOptions(password="old"))


def test_limits_and_the_login_are_taken_and_named_without_secrets() -> None:
    """With both values where they are no secrets."""
    after = evolve(
        BEFORE,
        number_workers=20,
        smtp=RelayOptions(username="ann@example.com", password="new-secret"),
        smtp_pool=PoolOptions(max_size=3, min_idle=1),
    )
    found = changes_of(BEFORE, after)

    assert found.settings == after
    assert set(found.taken) == {
        "number_workers 10 -> 20",
        "smtp.username changed",
        "smtp.password changed",
        "smtp.pool.max_size 10 -> 3",
        "smtp.pool.min_idle 2 -> 1",
    }
    assert found.waiting == ()


def test_what_a_worker_is_built_around_waits_for_its_next_start() -> None:
    """It is named, and what is in force stays."""
    after = evolve(
        BEFORE, queue=evolve(BEFORE.queue, name="other", dead_limit=7), log=evolve(BEFORE.log, level="debug")
    )
    found = changes_of(BEFORE, after)

    assert found.settings.queue == evolve(BEFORE.queue, dead_limit=7)
    assert found.settings.log == BEFORE.log
    assert found.waiting == ("queue.name", "log.level")


@pytest.mark.parametrize("sizes", [(2, 5), (5, 2), (3, 1), (1, 4)])
async def test_a_pool_that_is_resized_has_as_many_places_as_it_says(
    autojump_clock: trio.testing.MockClock, sizes: tuple[int, int]
) -> None:
    """Also when mails are in flight meanwhile; connections too many end."""
    before, after = (PoolOptions(max_size=size, min_idle=0) for size in sizes)
    async with open_pool(before, Timeouts(), Opener(), lambda _: None) as pool:
        await several(pool, sizes[0])
        async with trio.open_nursery() as nursery:
            for _ in range(sizes[0]):
                nursery.start_soon(send, pool)
            await trio.testing.wait_all_tasks_blocked()
            pool.resize(after)
        assert (pool.free + pool.kept, pool.borrowed) == (pool.size, 0)
        assert pool.size == sizes[1] or pool.kept >= pool.size - sizes[1]  # those too many are being closed

        assert all(isinstance(outcome, Accepted) for outcome in await several(pool, 2 * sizes[1]))
        await trio.sleep(3)
        assert len(pool.views()) <= sizes[1]
        assert (pool.free, pool.kept, pool.borrowed) == (sizes[1], 0, 0)


async def test_a_worker_takes_other_limits_while_it_runs(workers: WorkerMaker) -> None:
    """Its consumers, its pool, its claims and its figures know of them at once."""
    reporter = workers.make(workers.options(1))
    options = reporter.worker.options
    reporter.worker.use_limits(
        7, evolve(options.queue, dead_limit=3), PoolOptions(max_size=4), evolve(options.retry, max_attempts=2)
    )

    assert reporter.worker.in_flight.limit == 7
    assert reporter.worker.broker.options.dead_limit == 3
    assert reporter.snapshot().number_workers == 7
    assert reporter.snapshot().max_connections == 4
