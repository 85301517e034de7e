"""Trio. ``run``: the worker in the foreground, with a live dashboard where a person watches.

`run_command` has its help; this module knows no library for that, because its import is a tenth of a worker's start.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  each look-up of a name loads it, and there may be no file descriptor free then
import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio
from attrs import field

from trio_worker.cli.connect import connect_queue
from trio_worker.cli.exit_codes import MISCONFIGURED, OK, UNREACHABLE
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import redis_name, refuse
from trio_worker.cli.run_arguments import RunArguments
from trio_worker.cli.run_display import Display, display_for, print_line
from trio_worker.cli.run_reload import ReadSettings, Reload
from trio_worker.cli.setup import MailSetup, read_mail_setup, relay_of
from trio_worker.dashboard.status_line import status_line
from trio_worker.dashboard.terminal import has_terminal
from trio_worker.fleet.report import Reporter
from trio_worker.own_files import UntrustedPathError
from trio_worker.printing import complain
from trio_worker.queue.journal import Journal, JournalUnusableError, Owner, open_journal
from trio_worker.records import define
from trio_worker.redis.client import RedisClient
from trio_worker.redis.url import EmbeddedAddress, parse_embedded
from trio_worker.settings.digest import digest_of
from trio_worker.settings.reader import SettingFaults, Settings, config_path, read_settings
from trio_worker.settings.worker_options import worker_options
from trio_worker.smtp.relay import Relay
from trio_worker.telemetry.http_server import (
    ListenTakenError,
    probed_address,
    serve_pages,
    write_address,
)
from trio_worker.telemetry.logbook import Logbook, open_logbook
from trio_worker.worker.events import LoopComplained
from trio_worker.worker.signals import handle_signals, handled_signals
from trio_worker.worker.systemd import SystemdNotifier, find_notifier
from trio_worker.worker.task_tree import task_tree
from trio_worker.worker.worker import Worker

# How often the queue is counted for the screen, and for the lines of a run without one.
SCREEN_POLL_SECONDS = 1.0
LINES_POLL_SECONDS = 10.0
# And for metrics, which are usually read every 10 to 30 seconds.
METRICS_POLL_SECONDS = 5.0

# A function that runs beside the worker, with a client of its Redis; it may end the worker by draining it.
Alongside: TypeAlias = Callable[[Worker, RedisClient], Awaitable[None]]


def start(arguments: RunArguments) -> int:
    """Run a worker with arguments that the entry point has read; return the exit code."""
    return trio.run(partial(run_with, **arguments))


async def run_with(
    *,
    burst: bool = False,
    no_dashboard: bool = False,
    only_ascii: bool = False,
    queue: str | None = None,
    config: Path | None = None,
) -> int:
    """Run a worker with the arguments of the command, until Ctrl-C or SIGTERM; return the exit code."""
    flags = {} if queue is None else {"queue.name": queue}
    settings = load_settings(config, flags, may_be_missing=True)

    def read_again() -> Settings | SettingFaults:
        return read_settings(config_path(config, os.environ), os.environ, flags)

    shows = not no_dashboard
    return await run_worker(settings, read_again, is_burst=burst, shows_dashboard=shows, only_ascii=only_ascii)


async def run_worker(
    settings: Settings,
    read_again: ReadSettings,
    *,
    is_burst: bool,
    shows_dashboard: bool,
    only_ascii: bool = False,
    alongside: Alongside | None = None,
) -> int:
    """Run one worker with everything around it and print its ledger; return the exit code.

    ``read_again`` reads the settings again, for a login or limits that were changed. Raises SystemExit when the run
    cannot even begin.
    """
    run = _Run(
        settings,
        read_mail_setup(settings),
        relay_of(settings),
        read_again,
        display_for(shows_dashboard=shows_dashboard, only_ascii=only_ascii),
        is_burst=is_burst,
        alongside=alongside,
    )
    _tune_gc()
    # Before anything of asyncio: a KeyboardInterrupt inside its code would hang.
    with trio.open_signal_receiver(*handled_signals()) as signals:
        code = await run.run(signals)
    if run.reporter is not None:
        ledger = run.reporter.board.ledger
        print_line(f"{ledger}; {ledger.uncertain:,} uncertain")
    return code


def _tune_gc() -> None:
    """Keep modules and templates out of the garbage collector's rounds: there are 100,000 of their objects by now.

    Some 2 MB of them are garbage, and stay: to look for it would take 70 ms, an eighth of the start, and a process that
    did so was 0.4 MB smaller. A mail leaves few cycles behind, so young objects are looked through less often, too.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@define(eq=False)
