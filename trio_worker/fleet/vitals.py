"""Trio. Measures this process: processor time, memory, and how late its event loop wakes (lag)."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Never

import trio
from attrs import field

from trio_worker.records import define
from trio_worker.telemetry.heartbeat import Vitals

# A blocked loop is seen within this time, for one wake-up every so often; the last minute is kept.
LAG_EVERY_SECONDS = 0.5
_LAGS_KEPT = 120
_STATM = Path("/proc/self/statm")


@define(eq=False)
class VitalsMeter:
    """Measures its own process; `watch_loop` runs in its event loop and calls ``on_lag`` with each lag (seconds)."""

    on_lag: Callable[[float], object] = lambda _: None
    _lags: deque[float] = field(factory=lambda: deque(maxlen=_LAGS_KEPT))
    _cpu_seconds: float = field(factory=time.process_time)
    _at: float = field(factory=time.monotonic)

    async def watch_loop(self) -> Never:
        """Measure until cancelled how late the loop wakes a task that is due."""
        while True:
            wake_at = trio.current_time() + LAG_EVERY_SECONDS
            await trio.sleep_until(wake_at)
            lag_seconds = max(0.0, trio.current_time() - wake_at)
            self._lags.append(lag_seconds)
            self.on_lag(lag_seconds)

    def read(self, redis_seconds: float | None = None) -> Vitals:
        """Return the vitals; the processor's share is that since the last reading."""
        cpu_seconds, at = time.process_time(), time.monotonic()
        elapsed = at - self._at
        cpu_share = (cpu_seconds - self._cpu_seconds) / elapsed if elapsed > 0 else None
        self._cpu_seconds, self._at = cpu_seconds, at
        ordered = sorted(self._lags)
        lag_seconds = ordered[int(0.99 * (len(ordered) - 1))] if ordered else None
        return Vitals(cpu_share, _rss_bytes(), lag_seconds, redis_seconds)


def _rss_bytes() -> int | None:
    """Return the resident memory (proc(5), statm), None where there is no such file."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
