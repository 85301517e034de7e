"""Trio. The settings of a running worker, read again: on SIGHUP, and while the relay refuses the login."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Never, TypeAlias

import trio

from trio_worker.fleet.report import Reporter
from trio_worker.records import define
from trio_worker.settings.digest import digest_of
from trio_worker.settings.reader import SettingFaults, Settings
from trio_worker.settings.reload import changes_of
from trio_worker.worker.events import SettingsRead

if TYPE_CHECKING:
    from trio_worker.telemetry.metrics import Metrics

# How often the settings are read again while the relay refuses the login.
LOGIN_POLL_SECONDS = 2.0

ReadSettings: TypeAlias = Callable[[], Settings | SettingFaults]


@define(eq=False)
class Reload:
    """Takes over what has changed in the settings; ``read_again`` reads them, ``say`` prints lines."""

    settings: Settings
    reporter: Reporter
    read_again: ReadSettings
    say: Callable[..., object]
    metrics: Metrics | None = None  # which show the settings' digest

    def reload(self) -> None:
        """Read the settings again and take over the login and the limits; with any fault, nothing."""
        worker = self.reporter.worker
        after = self.read_again()
        if isinstance(after, SettingFaults):
            faults = tuple(map(str, after.faults))
            worker.publish(SettingsRead(faults=faults))
            self.say(*(f"settings not changed: {fault}" for fault in faults))
            return
        found = changes_of(self.settings, after)
        self.settings = settings = found.settings
        worker.use_login(settings.smtp.username, settings.smtp.password)
        self.reporter.config = digest_of(settings)
        if self.metrics is not None:
            self.metrics.note_config(self.reporter.config)
        worker.use_limits(settings.number_workers, settings.queue, settings.smtp_pool, settings.retry)
        worker.use_replies(settings.replies)
        worker.publish(SettingsRead(found.taken, found.waiting))
        self.say(f"settings read: {'; '.join(found.taken) or 'no change'}")
        if found.waiting:
            self.say(f"after a restart: {'; '.join(found.waiting)}")

    async def follow_login(self) -> Never:
        """While the relay refuses the login, read whether it was changed: mail then waits no longer than needed."""
        worker = self.reporter.worker
        while True:
            await trio.sleep(LOGIN_POLL_SECONDS)
            if worker.is_login_refused:
                settings = self.read_again()
                if isinstance(settings, Settings):
                    worker.use_login(settings.smtp.username, settings.smtp.password)