class _Run:
    """One ``run``: opens everything around a worker in order, closes it in the reverse order, and obeys signals."""

    settings: Settings
    mail_setup: MailSetup
    relay: Relay
    read_again: ReadSettings
    display: Display
    is_burst: bool
    alongside: Alongside | None
    had_terminal: bool = field(factory=has_terminal)
    reporter: Reporter | None = None  # once the worker is made
    notifier: SystemdNotifier | None = None
    reload: Reload | None = None
    _everything: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self, signals: AsyncIterator[int]) -> int:
        code = OK
        with ExitStack() as stack:
            options = self.settings.log
            self.notifier = find_notifier(os.environ, self.settings.shutdown.grace_seconds)
            if self.notifier is not None:
                stack.callback(self.notifier.close)
            try:
                logbook = stack.enter_context(open_logbook(options, to_terminal=sys.stderr.isatty()))
            except UntrustedPathError as error:
                refuse(MISCONFIGURED, f"log.file: {error.strerror}")
            except OSError as error:
                refuse(MISCONFIGURED, f"log.file: {options.file}: {error.strerror}")
            with self._everything:
                async with trio.open_nursery() as signals_nursery:
                    signals_nursery.start_soon(handle_signals, signals, self)
                    code = await self._work(logbook)
                    signals_nursery.cancel_scope.cancel()
        if logbook.lost_lines:
            complain(f"{logbook.lost_lines} log lines were lost: the log could not be written")
        return code

    async def _work(self, logbook: Logbook) -> int:
        async with AsyncExitStack() as stack:
            try:
                client = await self._open_redis(stack)
            except SystemExit as refusal:  # explained by who refused; a nursery would wrap it
                return int(refusal.code or OK)
            # A signal that came while something was opened cancels this task; the worker must not begin under that, for
            # it would claim, and could settle nothing. Once there is a worker, a signal drains it instead.
            await trio.lowlevel.checkpoint_if_cancelled()
            journal = self._open_journal(stack)
            if journal is None and self.settings.queue.journal_dir:
                return MISCONFIGURED
            self.reporter = reporter = self._report_on(client, journal, logbook)
            self.reload = reload = Reload(self.settings, reporter, self.read_again, self.display.say)
            try:
                await self._open_metrics(stack, reload, logbook)
            except ListenTakenError as error:  # by a worker that is about to end, perhaps: starting again may help
                complain(f"metrics.listen: {error}")
                return UNREACHABLE
            except OSError as error:
                complain(f"metrics.listen: {self.settings.metrics.listen}: {error.strerror or error}")
                return MISCONFIGURED
            if self.notifier is not None:
                reporter.worker.sinks = [*reporter.worker.sinks, self.notifier.note]
            return await self._show_work(reporter, client, reload)

    def _report_on(self, client: RedisClient, journal: Journal | None, logbook: Logbook) -> Reporter:
        """Make the worker and what reports on it."""
        settings = self.settings
        # Between two frames a log line would tear the screen.
        keeps_log = bool(settings.log.file) or not self.display.is_screen
        worker = Worker(
            options=worker_options(settings, self.relay),
            client=client,
            composer=self.mail_setup.composer,
            types=self.mail_setup.catalogue.types,
            sinks=[logbook.note] if keeps_log else [],
            is_burst=self.is_burst,
            journal=journal,
        )
        return Reporter(
            worker,
            redis_name=redis_name(settings.redis.url),
            config=digest_of(settings),
            poll_seconds=self._poll_seconds(),
            polls_closely=self.display.is_screen,
            set_log_level=logbook.set_level if keeps_log else None,
        )

    async def _open_metrics(self, stack: AsyncExitStack, reload: Reload, logbook: Logbook) -> None:
        """Serve metrics and health until the drain is over, if there is an address for them."""
        listen = self.settings.metrics.listen
        if not listen:
            return
        # The library costs 80 ms of the start, and most runs on a developer's machine do without.
        from trio_worker.cli.run_pages import metrics_of, pages_of  # noqa: PLC0415

        # Before they are served: settings that are read again meanwhile have another digest.
        reporter, reload.metrics = reload.reporter, metrics_of(reload.reporter, logbook, self.settings)
        address = await stack.enter_async_context(serve_pages(listen, pages_of(reporter, reload.metrics)))
        folder = self.settings.queue.journal_dir
        if folder:  # for `health` in a shell, which does not have the variables of a service
            stack.enter_context(write_address(Path(folder), probed_address(address)))
        self.display.say(f"metrics and health on {address}")

    def _poll_seconds(self) -> float:
        if self.display.is_screen:
            return SCREEN_POLL_SECONDS
        return METRICS_POLL_SECONDS if self.settings.metrics.listen else LINES_POLL_SECONDS

    def _open_journal(self, stack: AsyncExitStack) -> Journal | None:
        """Open the journal if there is to be one; say why when it cannot be: then nothing may be claimed."""
        folder = self.settings.queue.journal_dir
        if not folder:
            return None
        try:
            return stack.enter_context(open_journal(Path(folder), owner_of(self.settings)))
        except JournalUnusableError as error:
            complain(f"queue.journal_dir: {error}")
            return None

    async def _open_redis(self, stack: AsyncExitStack) -> RedisClient:
        """Open the catcher, where this process hosts it, and a client of the queue's Redis."""
        if self.settings.capture.listen:
            # The catcher costs 60 ms of the start, and no worker in production has one.
            from trio_worker.capture.host import host_catcher  # noqa: PLC0415
            from trio_worker.capture.server import CatcherPortTaken  # noqa: PLC0415

            try:
                await stack.enter_async_context(host_catcher(self.settings.capture, self.settings.smtp.login))
            except CatcherPortTaken as error:
                refuse(UNREACHABLE, f"capture.listen: {error}")
            except UntrustedPathError as error:
                refuse(MISCONFIGURED, f"capture.dir: {error.strerror}")
            except OSError as error:
                refuse(MISCONFIGURED, f"capture.{'dir' if error.filename else 'listen'}: {error}")
        return await stack.enter_async_context(connect_queue(self.settings, self._note_loop, starts_embedded=True))

    async def _show_work(self, reporter: Reporter, client: RedisClient, reload: Reload) -> int:
        """Run the worker while the display shows it; the display goes when the worker is done."""
        with self.display.open(reporter):
            async with trio.open_nursery() as displays:
                displays.start_soon(self.display.run, reporter)
                displays.start_soon(reload.follow_login)
                if self.notifier is not None:
                    displays.start_soon(self.notifier.run, lambda: status_line(reporter.snapshot()))
                if self.alongside is not None:
                    displays.start_soon(self.alongside, reporter.worker, client)
                code = await reporter.run()
                displays.cancel_scope.cancel()
        return code

    def _note_loop(self, what: str) -> None:
        if self.reporter is not None:
            self.reporter.worker.publish(LoopComplained(what))

    def drain(self, why: str) -> None:
        if self.reporter is None:
            # Nothing was claimed yet: leave what is being opened.
            self._everything.cancel()
            return
        worker = self.reporter.worker
        worker.drain(why)
        grace = self.settings.shutdown.grace_seconds
        self.display.say(f"draining {len(worker.in_flight)}, up to {grace:g} s; press again to hurry")

    def hurry(self) -> None:
        if self.reporter is not None:
            self.reporter.worker.hurry()

    def leave(self) -> None:
        self.display.restore_terminal()

    def hang_up(self) -> None:
        if self.reporter is None or self.reload is None:
            return
        if self.had_terminal and not has_terminal():
            self.reporter.worker.drain("SIGHUP")
            return
        if self.notifier is not None:
            self.notifier.begin_reload()
        self.reload.reload()
        if self.notifier is not None:
            self.notifier.end_reload()

    def show_state(self) -> None:
        state = "the worker has not begun" if self.reporter is None else self.reporter.describe()
        log_file = self.settings.log.file
        self.display.show_report(f"{state}\n{task_tree()}", Path(log_file).parent if log_file else Path())

    def toggle_quiet(self) -> None:
        if self.reporter is None:
            return
        worker = self.reporter.worker
        if worker.is_quiet:
            worker.resume("SIGUSR2")
        else:
            worker.quiet("SIGUSR2")


def owner_of(settings: Settings) -> Owner:
    """Return whose settlements a journal of these settings holds; one embedded server is one, however it is written."""
    address = parse_embedded(settings.redis.url)
    if isinstance(address, EmbeddedAddress):
        return Owner(settings.queue.name, f"embedded:{address.directory.expanduser().resolve()}")
    return Owner(settings.queue.name, redis_name(settings.redis.url))
