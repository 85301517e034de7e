"""Trio. The dashboard of a worker in the foreground, and what its keys do."""

from __future__ import annotations

from typing import assert_never

from trio_worker.cli.pausing import pause_by_key, resume_by_key
from trio_worker.dashboard.keyboard import Keyboard
from trio_worker.dashboard.live import Dashboard
from trio_worker.dashboard.screen import Screen
from trio_worker.dashboard.view import DrainKey, KeyAction, PauseKey, QuitKey, ResumeKey, View
from trio_worker.fleet.report import Reporter
from trio_worker.queue.counts import count_action
from trio_worker.queue.operator_counts import OperatorAction


def dashboard_of(reporter: Reporter, screen: Screen, keyboard: Keyboard | None, *, only_ascii: bool) -> Dashboard:
    """Return the dashboard of a worker; its keys drain the worker, and pause and resume the queue."""
    worker = reporter.worker

    async def act(action: KeyAction) -> str:
        match action:
            case QuitKey() | DrainKey():
                worker.drain("a key")
                if isinstance(action, DrainKey):
                    await count_action(worker.client, worker.options.queue.name, OperatorAction.WORKER_DRAIN)
                return f"draining {len(worker.in_flight)}; Ctrl-C hurries"
            case PauseKey(reason):
                return await pause_by_key(worker.client, worker.options.queue.name, reason)
            case ResumeKey():
                return await resume_by_key(worker.client, worker.options.queue.name)
            case _:
                assert_never(action)

    return Dashboard(
        reporter.snapshot,
        screen,
        keyboard,
        act,
        View(may=frozenset({QuitKey, PauseKey, ResumeKey, DrainKey})),
        ascii_only=only_ascii,
    )
