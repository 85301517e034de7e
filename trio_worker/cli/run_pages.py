"""Trio. The HTTP pages of a running worker: its metrics, and whether it is alive and ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from trio_worker.fleet.report import Reporter
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.alerts import readiness
from trio_worker.telemetry.http_server import METRICS_TYPE, HttpResponse, page_of_json, page_of_text
from trio_worker.telemetry.logbook import Logbook
from trio_worker.telemetry.metrics import Metrics


def metrics_of(reporter: Reporter, logbook: Logbook, settings: Settings) -> Metrics:
    """Return the metrics of a worker, connected to its events."""
    worker = reporter.worker
    metrics = Metrics(
        reporter.snapshot,
        lambda: logbook.lost_lines,
        lambda: logbook.logged,
        dead_limit=settings.queue.dead_limit,
        config=reporter.config,
        profile=settings.profile,
    )
    worker.sinks = [*worker.sinks, metrics.note]
    worker.client.on_call = metrics.note_call
    reporter.presence.meter.on_lag = metrics.note_lag
    return metrics


def pages_of(reporter: Reporter, metrics: Metrics) -> Mapping[str, Callable[[], HttpResponse]]:
    """Return the pages by path; a worker that drains is alive, but not ready."""

    def ready() -> HttpResponse:
        is_ready, document = readiness(reporter.snapshot(), trio.current_time() - reporter.worker.client.answered_at)
        # With the name, because a caller may ask all workers of a host.
        return page_of_json(200 if is_ready else 503, {"worker": reporter.name, **document})

    return {
        "/metrics": lambda: HttpResponse(200, METRICS_TYPE, metrics.exposition()),
        "/livez": lambda: page_of_text(200, "ok\n"),
        "/readyz": ready,
    }
