"""Settings that are read again while a run is still being opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from attrs import evolve

from tests.support.workers import WorkerMaker
from trio_worker.cli import run as run_module
from trio_worker.cli.run_display import display_for
from trio_worker.cli.run_reload import Reload
from trio_worker.settings.digest import digest_of
from trio_worker.settings.reader import Settings
from trio_worker.telemetry.logbook import open_logbook
from trio_worker.telemetry.options import LogOptions, MetricsOptions


async def test_settings_that_change_while_pages_are_opened_are_those_that_metrics_show(
    any_workers: WorkerMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGHUP may come before metrics are served: the digest that they show is that of the settings in force."""
    before = Settings(metrics=MetricsOptions(listen="127.0.0.1:9464"))
    after = evolve(before, number_workers=7)
    reload = Reload(before, any_workers.make(any_workers.options(1)), lambda: after, lambda *_lines: None)

    @asynccontextmanager
    async def serve_pages(*_arguments: Any) -> AsyncIterator[str]:
        reload.reload()  # as SIGHUP does
        yield "127.0.0.1:9464"

    monkeypatch.setattr(run_module, "serve_pages", serve_pages)
    unused: Any = None  # neither mails nor a relay are part of this
    display = display_for(shows_dashboard=False, only_ascii=True)
    run = run_module._Run(before, unused, unused, lambda: after, display, is_burst=True, alongside=None)
    with open_logbook(LogOptions(), to_terminal=False) as logbook:
        async with AsyncExitStack() as stack:
            await run._open_metrics(stack, reload, logbook)

    assert reload.metrics is not None
    assert digest_of(after) != digest_of(before)
    assert f'digest="{digest_of(after)}"' in reload.metrics.exposition().decode()
