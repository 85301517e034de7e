"""Edge. The metrics of the process itself, with the names that all clients of Prometheus use; see `exposition`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from attrs import field

from trio_worker.records import define
from trio_worker.telemetry.exposition import Family

_PROC = Path("/proc")
_STAT_AFTER_NAME = 2  # of the fields in proc_pid_stat(5), which begin with number 1, two stand up to the name's end


@define(eq=False)
class ProcessMetrics:
    """Reads /proc at each scrape; without it, as on macOS, only Python's own figures are there."""

    _booted_at: float | None = field(init=False)  # epoch seconds

    def __attrs_post_init__(self) -> None:
        self._booted_at = _booted_at()

    def collect(self) -> list[Family]:
        """Return the figures of this moment."""
        return [*self._of_process(), *_of_descriptors(), *_of_garbage_collector()]

    def _of_process(self) -> list[Family]:
        try:
            after_name = (_PROC / "self" / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return []
        if self._booted_at is None:
            return []

        def stat(number: int) -> int:
            return int(after_name[number - 1 - _STAT_AFTER_NAME])

        ticks = os.sysconf("SC_CLK_TCK")
        resident = stat(24) * os.sysconf("SC_PAGE_SIZE")
        return [
            _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat(23)),
            _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident),
            _gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                self._booted_at + stat(22) / ticks,
            ),
            Family(
                "process_cpu_seconds_total",
                "counter",
                "Total user and system CPU time spent in seconds.",
                [("", {}, (stat(14) + stat(15)) / ticks)],
            ),
        ]


def _booted_at() -> float | None:
    try:
        lines = (_PROC / "stat").read_bytes().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith(b"btime ")), None)


def _of_descriptors() -> list[Family]:
    try:
        count = len(os.listdir(_PROC / "self" / "fd"))  # noqa: PTH208  only their number is wanted
        limits = (_PROC / "self" / "limits").read_bytes().splitlines()
    except OSError:
        return []
    most = next(line.split()[3] for line in limits if line.startswith(b"Max open files"))
    return [
        _gauge("process_open_fds", "Number of open file descriptors.", count),
        _gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            float("inf" if most == b"unlimited" else most),
        ),
    ]


def _of_garbage_collector() -> list[Family]:
    figures = (
        ("python_gc_objects_collected_total", "Objects collected during gc", "collected"),
        ("python_gc_objects_uncollectable_total", "Uncollectable objects found during GC", "uncollectable"),
        ("python_gc_collections_total", "Number of times this generation was collected", "collections"),
    )
    generations = gc.get_stats()
    return [
        Family(name, "counter", said, [("", {"generation": str(at)}, each[key]) for at, each in enumerate(generations)])
        for name, said, key in figures
    ]


def _gauge(name: str, help_text: str, value: float) -> Family:
    return Family(name, "gauge", help_text, [("", {}, value)])
