"""Trio. The queue in Redis as a worker uses it: wait, claim, renew, settle."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import trio
from attrs import field

from trio_worker.queue.claim import Claim, Claims, Source
from trio_worker.queue.job_id import new_id_prefix
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Record, read_record
from trio_worker.queue.settlement import SettleResult, Settling
from trio_worker.records import define
from trio_worker.redis.calls import RedisAnswer, Unavailable
from trio_worker.redis.client import RedisClient

# Most jobs in one claim: its script must stay well under a millisecond, and ids end with a number of three digits.
CLAIM_LIMIT = 200


_ANSWERS = {answered.encode(): answered for answered in SettleResult}
_SOURCES = {source.encode(): source for source in Source}


@define
class Broker:
    """The queue as one worker uses it. Does not close its client."""

    client: RedisClient
    options: QueueOptions
    _run: str = field(factory=lambda: secrets.token_hex(4))
    _claims_made: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        return keys_of(self.options.name).of_jobs

    async def claim(self, limit: int, *, is_idle: bool = True) -> Claims | Unavailable:
        """Take at most ``limit`` jobs (1 to `CLAIM_LIMIT`) under a lease.

        Not cancellable: the caller must settle each job that Redis gave. If the reply is lost, the jobs wait for the
        end of their leases.
        """
        token, began = self._new_token(), trio.current_time()
        answer = await self.client.run_script("claim", self.keys, *self._claim_args(token, limit, is_idle=is_idle))
        return answer if isinstance(answer, Unavailable) else _read_claims(answer, token, began)

    async def settle_and_claim(
        self, batch: Sequence[Settling], limit: int, *, is_idle: bool
    ) -> tuple[list[SettleResult] | Unavailable, Claims | Unavailable]:
        """Settle a batch and then claim, as `settle` and `claim` do, in one round trip."""
        token, began = self._new_token(), trio.current_time()
        settle = ("settle", [arg for each in batch for arg in each.args])
        claim = ("claim", self._claim_args(token, limit, is_idle=is_idle))
        settled, claimed = await self.client.run_two_scripts(self.keys, settle, claim)
        return (
            settled if isinstance(settled, Unavailable) else [_ANSWERS[answer] for answer in settled],
            claimed if isinstance(claimed, Unavailable) else _read_claims(claimed, token, began),
        )

    async def wait(self, seconds: float) -> bool | Unavailable:
        """Wait until the list has an element, at most ``seconds``; a cancel closes only the connection that waits."""
        return await self.client.wait(self.options.name, max(seconds, 0.001))

    async def renew(self, claims: Sequence[Claim]) -> list[Claim] | Unavailable:
        """Extend the leases of jobs in flight; return those that this worker has lost."""
        return await self._renew(claims, "")

    async def confirm(self, claims: Sequence[Claim], *, marks_started: bool) -> list[Claim] | Unavailable:
        """Extend leases just before the mails are sent; return the jobs that this worker has lost.

        ``marks_started``: if such a lease expires later, the job is held, instead of going to another worker. A cancel
        ends the call and changes nothing else: the jobs can still be settled.
        """
        return await self._renew(claims, "started" if marks_started else "", is_breakable=True)

    async def settle(self, batch: Sequence[Settling]) -> list[SettleResult] | Unavailable:
        """Settle a batch in one round trip; a repeated settlement is applied only once."""
        args = [arg for each in batch for arg in each.args]
        answers = await self.client.run_script("settle", self.keys, *args)
        return answers if isinstance(answers, Unavailable) else [_ANSWERS[answer] for answer in answers]

    async def count_uncertain(self, count: int) -> Unavailable | None:
        """Add mails to the total of those that may be delivered twice."""
        answer = await self.client.run_script("count", self.keys, "uncertain", count)
        return answer if isinstance(answer, Unavailable) else None

    def _new_token(self) -> str:
        self._claims_made += 1
        return f"{self._run}.{self._claims_made}"

    def _claim_args(self, token: str, limit: int, *, is_idle: bool) -> tuple[str | int, ...]:
        options = self.options
        args = (token, round(options.lease_seconds * 1000), limit, options.max_deliveries, options.max_job_bytes)
        return (*args, new_id_prefix(), options.dead_limit, int(is_idle))

    async def _renew(
        self, claims: Sequence[Claim], state: str, *, is_breakable: bool = False
    ) -> list[Claim] | Unavailable:
        pairs = [arg for claim in claims for arg in (claim.job_id, claim.token)]
        lease_ms = round(self.options.lease_seconds * 1000)
        run = self.client.run_script_breakably if is_breakable else self.client.run_script
        lost = await run("renew", self.keys, lease_ms, state, *pairs)
        return lost if isinstance(lost, Unavailable) else [claims[place - 1] for place in lost]


def _read_claims(answer: RedisAnswer, token: str, began: float) -> Claims:
    _state, now, jobs, next_ms, waiting, popped, recovered, crashed, held, too_large, paused, suspects, ever, word = (
        answer
    )
    at = int(now) / 1000
    fresh = [job[3] for job in jobs].count(b"fresh")
    blank = Record(at)
    return Claims(
        jobs=tuple([_read_claim(job, token, at, began, blank) for job in jobs]),
        at=at,
        next_seconds=None if next_ms < 0 else next_ms / 1000,
        waiting=waiting,
        pushed=popped + fresh + too_large + waiting,
        recovered=recovered,
        crashed=crashed,
        held=held,
        too_large=too_large,
        paused=paused.decode("utf-8", "replace"),
        suspects=suspects,
        popped=fresh + too_large,
        ever_popped=ever,
        generation=word.decode("utf-8", "replace"),
    )


def _read_claim(job: RedisAnswer, token: str, at: float, began: float, blank: Record) -> Claim:
    job_id, body, record, source, deliveries, place = job
    return Claim(
        job_id.decode("utf-8", "replace"),
        body,
        read_record(record, at) if record else blank,
        token,
        _SOURCES[source],
        deliveries,
        place if place > 0 else None,
        claimed_at=at,
        began=began,
    )
