"""Edge. What a worker is told of the settings. A module by itself, so that no worker is needed to read them."""

from __future__ import annotations

from trio_worker.settings.record import Settings
from trio_worker.smtp.relay import Relay
from trio_worker.worker.worker import WorkerOptions


def worker_options(settings: Settings, relay: Relay) -> WorkerOptions:
    """Return what a worker with these settings is told; ``relay`` is theirs, its certificates read."""
    return WorkerOptions(
        number_workers=settings.number_workers,
        queue=settings.queue,
        history=settings.history,
        relay=relay,
        pool=settings.smtp_pool,
        retry=settings.retry,
        mail=settings.mail,
        replies=settings.replies,
        shutdown=settings.shutdown,
    )
