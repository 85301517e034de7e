"""Edge. The flags that many commands have, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

CONFIG_HELP = "Configuration file; else TRIO_WORKER_CONFIG, conf/dev.toml."
ConfigFile = Annotated[Path | None, Parameter(name=["--config"], help=CONFIG_HELP)]
QueueName = Annotated[str | None, Parameter(name=["--queue"], help="Name of the queue; else queue.name.")]
OnlyAscii = Annotated[bool, Parameter(name=["--ascii"], negative=(), help="Draw with ASCII alone.")]
AsJson = Annotated[bool, Parameter(name=["--json"], negative=(), help="Print JSON, stable between versions.")]
Reveal = Annotated[bool, Parameter(negative=(), help="Show addresses and the job itself. Mind who reads along.")]
