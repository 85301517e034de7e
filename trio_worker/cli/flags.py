"""Edge. The flags that many commands have, each with its help text.

A separate module, so that the command line can import them without Redis or trio.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

CONFIG_HELP = "Configuration file; default: TRIO_WORKER_CONFIG, else conf/dev.toml."
ConfigFile = Annotated[Path | None, Parameter(name=["--config"], help=CONFIG_HELP)]
QueueName = Annotated[str | None, Parameter(name=["--queue"], help="Name of the queue; default: queue.name.")]
NoDashboard = Annotated[
    bool, Parameter(name=["--no-dashboard"], negative=(), help="Print lines of text instead of the dashboard.")
]
OnlyAscii = Annotated[bool, Parameter(name=["--ascii"], negative=(), help="Draw with ASCII characters only.")]
AsJson = Annotated[
    bool, Parameter(name=["--json"], negative=(), help="Print JSON. Its keys are stable between versions.")
]
Reveal = Annotated[
    bool, Parameter(negative=(), help="Show addresses and the whole job. Other people may see your screen.")
]
