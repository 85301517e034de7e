"""Trio. Notifies systemd (sd_notify): the worker is ready, its loop makes progress, it reloads, it stops.

sd_notify(3): datagrams to the socket that $NOTIFY_SOCKET names; nothing where there is none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Never

import trio

from trio_worker.printing import visible
from trio_worker.records import define
from trio_worker.worker.events import Event, PhaseChanged
from trio_worker.worker.phase import Phase

# For the status line of `systemctl status`.
STATUS_SECONDS = 10.0
# What stopping takes beyond the grace: settling, QUIT, leaving.
STOPPING_MARGIN_SECONDS = 10.0


@define(eq=False)
class SystemdNotifier:
    """Sends notifications to systemd; made by `find_notifier`. `close` closes its socket."""

    _socket: socket.socket
    _address: str
    watchdog_seconds: float | None
    grace_seconds: float

    def close(self) -> None:
        self._socket.close()

    def notify(self, *lines: str) -> None:
        """Send one datagram, each text visible on its own line; a systemd that does not read it holds up nothing."""
        with suppress(OSError):
            self._socket.sendto("\n".join(map(visible, lines)).encode(), self._address)

    def note(self, event: Event) -> None:
        """Notify of the worker's phases."""
        match event:
            case PhaseChanged(Phase.RUNNING):
                self.notify("READY=1", f"MAINPID={os.getpid()}")
            case PhaseChanged(Phase.DRAINING, why):
                seconds = self.grace_seconds + STOPPING_MARGIN_SECONDS
                self.notify("STOPPING=1", f"STATUS=draining: {why}", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")
            case _:
                pass

    def begin_reload(self) -> None:
        """Notify that the settings are being read again; `end_reload` follows."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def end_reload(self) -> None:
        """Notify that the settings were read."""
        self.notify("READY=1")

    async def run(self, status: Callable[[], str]) -> Never:
        """Send the watchdog's keep-alive and the status line until cancelled; a blocked loop sends none."""
        every_seconds = min(STATUS_SECONDS, (self.watchdog_seconds or STATUS_SECONDS * 2) / 2)
        status_at = 0.0
        while True:
            lines = ["WATCHDOG=1"] if self.watchdog_seconds else []
            if trio.current_time() >= status_at:
                lines.append(f"STATUS={' '.join(status().split())}")
                status_at = trio.current_time() + STATUS_SECONDS
            if lines:
                self.notify(*lines)
            await trio.sleep(every_seconds)


def find_notifier(environ: Mapping[str, str], grace_seconds: float) -> SystemdNotifier | None:
    """Return the notifier for the socket in $NOTIFY_SOCKET; None without one."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    return SystemdNotifier(
        opened, "\0" + address[1:] if address[0] == "@" else address, _watchdog(environ), grace_seconds
    )


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return how often systemd expects a keep-alive (sd_watchdog_enabled(3)); None without a watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None
