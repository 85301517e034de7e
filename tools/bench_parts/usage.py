"""What a process has used until now, from Linux's /proc. Imports only the standard library, as the sink does."""

from __future__ import annotations

import os
import re
from pathlib import Path

IS_KNOWN = Path("/proc/self/stat").exists()
_MAX_RESIDENT = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb(pid: int) -> float:
    """Return its peak memory; 0 if it has ended, or without /proc.

    The kernel's figure for an ended process (``ru_maxrss``) is at least the memory of the process that started it.
    """
    if not IS_KNOWN:
        return 0.0
    found = _MAX_RESIDENT.search(Path(f"/proc/{pid}/status").read_text("utf-8"))
    return int(found[1]) / 1024 if found else 0.0
