"""Trio. Looking into the queue: how many jobs are in each state, and what was counted beside them."""

from __future__ import annotations

import re

from attrs import frozen

from trio_worker.queue.keys import keys_of
from trio_worker.queue.operator_counts import OperatorAction, OperatorCounts, action_name, read_operator_counts
from trio_worker.redis.client import RedisAnswer, RedisClient, Unavailable

_NUMBER = re.compile(rb"-?[0-9]{1,19}")
# How many jobs one round trip reads; a page of a list, not all of it.
PAGE = 200


@frozen
class Counts:
    """How many jobs are in each state, in one consistent cut; times are epoch seconds of Redis' clock.

    Since the queue began, by all workers: ``popped`` jobs left the list, ``sent`` were sent, ``delays`` and ``holds``
    count settlements, ``deaths`` those that ended in the dead letters, ``uncertain`` mails that may be out twice;
    ``operator_counts`` is what is counted beside the jobs.
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
        """Jobs with an id: all but the waiting ones."""
        return self.leased + self.delayed + self.held + self.dead

    @property
    def balances(self) -> bool:
        """Whether every id in a state has its bytes and its lease entry, and no bytes are without a state."""
        return self.known == self.bodies == self.leases


async def count_jobs(client: RedisClient, name: str) -> Counts | Unavailable:
    """Count the jobs in every state; constant time, writes nothing."""
    answer = await client.run_script("inspect", keys_of(name).of_jobs)
    return answer if isinstance(answer, Unavailable) else counts_of(answer)


def counts_of(answer: RedisAnswer) -> Counts:
    """Read what the script ``inspect`` answers."""
    now, *numbers, pause, _lease_head, delayed_head, pause_ms, totals = answer
    named = zip(totals[::2], totals[1::2], strict=True)
    # What somebody else wrote there is passed over.
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


async def count_action(client: RedisClient, name: str, act: OperatorAction) -> None:
    """Count what was just done; where Redis does not take it (it is full, say) it stays uncounted."""
    await client.command("HINCRBY", keys_of(name).totals, action_name(act), 1)
