"""Pure. Options of the log and of the metrics. A module by itself, so that neither is needed to read them."""

from __future__ import annotations

from pathlib import Path

from trio_worker.option import option
from trio_worker.records import frozen

LEVELS = ("debug", "info", "warning", "error")


_UNIX = "unix:"


@frozen
class LogOptions:
    """The file, the level and the format of the log (config section ``[log]``)."""

    file: str = option("logs/worker.log", "Log file; empty: standard error.")
    level: str = option("info", "Lowest level of messages that are logged.", choices=LEVELS)
    format: str = option(
        "auto",
        "Format of log lines: console, json, or auto: console in a file or on a terminal, else json.",
        choices=("auto", "console", "json"),
    )


@frozen
class MetricsOptions:
    """The address of metrics and health checks (config section ``[metrics]``)."""

    listen: str = option(
        "", "Addresses of metrics and health checks, with commas: HOST:PORT (port 0: any) or unix:PATH."
    )


def split_addresses(listen: str) -> list[tuple[str, int] | Path]:
    """Return the parts of addresses that are separated by commas; ValueError says what is wrong with one."""
    return [split_address(each.strip()) for each in listen.split(",")]


def shown_address(address: tuple[str, int] | Path) -> str:
    """Return an address as it is written in the settings."""
    if isinstance(address, Path):
        return f"{_UNIX}{address}"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(listen: str) -> tuple[str, int] | Path:
    """Return (host, port) or the path of a unix socket; ValueError says what is wrong with it."""
    if listen.startswith(_UNIX):
        path = listen.removeprefix(_UNIX)
        if not path:
            raise ValueError("unix: needs a path, such as unix:var/metrics.sock")
        return Path(path)
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("must be an address and a port, such as 127.0.0.1:9464, or unix:PATH")
    return host.strip("[]"), int(port)
