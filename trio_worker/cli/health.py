"""Edge. ``health``: asks a running worker; this file is only used for its help and for wrong arguments.

The entry point runs a call with correct arguments by itself, without the command line, because a probe must start fast.
"""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from trio_worker.cli.flags import CONFIG_HELP
from trio_worker.telemetry.probe import ask_workers


def health(
    what: Annotated[
        Literal["live", "ready"],
        Parameter(help="live: the worker's event loop runs; ready: Redis answers it too, and it is not draining."),
    ] = "ready",
    /,
    *,
    wait: Annotated[
        str, Parameter(metavar="DURATION", help="Repeat until the answer is yes, for at most this time: 30s, 2m.")
    ] = "0s",
    address: Annotated[
        str, Parameter(help="Address of the worker: HOST:PORT or unix:PATH; default: metrics.listen.")
    ] = "",
    config: Annotated[str, Parameter(metavar="PATH", help=CONFIG_HELP)] = "",
) -> int:
    """Ask a running worker at metrics.listen whether it is ready or alive. Exits with 0: yes, 69: no, 75: timeout."""
    return ask_workers(what, wait, address, config)
