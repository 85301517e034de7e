"""Trio. The jobs in flight in this worker: how many more may be claimed, and whose leases to renew."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import trio
from attrs import field

from trio_worker.queue.claim import Claim
from trio_worker.records import define


@define(eq=False)
class InFlight:
    """Every job between its claim and its settlement.

    At most ``limit`` of them are at work. A job that only waits for its settlement leaves its place to another one, so
    that settlements can share a round trip; at most ``limit`` jobs wait so.
    """

    limit: int
    _renewed_at: dict[Claim, float] = field(factory=dict)  # local time before which each lease was not renewed
    _lost: set[Claim] = field(factory=set)
    _settling: int = 0
    _wanted_room: float = math.inf  # while nobody waits for room
    _has_room: trio.Event = field(factory=trio.Event)
    _emptied: trio.Event = field(factory=trio.Event)
    _until_return: trio.CancelScope = field(factory=trio.CancelScope)
    _ends_when_empty: bool = False

    def __len__(self) -> int:
        return len(self._renewed_at)

    @property
    def room(self) -> int:
        """How many more jobs may be claimed."""
        return self.limit - len(self._renewed_at) + min(self._settling, self.limit)

    @property
    def at_work(self) -> int:
        """Jobs in flight that wait for more than their settlement."""
        return len(self._renewed_at) - self._settling

    def set_limit(self, limit: int) -> None:
        """Set how many jobs may be at work from now on; jobs in flight beyond that stay."""
        self.limit = limit
        self._has_room.set()  # a waiting claim checks again

    def take(self, claims: Sequence[Claim], began: float) -> None:
        """Note jobs that a claim brought, which began at ``began``."""
        self._renewed_at.update(dict.fromkeys(claims, began))

    def finish(self, count: int) -> None:
        """Note that ``count`` jobs only wait for their settlement; `drop` follows."""
        self._settling += count
        self._announce()

    def drop(self, claims: Sequence[Claim], *, comes_back: bool) -> None:
        """Remove settled jobs; ``comes_back`` says that one of them can be claimed again, at once or soon."""
        for claim in claims:
            del self._renewed_at[claim]
        if self._lost:
            self._lost.difference_update(claims)
        self._settling -= len(claims)
        self._announce()
        if comes_back:
            self._until_return.cancel()

    def expect_return(self, *, or_empty: bool) -> trio.CancelScope:
        """Return a scope that is cancelled when a job that can soon be claimed again is dropped from now on.

        ``or_empty`` has the drop of the last job do so too.
        """
        self._until_return, self._ends_when_empty = trio.CancelScope(), or_empty
        return self._until_return

    def claims(self) -> tuple[Claim, ...]:
        """Return the jobs whose leases are ours to renew."""
        return tuple(claim for claim in self._renewed_at if claim not in self._lost)

    def are_young(self, claims: Collection[Claim], since: float) -> bool:
        """Whether all these leases were renewed after ``since`` (local clock) and none is known to be lost."""
        return not self._lost.intersection(claims) and min(map(self._renewed_at.__getitem__, claims)) >= since

    def is_young(self, claim: Claim, since: float) -> bool:
        """Whether a lease was renewed after ``since`` (local clock) and is not known to be lost."""
        return self._renewed_at[claim] >= since and claim not in self._lost

    def was_leased(self, claim: Claim, since: float) -> bool:
        """Whether a lease was given or renewed after ``since`` (local clock), whatever a later renewal found."""
        return self._renewed_at[claim] >= since

    def note_renewed(self, claims: Sequence[Claim], lost: Sequence[Claim], at: float) -> list[Claim]:
        """Note a renewal that began at ``at``; return the claims in flight that it found lost."""
        ended = set(lost)
        for claim in claims:
            if claim in self._renewed_at and claim not in ended:
                self._renewed_at[claim] = at
        newly_lost = [claim for claim in lost if claim in self._renewed_at]
        self._lost.update(newly_lost)
        return newly_lost

    async def wait_for_room(self, wanted: int = 1) -> None:
        """Wait until ``wanted`` jobs may be claimed, or ``limit`` jobs where that is fewer."""
        while self.room < (needed := min(wanted, self.limit)):
            self._wanted_room, self._has_room = needed, trio.Event()
            await self._has_room.wait()

    async def wait_until_empty(self) -> None:
        """Wait until every job is settled."""
        while self._renewed_at:
            self._emptied = trio.Event() if self._emptied.is_set() else self._emptied
            await self._emptied.wait()

    def _announce(self) -> None:
        if self.room >= self._wanted_room:
            self._has_room.set()
            self._wanted_room = math.inf
        if not self._renewed_at:
            self._emptied.set()
            if self._ends_when_empty:
                self._until_return.cancel()
