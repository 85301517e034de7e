"""Haraka of npm: a mail server for many connections, used in front of others and as a relay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.servers.npm import npm_packages
from tests.support.servers.running import Running, free_port, kept_in, running_process

_PLUGIN = Path(__file__).with_name("haraka_keep.js")


@contextmanager
def open_haraka(run_folder: Path, folder: Path) -> Iterator[Running]:
    """Start it in a folder, with its defaults and no plugin but the one that keeps mails."""
    modules = npm_packages(run_folder, "Haraka@3.3.4")
    port, kept = free_port(), folder / "kept"
    for name in ("kept", "plugins"):
        (folder / name).mkdir()
    shutil.copytree(modules / "Haraka" / "config", folder / "config")  # as its own program does to install a folder
    (folder / "config" / "smtp.ini").write_text(f"listen=127.0.0.1:{port}\nnodes=0\n")
    (folder / "config" / "me").write_text("relay.example.org\n")
    (folder / "config" / "plugins").write_text("keep\n")
    (folder / "config" / "loglevel").write_text("NOTICE\n")
    shutil.copy(_PLUGIN, folder / "plugins" / "keep.js")
    command = ["node", str(modules / "Haraka" / "haraka.js")]
    environment = {"HARAKA": str(folder), "KEPT_IN": str(kept), "PATH": os.environ["PATH"]}
    with running_process(command, port, folder / "log", environment) as log:
        yield Running(port, partial(kept_in, kept), log)
