"""Trio. What a running worker tells over HTTP: its metrics, whether it lives, whether it is ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from trio_worker.settings.reader import Settings
from trio_worker.telemetry.alerts import readiness
from trio_worker.telemetry.http_server import METRICS_TYPE, Answer, page_of_json, page_of_text
from trio_worker.telemetry.logbook import Logbook
from trio_worker.telemetry.metrics import Metrics
from trio_worker.worker.worker import Worker


def metrics_of(worker: Worker, logbook: Logbook, settings: Settings) -> Metrics:
    """Return the metrics of a worker, which from now on hear of everything that it does."""
    metrics = Metrics(
        worker.snapshot,
        lambda: logbook.lost_lines,
        lambda: logbook.told,
        dead_limit=settings.queue.dead_limit,
        config=worker.config,
        profile=settings.profile,
    )
    worker.sinks = [*worker.sinks, metrics.note]
    worker.client.on_call = metrics.note_call
    worker.tell_lag(metrics.note_lag)
    return metrics


def pages_of(worker: Worker, metrics: Metrics) -> Mapping[str, Callable[[], Answer]]:
    """Return the pages by their paths; a worker that drains lives, and is not ready."""

    def ready() -> Answer:
        is_ready, document = readiness(worker.snapshot(), trio.current_time() - worker.client.answered_at)
        # Who asks all workers of a host must see whose answer is which.
        return page_of_json(200 if is_ready else 503, {"worker": worker.name, **document})

    return {
        "/metrics": lambda: Answer(200, METRICS_TYPE, metrics.exposition()),
        "/livez": lambda: page_of_text(200, "ok\n"),
        "/readyz": ready,
    }
