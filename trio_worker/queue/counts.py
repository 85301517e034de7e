"""Edge. Counts of a queue: the jobs in each state, and the totals since it was created."""

from __future__ import annotations

import re

from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction, OperatorCounts, action_name, read_operator_counts
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisAnswer, RedisCalls, Unavailable

_NUMBER = re.compile(rb"-?[0-9]{1,19}")
# Jobs that one round trip reads at most: longer lists are read in pages.
PAGE = 200


@frozen
class Counts:
    """How many jobs are in each state, all read at one moment; times are epoch seconds of Redis' clock.

    Totals of all workers since the queue was created: ``popped`` counts jobs taken from the list, ``sent`` mails sent,
    ``delays`` and ``holds`` settlements, ``deaths`` jobs that became dead letters, ``uncertain`` mails that may be
    delivered twice; ``operator_counts`` the rest.
    """

    at: float
    waiting: int
    leased: int
    delayed: int
    held: int
    dead: int
    bodies: int
    records: int
    leases: int
    due: int
    run_out: int
    popped: int
    sent: int
    delays: int
    holds: int
    deaths: int
    uncertain: int
    operator_counts: OperatorCounts
    paused: str
    next_due_at: float | None
    pause_seconds_left: float | None

    @property
    def pushed(self) -> int:
        """Jobs ever pushed: taken from the list or still in it."""
        return self.popped + self.waiting

    @property
    def known(self) -> int:
        """Jobs that have an id: all except the waiting ones."""
        return self.leased + self.delayed + self.held + self.dead

    @property
    def balances(self) -> bool:
        """Whether there are as many job bodies and lease entries as jobs in a state."""
        return self.known == self.bodies == self.leases


async def count_jobs(client: RedisCalls, name: str) -> Counts | Unavailable:
    """Count the jobs in every state; constant time, writes nothing."""
    answer = await client.run_script("inspect", keys_of(name).of_jobs)
    return answer if isinstance(answer, Unavailable) else counts_of(answer)


def counts_of(answer: RedisAnswer) -> Counts:
    """Read the answer of the script ``inspect``."""
    now, *numbers, pause, _lease_head, delayed_head, pause_ms, totals = answer
    named = zip(totals[::2], totals[1::2], strict=True)
    # Other programs may have written other values there: these are ignored.
    total = {field.decode("utf-8", "replace"): int(number) for field, number in named if _NUMBER.fullmatch(number)}
    waiting, leased, delayed, held, dead, bodies, records, leases, due, run_out = numbers
    return Counts(
        at=int(now) / 1000,
        waiting=waiting,
        leased=leased,
        delayed=delayed,
        held=held,
        dead=dead,
        bodies=bodies,
        records=records,
        leases=leases,
        due=due,
        run_out=run_out,
        popped=total.get("popped", 0),
        sent=total.get("done", 0),
        delays=total.get("delay", 0),
        holds=total.get("hold", 0),
        deaths=total.get("bury", 0),
        uncertain=total.get("uncertain", 0),
        operator_counts=read_operator_counts(total),
        paused=pause.decode("utf-8", "replace"),
        next_due_at=float(delayed_head) / 1000 if delayed_head else None,
        pause_seconds_left=pause_ms / 1000 if pause_ms >= 0 else None,
    )


async def count_action(client: RedisCalls, name: str, act: OperatorAction) -> None:
    """Count an operator's action; it stays uncounted if Redis refuses."""
    await client.run_script("count", keys_of(name).of_jobs, action_name(act), 1)
