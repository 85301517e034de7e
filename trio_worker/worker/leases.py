"""Trio. Renews the leases of the jobs in flight, from the first claim until after the last settlement."""

from __future__ import annotations

from typing import Never

import trio

from trio_worker.queue.broker import Broker
from trio_worker.redis.calls import Unavailable
from trio_worker.worker.events import LeaseLost, Publish
from trio_worker.worker.gate import RedisHealth
from trio_worker.worker.in_flight import InFlight

# A renewal has to fail twice in a row before a lease can run out unseen.
RENEWALS_PER_LEASE = 3
RENEW_AGAIN_SECONDS = 1.0


async def keep_leases(broker: Broker, in_flight: InFlight, redis_health: RedisHealth, publish: Publish) -> Never:
    """Renew the leases of all jobs in flight until cancelled, which is after the last settlement."""
    while True:
        await trio.sleep(broker.options.lease_seconds / RENEWALS_PER_LEASE)
        while claims := in_flight.claims():
            began = trio.current_time()
            lost = await broker.renew(claims)
            if not isinstance(lost, Unavailable):
                redis_health.answered()
                for claim in in_flight.note_renewed(claims, lost, began):
                    publish(LeaseLost(claim.job_id))
                break
            redis_health.failed("renew", lost)
            await trio.sleep(min(RENEW_AGAIN_SECONDS, broker.options.lease_seconds / 10))
