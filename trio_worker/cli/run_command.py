"""Trio. ``run`` as the command line knows it: its help, and its arguments where the entry point does not read them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from trio_worker.cli.flags import ConfigFile, NoDashboard, OnlyAscii
from trio_worker.cli.run import run_with


async def run(
    *,
    burst: Annotated[bool, Parameter(negative=(), help="Exit when no job is waiting, leased or due.")] = False,
    no_dashboard: NoDashboard = False,
    only_ascii: OnlyAscii = False,
    queue: Annotated[str | None, Parameter(help="Name of the queue; default: queue.name.")] = None,
    config: ConfigFile = None,
) -> int:
    """Run a worker until Ctrl-C or SIGTERM. A second Ctrl-C hurries the drain, a third one exits at once."""
    return await run_with(burst=burst, no_dashboard=no_dashboard, only_ascii=only_ascii, queue=queue, config=config)
