"""Trio. The mail catcher: a strict SMTP server that keeps what it gets, and misbehaves on demand.

`open_catcher` runs one in this process, for tests and the demo; `host_catcher` shares one between processes, through a
folder that `list_caught`, `read_caught`, `clear_caught`, `read_chaos` and `write_chaos` work on from anywhere.
"""

from __future__ import annotations

from trio_worker.capture.actions import CaughtMail, Violation
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import NO_FAULTS, Fault, Faults, FaultSyntax, faults_text, parse_faults
from trio_worker.capture.host import (
    HostedBy,
    Hosting,
    host_catcher,
    read_chaos,
    read_host,
    write_chaos,
)
from trio_worker.capture.maildir import CaughtSummary, clear_caught, count_caught, list_caught, read_caught
from trio_worker.capture.offer import EXTENSIONS
from trio_worker.capture.server import CatcherPortTaken, open_catcher
from trio_worker.capture.store import MaildirStore, MemoryStore, Store

__all__ = [
    "EXTENSIONS",
    "NO_FAULTS",
    "Catcher",
    "CatcherPortTaken",
    "CaughtMail",
    "CaughtSummary",
    "Fault",
    "FaultSyntax",
    "Faults",
    "HostedBy",
    "Hosting",
    "MaildirStore",
    "MemoryStore",
    "Store",
    "Violation",
    "clear_caught",
    "count_caught",
    "faults_text",
    "host_catcher",
    "list_caught",
    "open_catcher",
    "parse_faults",
    "read_caught",
    "read_chaos",
    "read_host",
    "write_chaos",
]
