"""Edge. Warnings about the settings, and about files of supervisors that contradict them."""

from __future__ import annotations

import os
from pathlib import Path

from trio_worker.settings.reader import SettingFault, Settings, config_path
from trio_worker.settings.stop_times import find_stop_times


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
