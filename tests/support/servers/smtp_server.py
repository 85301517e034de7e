"""smtp-server of npm: what Node.js applications and test relays are built with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.servers.npm import npm_packages
from tests.support.servers.running import Running, free_port, kept_in, running_process

_SCRIPT = Path(__file__).with_name("smtp_server.js")


@contextmanager
def open_smtp_server(run_folder: Path, folder: Path) -> Iterator[Running]:
    """Start it in a folder."""
    modules = npm_packages(run_folder, "smtp-server@3.21.6")
    port, kept = free_port(), folder / "kept"
    kept.mkdir()
    command = ["node", str(_SCRIPT), str(port), str(kept)]
    environment = {"NODE_PATH": str(modules), "PATH": os.environ["PATH"]}
    with running_process(command, port, folder / "log", environment) as log:
        yield Running(port, partial(kept_in, kept), log)
