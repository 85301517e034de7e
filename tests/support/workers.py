"""Whole workers against one Redis and one relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from attrs import define, evolve, field

from trio_worker.fleet.report import Reporter
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer
from trio_worker.queue.journal import Journal
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings
from trio_worker.settings.worker_options import worker_options
from trio_worker.smtp.options import RelayOptions, Timeouts
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.worker.events import Event, Settled, SettledJob
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.worker import Worker, WorkerOptions


def relay_at(port: int, username: str = "", password: str = "") -> Relay:
    """Return the relay at a port of this machine, without TLS."""
    options = RelayOptions(port=port, tls="none", username=username, password=password)
    return Relay(options, Timeouts(), tls_context(options))


@define
class WorkerMaker:
    """Makes workers against one Redis and one relay, and keeps every event of theirs."""

    client: RedisClient
    composer: Composer
    catalogue: Catalogue
    events: list[Event] = field(factory=list)
    jobs: list[SettledJob] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)

    def note(self, event: Event) -> None:
        """Keep an event, and its entries for single jobs too."""
        self.events.append(event)
        self.jobs += event.jobs if isinstance(event, Settled) else ()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until ``is_so()``, which is asked after each event of a worker; the caller bounds the wait."""
        while not is_so():
            await self._changed.wait()

    def options(self, port: int, **changes: Any) -> WorkerOptions:
        settings = Settings(retry=RetryPolicy(base_seconds=0.05, cap_seconds=0.2))
        return evolve(worker_options(settings, relay_at(port)), **changes)

    def make(self, options: WorkerOptions, *, is_burst: bool = True, journal: Journal | None = None) -> Reporter:
        worker = Worker(
            options=options,
            client=self.client,
            composer=self.composer,
            types=self.catalogue.types,
            sinks=[self.note],
            is_burst=is_burst,
            journal=journal,
        )
        return Reporter(worker)

    async def push(self, *jobs: bytes) -> None:
        await self.client.command("RPUSH", "jobs", *jobs)
