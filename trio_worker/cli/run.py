"""Trio. ``run``: the worker in the foreground, with a live dashboard where a person watches."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import trio
from attrs import define, field
from cyclopts import Parameter

from trio_worker.cli.connect import connect_queue
from trio_worker.cli.exit_codes import MISCONFIGURED, OK, UNREACHABLE
from trio_worker.cli.flags import ConfigFile, OnlyAscii
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import complain, redis_name, refuse
from trio_worker.cli.setup import MailSetup, read_mail_setup, relay_of
from trio_worker.dashboard.keyboard import Keyboard, open_keyboard
from trio_worker.dashboard.status_line import status_line
from trio_worker.dashboard.terminal import has_color, has_terminal, is_ascii_only, is_live, run_status_lines
from trio_worker.queue.journal import Journal, JournalUnusableError, Owner, open_journal
from trio_worker.redis.client import RedisClient
from trio_worker.redis.url import EmbeddedAddress, parse_embedded
from trio_worker.settings.reader import SettingFaults, Settings, config_path, digest_of, read_settings
from trio_worker.settings.reload import reread
from trio_worker.smtp.relay import Relay
from trio_worker.telemetry.http_server import (
    ListenTakenError,
    has_chosen_port,
    serve_pages,
    tell_address,
)
from trio_worker.telemetry.logbook import Logbook, open_logbook
from trio_worker.worker.events import LoopComplained, SettingsRead
from trio_worker.worker.signals import climb, signals_to_obey
from trio_worker.worker.systemd import Supervisor, find_supervisor
from trio_worker.worker.task_tree import task_tree
from trio_worker.worker.worker import Worker, WorkerOptions

if TYPE_CHECKING:
    from trio_worker.dashboard.live import Dashboard
    from trio_worker.dashboard.screen import Screen
    from trio_worker.telemetry.metrics import Metrics

# How often the queue is counted for the screen, and for the lines of a run without one.
SCREEN_LOOK_SECONDS = 1.0
LINES_LOOK_SECONDS = 10.0
# And for metrics, which are usually read every 10 to 30 seconds.
METRICS_LOOK_SECONDS = 5.0
# How often the settings are read anew while the relay refuses the login.
LOGIN_LOOK_SECONDS = 2.0

Beside: TypeAlias = Callable[[Worker, RedisClient], Awaitable[None]]

NoDashboard = Annotated[bool, Parameter(name=["--no-dashboard"], negative=(), help="Lines of text, no live screen.")]


async def run(
    *,
    burst: Annotated[bool, Parameter(negative=(), help="End when nothing is waiting, leased or due.")] = False,
    no_dashboard: NoDashboard = False,
    only_ascii: OnlyAscii = False,
    queue: Annotated[str | None, Parameter(help="Name of the queue; else queue.name.")] = None,
    config: ConfigFile = None,
) -> int:
    """Run the worker until Ctrl-C or SIGTERM; press Ctrl-C again to hurry, a third time to leave at once."""
    flags = {} if queue is None else {"queue.name": queue}
    settings = load_settings(config, flags)

    def reread() -> Settings | SettingFaults:
        return read_settings(config_path(config, os.environ), os.environ, flags)

    return await run_worker(settings, reread, is_burst=burst, shows_dashboard=not no_dashboard, only_ascii=only_ascii)


async def run_worker(
    settings: Settings,
    reread: Callable[[], Settings | SettingFaults],
    *,
    is_burst: bool,
    shows_dashboard: bool,
    only_ascii: bool = False,
    beside: Beside | None = None,
) -> int:
    """Run one worker with everything around it and print its ledger; return the exit code.

    ``reread`` reads the settings anew, for a login or limits that were changed. ``beside`` runs as long as the worker
    does, with a client of the same Redis; it may end the worker by draining it. Raises SystemExit when it cannot even
    begin.
    """
    templates = read_mail_setup(settings)
    relay = relay_of(settings)
    is_screen = shows_dashboard and is_live(sys.stdout, os.environ)
    stage = _Stage(
        settings,
        templates,
        relay,
        is_burst=is_burst,
        is_screen=is_screen,
        only_ascii=only_ascii or is_ascii_only(sys.stdout, os.environ),
        beside=beside,
        reread=reread,
    )
    _calm_collector()
    # Before anything of asyncio: a KeyboardInterrupt inside its code would hang.
    with trio.open_signal_receiver(*signals_to_obey()) as signals:
        code = await stage.run(signals)
    if stage.worker is not None:
        ledger = stage.worker.board.ledger
        print_line(f"{ledger}; {ledger.uncertain:,} uncertain")
    return code


def _calm_collector() -> None:
    """Keep modules and templates out of the garbage collector's rounds: there are 100,000 of their objects by now.

    A mail leaves few cycles behind, so young objects are looked through less often, too.
    """
    gc.collect()  # what is garbage among them, some 2 MB, would be kept
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@define(eq=False)
class _Stage:
    """One run from its first to its last line."""

    settings: Settings
    templates: MailSetup
    relay: Relay
    is_burst: bool
    is_screen: bool
    only_ascii: bool
    beside: Beside | None
    reread: Callable[[], Settings | SettingFaults]
    had_terminal: bool = field(factory=has_terminal)
    worker: Worker | None = None
    supervisor: Supervisor | None = None
    metrics: Metrics | None = None
    screen: Screen | None = None
    dashboard: Dashboard | None = None
    keyboard: Keyboard | None = None

    async def run(self, signals: AsyncIterator[int]) -> int:
        code = OK
        with ExitStack() as stack:
            options = self.settings.log
            self.supervisor = find_supervisor(os.environ, self.settings.shutdown.grace_seconds)
            if self.supervisor is not None:
                stack.callback(self.supervisor.close)
            try:
                logbook = stack.enter_context(open_logbook(options, to_terminal=sys.stderr.isatty()))
            except OSError as error:
                refuse(MISCONFIGURED, f"log.file: {options.file}: {error.strerror}")
            async with trio.open_nursery() as around:
                around.start_soon(
                    climb,
                    signals,
                    lambda why: self._drain(why, around),
                    self._hurry,
                    self._leave,
                    self._hang_up,
                    self._show_state,
                    self._toggle_quiet,
                )
                code = await self._work(logbook)
                around.cancel_scope.cancel()
        if logbook.lost_lines:
            complain(f"{logbook.lost_lines} log lines were lost: the log could not be written")
        return code

    async def _work(self, logbook: Logbook) -> int:
        settings = self.settings
        async with AsyncExitStack() as stack:
            try:
                client = await self._open_around(stack)
            except SystemExit as refusal:  # explained by who refused; a nursery would wrap it
                return int(refusal.code or OK)
            # A signal that came while something was opened cancels this task; the worker must not begin under that, for
            # it would claim, and could settle nothing. Once there is a worker, a signal drains it instead.
            await trio.lowlevel.checkpoint_if_cancelled()
            journal = self._open_journal(stack)
            if journal is None and settings.queue.journal_dir:
                return MISCONFIGURED
            self.worker = Worker(
                options=WorkerOptions(
                    number_workers=settings.number_workers,
                    queue=settings.queue,
                    relay=self.relay,
                    pool=settings.smtp_pool,
                    retry=settings.retry,
                    mail=settings.mail,
                    shutdown=settings.shutdown,
                ),
                client=client,
                composer=self.templates.composer,
                types=self.templates.catalogue.types,
                # Between two frames a log line would tear the screen.
                sinks=[] if self.is_screen and not settings.log.file else [logbook.note],
                is_burst=self.is_burst,
                look_seconds=self._look_seconds(),
                looks_closely=self.is_screen,
                config=digest_of(settings),
                redis_name=redis_name(settings.redis.url),
                journal=journal,
                set_log_level=None if self.is_screen and not settings.log.file else logbook.set_level,
            )
            try:
                await self._open_metrics(stack, self.worker, logbook)
            except ListenTakenError as error:  # by a worker that is about to end, perhaps: starting again may help
                complain(f"metrics.listen: {error}")
                return UNREACHABLE
            except OSError as error:
                complain(f"metrics.listen: {settings.metrics.listen}: {error.strerror or error}")
                return MISCONFIGURED
            if self.supervisor is not None:
                self.worker.sinks = [*self.worker.sinks, self.supervisor.note]
            return await self._work_watched(self.worker, client)

    async def _open_metrics(self, stack: AsyncExitStack, worker: Worker, logbook: Logbook) -> None:
        """Serve metrics and health until the drain is over, if they are wanted."""
        listen = self.settings.metrics.listen
        if not listen:
            return
        # The library costs 80 ms of the start, and most runs on a developer's machine do without.
        from trio_worker.cli.run_pages import metrics_of, pages_of  # noqa: PLC0415

        self.metrics = metrics_of(worker, logbook, self.settings)
        address = await stack.enter_async_context(serve_pages(listen, pages_of(worker, self.metrics)))
        folder = self.settings.queue.journal_dir
        if has_chosen_port(listen) and folder:
            stack.enter_context(tell_address(Path(folder), address))
        if not self.is_screen:
            print_line(f"metrics and health on {address}")

    def _look_seconds(self) -> float:
        if self.is_screen:
            return SCREEN_LOOK_SECONDS
        return METRICS_LOOK_SECONDS if self.settings.metrics.listen else LINES_LOOK_SECONDS

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

    async def _open_around(self, stack: AsyncExitStack) -> RedisClient:
        if self.settings.capture.listen:
            # The catcher costs 60 ms of the start, and no worker in production has one.
            from trio_worker.capture.host import host_catcher  # noqa: PLC0415
            from trio_worker.capture.server import CatcherPortTaken  # noqa: PLC0415

            try:
                await stack.enter_async_context(host_catcher(self.settings.capture, self.settings.smtp.login))
            except CatcherPortTaken as error:
                refuse(UNREACHABLE, f"capture.listen: {error}")
        return await stack.enter_async_context(connect_queue(self.settings, self._note_loop))

    async def _work_watched(self, worker: Worker, client: RedisClient) -> int:
        """Run the worker while a face shows it; the face goes when the worker is done."""
        code = OK
        with self._open_face(worker) as dashboard:
            async with trio.open_nursery() as faces:
                if dashboard is not None:
                    faces.start_soon(dashboard.run)
                else:
                    faces.start_soon(run_status_lines, worker.snapshot, print_line)
                faces.start_soon(self._follow_login, worker)
                if self.supervisor is not None:
                    faces.start_soon(self.supervisor.run, lambda: status_line(worker.snapshot()))
                if self.beside is not None:
                    faces.start_soon(self.beside, worker, client)
                code = await worker.run()
                faces.cancel_scope.cancel()
        if dashboard is None:
            print_line(status_line(worker.snapshot()))
        return code

    @contextmanager
    def _open_face(self, worker: Worker) -> Iterator[Dashboard | None]:
        if not self.is_screen:
            yield None
            return
        # What draws costs a twentieth of the start, and a service has no screen.
        from trio_worker.cli.run_screen import dashboard_of  # noqa: PLC0415
        from trio_worker.dashboard.screen import open_screen  # noqa: PLC0415

        with open_keyboard() as self.keyboard, open_screen(sys.stdout, color=has_color(os.environ)) as self.screen:
            self.dashboard = dashboard_of(worker, self.screen, self.keyboard, only_ascii=self.only_ascii)
            yield self.dashboard

    def _note_loop(self, what: str) -> None:
        if self.worker is not None:
            self.worker.publish(LoopComplained(what))

    def _drain(self, why: str, around: trio.Nursery) -> None:
        if self.worker is None:
            # Nothing was claimed yet: leave what is being opened.
            around.cancel_scope.cancel()
            return
        self.worker.drain(why)
        grace = self.settings.shutdown.grace_seconds
        self._say(f"draining {len(self.worker.in_flight)}, up to {grace:g} s; press again to hurry")

    def _hang_up(self) -> None:
        if self.worker is None:
            return
        if self.had_terminal and not has_terminal():
            self.worker.drain("SIGHUP")
        else:
            if self.supervisor is not None:
                self.supervisor.begin_reload()
            self._reread(self.worker)
            if self.supervisor is not None:
                self.supervisor.end_reload()

    async def _follow_login(self, worker: Worker) -> None:
        """While the relay refuses the login, look whether it was changed: mail then waits no longer than needed."""
        while True:
            await trio.sleep(LOGIN_LOOK_SECONDS)
            if worker.is_login_refused:
                self._read_login(worker)

    def _reread(self, worker: Worker) -> None:
        """Read the settings anew and take over the login and the limits; with any fault, nothing."""
        after = self.reread()
        if isinstance(after, SettingFaults):
            faults = tuple(map(str, after.faults))
            worker.publish(SettingsRead(faults=faults))
            self._say(*(f"settings not taken: {fault}" for fault in faults))
            return
        found = reread(self.settings, after)
        self.settings = settings = found.settings
        worker.use_login(settings.smtp.username, settings.smtp.password)
        worker.config = digest_of(settings)
        if self.metrics is not None:
            self.metrics.note_config(worker.config)
        worker.use_limits(settings.number_workers, settings.queue, settings.smtp_pool, settings.retry)
        worker.publish(SettingsRead(found.taken, found.waiting))
        self._say(f"settings read: {'; '.join(found.taken) or 'nothing new'}")
        if found.waiting:
            self._say(f"with the next start: {'; '.join(found.waiting)}")

    def _say(self, *lines: str) -> None:
        """Print lines, unless a screen is in their way."""
        if not self.is_screen:
            for line in lines:
                print_line(line)

    def _read_login(self, worker: Worker) -> None:
        """Have the worker use the login that the settings name now, if they can be read."""
        settings = self.reread()
        if isinstance(settings, Settings):
            worker.use_login(settings.smtp.username, settings.smtp.password)

    def _show_state(self) -> None:
        """Print what goes on to standard error, or, where a screen is drawn on it, into the log's folder."""
        words = self.worker.describe() if self.worker is not None else "the worker has not begun"
        report = f"{words}\n{task_tree()}"
        if self.screen is None or not self.screen.is_on:
            complain(report)
            return
        folder = Path(self.settings.log.file).parent if self.settings.log.file else Path()
        path = folder / f"state-{os.getpid()}.txt"
        try:
            path.write_text(report + "\n", encoding="utf-8")
        except OSError as error:
            self._tell(f"SIGUSR1: cannot write {path}: {error.strerror}")
        else:
            self._tell(f"SIGUSR1: what goes on here is in {path}")

    def _tell(self, words: str) -> None:
        """Say something on the screen, if there is one."""
        if self.dashboard is not None:
            self.dashboard.tell(words)

    def _toggle_quiet(self) -> None:
        if self.worker is None:
            return
        if self.worker.is_quiet:
            self.worker.resume("SIGUSR2")
        else:
            self.worker.quiet("SIGUSR2")

    def _hurry(self) -> None:
        if self.worker is not None:
            self.worker.hurry()

    def _leave(self) -> None:
        if self.screen is not None:
            self.screen.restore()
        if self.keyboard is not None:
            self.keyboard.give_back()


def owner_of(settings: Settings) -> Owner:
    """Return whose settlements a journal of these settings holds; one embedded server is one, however it is written."""
    address = parse_embedded(settings.redis.url)
    if isinstance(address, EmbeddedAddress):
        return Owner(settings.queue.name, f"embedded:{address.directory.expanduser().resolve()}")
    return Owner(settings.queue.name, redis_name(settings.redis.url))


def print_line(line: str) -> None:
    """Print a line; when nobody reads standard output any more, print to nowhere from then on."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open to the end
