"""Edge. ``health`` among the other commands, for its help and for words that are wrong; the rest never comes here.

The entry point runs what is written plainly by itself, without the command line, as a probe must start at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from trio_worker.cli.flags import CONFIG_HELP
from trio_worker.telemetry.probe import ask_workers


def health(
    what: Annotated[
        Literal["live", "ready"], Parameter(help="live: its loop runs; ready: that, Redis answers, and it takes jobs.")
    ] = "ready",
    /,
    *,
    wait: Annotated[str, Parameter(metavar="DURATION", help="Ask until it is so, at most so long: 30s, 2m.")] = "0s",
    address: Annotated[str, Parameter(help="Where to ask: HOST:PORT or unix:PATH; else metrics.listen.")] = "",
    config: Annotated[str, Parameter(metavar="PATH", help=CONFIG_HELP)] = "",
) -> int:
    """Ask a running worker, at its metrics.listen, whether it is ready, or just alive; 0 yes, 69 no, 75 not in time."""
    return ask_workers(what, wait, address, config)
