"""Edge. Stop timeouts of supervisors: how long systemd, Compose or Kubernetes wait before they kill a worker.

Read from their files, which blocks. A file that does not set the timeout is ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from trio_worker.records import frozen

INSTALLED = Path("/etc/systemd/system")

# Units of systemd.time(7), which include those of a compose file: 90, 1min 30s, 1m30s.
_UNIT_SECONDS = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]*)\s*")
_UNIT_STOP = re.compile(r"\s*(?:TimeoutStopSec|TimeoutSec)\s*=\s*(.*?)\s*$")
_UNIT_START = re.compile(r"\s*ExecStart\s*=.*\s--config[= ]\s*(\S+)")
_YAML_STOP = re.compile(
    r"\s*(?:stop_grace_period|terminationGracePeriodSeconds)\s*:\s*[\"']?([^\"'#]*?)[\"']?\s*(?:#.*)?$"
)


@frozen
class StopTime:
    """The stop timeout in a file; ``place`` is file:line, ``config`` the configuration that a unit names, or empty."""

    place: str
    seconds: float
    config: str = ""


def find_stop_times(config: Path, *, is_production: bool, installed: Path = INSTALLED) -> Iterator[StopTime]:
    """Yield the stop timeouts for a worker with this configuration, from ``ops/`` beside it and from systemd.

    A unit that names another configuration belongs to another worker; files that name none belong to production. Files
    that cannot be read, and invalid times, are skipped.
    """
    ops = config.parent / "ops"
    for unit in (*sorted(ops.rglob("*.service")), *sorted(installed.glob("trio-worker*.service"))):
        found = _of_unit(unit)
        if found is not None and (Path(found.config).name == config.name if found.config else is_production):
            yield found
    for file in sorted(ops.rglob("*.y*ml")) if is_production else ():
        for place, written in _named(file, _YAML_STOP):
            seconds = seconds_of(written)
            if seconds is not None:
                yield StopTime(place, seconds)


def seconds_of(written: str) -> float | None:
    """Return a duration in seconds, ``inf`` for ``infinity``, None if it is not valid."""
    if written == "infinity":
        return math.inf
    parts = list(_PART.finditer(written))
    is_duration = bool(written) and "".join(found[0] for found in parts) == written
    if not is_duration or any(found[2] not in _UNIT_SECONDS for found in parts):
        return None
    return sum(float(found[1]) * _UNIT_SECONDS[found[2]] for found in parts)


def _of_unit(unit: Path) -> StopTime | None:
    """Return the stop timeout of a unit and its drop-ins; the last value counts, and 0 means no limit."""
    files = (unit, *sorted(unit.with_name(f"{unit.name}.d").glob("*.conf")))
    stops = [found for file in files for found in _named(file, _UNIT_STOP)]
    starts = [written for file in files for _, written in _named(file, _UNIT_START)]
    seconds = seconds_of(stops[-1][1]) if stops else None
    if seconds is None:
        return None
    return StopTime(stops[-1][0], seconds or math.inf, starts[-1] if starts else "")


def _named(file: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield place and value of the lines that match."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if found := pattern.match(line):
            yield f"{file}:{number}", found[1]
