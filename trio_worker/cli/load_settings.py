"""Edge. Reads the settings of a command, or prints every fault and exits with 78.

A separate module, because `config` and `schema` need the settings, but neither Redis nor trio.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from trio_worker.cli.exit_codes import MISCONFIGURED
from trio_worker.cli.output import refuse
from trio_worker.settings.reader import SettingFault, SettingFaults, Settings, config_path, read_settings
from trio_worker.settings.stop_times import find_stop_times
from trio_worker.telemetry.number_words import counted


def load_settings(config: Path | None, flags: Mapping[str, object] | None = None) -> Settings:
    """Read the settings, or print every fault and exit with 78."""
    settings = read_settings(config_path(config, os.environ), os.environ, flags or {})
    if isinstance(settings, SettingFaults):
        refuse(MISCONFIGURED, *map(str, settings.faults), counted(len(settings.faults), "problem"))
    return settings


def warnings_of(config: Path | None, settings: Settings) -> list[SettingFault]:
    """Return the warnings about the settings, also about a conflict with the files of systemd or another supervisor."""
    path = config_path(config, os.environ)
    grace_seconds = settings.shutdown.grace_seconds
    stops = [] if path is None else find_stop_times(path, is_production=settings.profile == "production")
    place = settings.origins.get("shutdown.grace_seconds", "default")
    short = [
        f"shutdown.grace_seconds: {grace_seconds:g} s, but {stop.place} kills a worker after {stop.seconds:g} s"
        for stop in stops
        if stop.seconds <= grace_seconds
    ]
    return [*settings.warnings, *(SettingFault(place, message) for message in short)]
