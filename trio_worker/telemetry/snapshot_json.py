"""Pure. A snapshot as JSON for scripts: stable keys, plain numbers, durations in seconds, null for unknown values."""

from __future__ import annotations

from typing import Any

from attrs import asdict

from trio_worker.queue.ages import BAR_BOUNDS, AgeBars
from trio_worker.telemetry.alerts import alerts, state
from trio_worker.telemetry.heartbeat import DepthLimit, Suspended, WorkerSeen
from trio_worker.telemetry.quantiles import Quantiles
from trio_worker.telemetry.snapshot import CAUSE_MINUTES, Snapshot

# Its version goes up when a key changes its meaning; new keys may come at any time.
SCHEMA = "trio-worker/snapshot/2"


def document_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return the figures of a snapshot, without recipients.

    Texts of relays are left out, except the masked reason why connections are suspended.
    """
    queue = snapshot.queue
    return {
        "schema": SCHEMA,
        "at": snapshot.at,
        "scope": snapshot.scope.name.lower(),
        "queue": snapshot.queue_name,
        "redis": snapshot.redis_name,
        "phase": str(snapshot.phase),
        "state": state(snapshot).word,
        "alerts": [{"word": alert.word, "severity": alert.severity.name.lower()} for alert in alerts(snapshot)],
        "is_quiet": snapshot.is_quiet,
        "jobs": None
        if queue is None
        else {
            "waiting": queue.waiting,
            "delayed": queue.delayed,
            "due": queue.due,
            "leased": queue.leased,
            "held": queue.held,
            "dead": queue.dead,
        },
        "oldest_seconds": None if queue is None else queue.oldest_seconds,
        "oldest_is_estimate": None if queue is None else queue.is_estimate,
        "paused": None if queue is None else queue.paused or None,
        "seen_seconds_ago": snapshot.queue_seen_seconds,
        "waiting_per_second": snapshot.waiting_slope,
        "rates": asdict(snapshot.rates),
        "seconds": {
            "wait": _quantiles(snapshot.wait),
            "smtp": _quantiles(snapshot.smtp),
            "claim_to_settled": _quantiles(snapshot.total),
            "push_to_sent": _quantiles(snapshot.latency),
            "connecting_per_mail": snapshot.connect_seconds_per_mail,
        },
        "idle_share": snapshot.idle_share,
        "in_hand": snapshot.in_hand,
        "at_work": snapshot.at_work,
        "mails_in_flight": snapshot.mails_in_flight,
        "at_work_limit": snapshot.at_work_limit,
        "number_workers": snapshot.number_workers,
        "busy_consumers": snapshot.busy_consumers,
        "suspended": suspended_document(snapshot.suspended),
        "depth_limit": depth_limit_document(snapshot.depth_limit),
        "claimed": snapshot.ledger.claimed,
        "settled": {str(disposition): number for disposition, number in sorted(snapshot.ledger.settled.items())},
        "uncertain": snapshot.ledger.uncertain,
        "causes_seconds": CAUSE_MINUTES * 60,
        "causes": [
            {
                "codes": cause.codes,
                "word": cause.word,
                "disposition": str(cause.disposition),
                "count": cause.count,
                "last_at": cause.last_at,
            }
            for cause in snapshot.causes
        ],
        "workers": [worker_document(worker) for worker in snapshot.workers],
        "redis_down_seconds": snapshot.redis_down_seconds,
        "redis_round_trip_seconds": snapshot.vitals.redis_seconds,
        "redis_recoveries": snapshot.redis_recoveries,
        "is_at_dead_limit": snapshot.is_at_dead_limit,
        "redis_server": None if queue is None or queue.server is None else asdict(queue.server),
        "ages": None if queue is None or queue.ages is None else _ages(queue.ages),
    }


def _ages(ages: AgeBars) -> dict[str, Any]:
    """Return the bars with their upper bounds; null for the last bound, and for the jobs if none was read."""
    is_known = ages.looked_at > 0 or not ages.waiting
    bars = zip((*BAR_BOUNDS, None), ages.jobs, strict=True)
    return {
        "waiting": ages.waiting,
        "looked_at": ages.looked_at,
        "is_estimate": ages.is_estimate,
        "undated": ages.undated,
        "bars": [{"below_seconds": bound, "jobs": jobs if is_known else None} for bound, jobs in bars],
    }


def worker_document(worker: WorkerSeen) -> dict[str, Any]:
    """Return the figures of one worker."""
    beat = worker.beat
    return {
        "worker": beat.worker,
        "is_lost": worker.is_lost,
        "seen_seconds_ago": worker.seen_seconds,
        "phase": str(beat.phase),
        "is_quiet": beat.is_quiet,
        "version": beat.version,
        "config": beat.config,
        "started_at": beat.started_at,
        "in_hand": beat.in_hand,
        "at_work": beat.at_work,
        "mails_in_flight": beat.mails_in_flight,
        "number_workers": beat.number_workers,
        "busy_consumers": beat.busy_consumers,
        "connections": beat.connections,
        "busy_connections": beat.busy_connections,
        "max_connections": beat.max_connections,
        "suspended": suspended_document(beat.suspended),
        "depth": beat.depth,
        "depth_limit": depth_limit_document(beat.depth_limit),
        "breaker": beat.breaker,
        "trouble": beat.trouble or None,
        "relay": beat.relay or None,
        "relay_down": None if beat.relay_down is None else asdict(beat.relay_down),
        "rates": asdict(beat.rates),
        "idle_share": beat.idle_share,
        "push_to_sent": _quantiles(beat.latency.quantiles()),
        "claimed": beat.claimed,
        "settled": beat.settled,
        "uncertain": beat.uncertain,
        "vitals": asdict(beat.vitals),
        "types": list(beat.types),
    }


def suspended_document(suspended: Suspended | None) -> dict[str, Any] | None:
    """Return the suspended connections; null if there are none."""
    return None if suspended is None else asdict(suspended)


def depth_limit_document(limit: DepthLimit | None) -> dict[str, Any] | None:
    """Return why connections carry one mail at a time; null if they may carry more."""
    return None if limit is None else asdict(limit)


def _quantiles(times: Quantiles) -> dict[str, float | int | None]:
    return {"count": times.count, "p50": times.p50, "p95": times.p95, "p99": times.p99, "max": times.most}
