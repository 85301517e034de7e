"""Edge. Reads the settings of a command, or prints every fault and exits with 78.

A separate module, because `config` and `schema` need the settings, but neither Redis nor trio.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from trio_worker.cli.exit_codes import MISCONFIGURED
from trio_worker.cli.output import redis_name, refuse
from trio_worker.printing import complain
from trio_worker.redis.options import RedisOptions
from trio_worker.settings.reader import (
    CONFIG_VARIABLE,
    DEV_FILE,
    SettingFaults,
    Settings,
    config_path,
    has_configuration,
    read_settings,
)
from trio_worker.telemetry.number_words import counted

_NO_CONFIGURATION = """\
no configuration: --config names none, {variable} is not set, and there is no {file}
trio-worker config init PATH writes one; trio-worker run and trio-worker demo need none"""

# It is there while the embedded server of the defaults runs.
_EMBEDDED = Path(RedisOptions().url.removeprefix("embedded:"), "server.json")


def load_settings(
    config: Path | None, flags: Mapping[str, object] | None = None, *, may_be_missing: bool = False
) -> Settings:
    """Read the settings, or print every fault and exit with 78; print which configuration and Redis the command uses.

    Without any configuration a command would show or change the defaults' world, which nobody asked about: it exits
    with 78, unless it ``may_be_missing``, for commands that open a world of their own, or a worker runs in this folder.
    """
    path = config_path(config, os.environ)
    if not may_be_missing:
        refuse_without_configuration(path)
    settings = read_settings(path, os.environ, flags or {})
    if isinstance(settings, SettingFaults):
        refuse(MISCONFIGURED, *map(str, settings.faults), counted(len(settings.faults), "problem"))
    # On standard error: standard output has the answer, which programs may read.
    complain(world_line(settings))
    return settings


def refuse_without_configuration(path: Path | None) -> None:
    """Exit with 78 if there is neither a file nor a variable; say which file would be taken.

    A worker that runs in this folder without one has opened a world, and its embedded server is left for the commands.
    """
    if has_configuration(path, os.environ) or _EMBEDDED.is_file():
        return
    said = _NO_CONFIGURATION.format(file=DEV_FILE.absolute(), variable=CONFIG_VARIABLE)
    refuse(MISCONFIGURED, *said.splitlines())


def world_line(settings: Settings) -> str:
    """Return the line that names the configuration and the Redis of a command."""
    configuration = str(Path(settings.file).absolute()) if settings.file else "environment and defaults"
    return f"{configuration}: queue {settings.queue.name}, Redis {redis_name(settings.redis.url)}"
