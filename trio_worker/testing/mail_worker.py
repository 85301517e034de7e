"""Trio. A worker with a queue and a relay of its own, in the trio of a test."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import trio
from attrs import define, evolve, field
from redis import Redis

from trio_worker.bridge import call, open_bridge
from trio_worker.capture.actions import CaughtMail
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import FaultSyntax, parse_faults
from trio_worker.capture.server import open_catcher
from trio_worker.capture.store import MemoryStore
from trio_worker.fleet.report import Reporter
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.jobs.email_type import TypeSpec
from trio_worker.jobs.job import TASK_TYPE, Json
from trio_worker.mail.composer import Composer, ComposerFaults, open_composer
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import Shelf, read_delayed, walk_shelf
from trio_worker.queue.record import UNKNOWN_CAUSE, ShelvedJob
from trio_worker.redis.client import RedisClient, Unavailable, open_redis_client
from trio_worker.redis.embedded import EmbeddedAddress, EmbeddedError, open_embedded, parse_embedded
from trio_worker.redis.url import shown_redis_url
from trio_worker.settings.reader import SettingFaults, Settings, read_settings, worker_options
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.telemetry.words import counted, duration, trouble_words
from trio_worker.worker.claiming import LONGEST_WAIT_SECONDS
from trio_worker.worker.events import Event
from trio_worker.worker.worker import Worker

FAKE = "fake"
"""In place of a Redis URL: fakeredis, which lives in this process only."""
# Never connected to: it stands where the settings want a URL.
_FAKE_URL = "redis://fakeredis.invalid/0"

WAIT_SECONDS = 10.0
"""How long the waits of a test last unless it says otherwise."""

# A test must not wait for the retries of a day; what it says in ``settings`` wins.
_SETTINGS: Mapping[str, Json] = {
    "number_workers": 10,
    "queue.journal_dir": "",
    "retry.base_seconds": 0.05,
    "retry.cap_seconds": 0.2,
    "shutdown.grace_seconds": 1.0,
    "smtp.pool.min_idle": 0,
}
# What makes a worker one of a test: nothing of a configuration file may send a mail anywhere else.
_ALWAYS: Mapping[str, Json] = {
    "capture.listen": "",
    "log.file": "",
    "profile": "dev",
    "redis.password": "",
    "redis.password_file": "",
    "redis.username": "",
    "smtp.allow_real_relay": False,
    "smtp.host": "127.0.0.1",
    "smtp.ca_file": "",
    "smtp.only_to": "",
    "smtp.password": "",
    "smtp.password_file": "",
    "smtp.tls": "none",
    "smtp.username": "",
}
_MAILS_KEPT = 10_000
# Of each state the jobs that came last say enough, and fit a screen.
_JOBS_EXPLAINED = 5
# Other programs may change the queue without a word to this worker.
_LOOK_AGAIN_SECONDS = 0.25

_T = TypeVar("_T")
PushedJob: TypeAlias = "Mapping[str, Any] | str | bytes"


class MailWorkerError(Exception):
    """The worker of a test cannot be had; the message says why."""


class NotInTimeError(AssertionError):
    """What a test waited for did not come; the message says what did."""


def mail_job(email_type: str, /, **fields: Any) -> dict[str, Any]:
    """Return a job as a producer pushes it: ``mail_job("Registration", email="a@example.com", ...)``."""
    return {"task_type": TASK_TYPE, "data": {"email_type": email_type, "data": fields}}


@define(eq=False, repr=False)
class Mails:
    """The mails that the worker of a test has sent, as their recipients read them."""

    _catcher: Catcher
    _explain: Callable[[], Awaitable[str]]

    def __repr__(self) -> str:
        return f"<{counted(self._catcher.total, 'mail')}>"

    @property
    def envelopes(self) -> tuple[CaughtMail, ...]:
        """Sender, recipients and octets of each mail, oldest first."""
        return self._catcher.mails

    async def caught(self) -> list[EmailMessage]:
        """Return the mails that have come so far, oldest first."""
        await trio.lowlevel.checkpoint()
        return [_parsed(mail) for mail in self._catcher.mails]

    async def wait(self, count: int = 1, timeout: float = WAIT_SECONDS) -> list[EmailMessage]:  # noqa: ASYNC109  a test's wait needs an end of its own, which says what came instead
        """Wait until ``count`` mails have come since the start; return all of them, oldest first.

        Raises `NotInTimeError`, which says what came, and what became of the others.
        """
        __tracebackhide__ = True
        with trio.move_on_after(timeout):
            await self._catcher.wait_for_mails(count)
        if self._catcher.total < count:
            came = f"{counted(count, 'mail')} wanted, {self._catcher.total:,} caught within {timeout:g} s"
            raise NotInTimeError(f"{came}\n{await self._explain()}")
        return await self.caught()


@define(eq=False, repr=False)
class MailWorker:
    """A worker with its own queue and its own relay; made by `open_mail_worker`."""

    worker: Worker
    settings: Settings
    _client: RedisClient
    _catcher: Catcher
    _connect: Callable[[], Redis]
    mails: Mails = field(init=False)
    _clients: list[Redis] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.mails = Mails(self._catcher, self.explain)

    def __repr__(self) -> str:
        return f"<worker of {self.queue_name}, {counted(self._catcher.total, 'mail')}>"

    @property
    def redis_url(self) -> str:
        """The URL that producers push to, in this process or in any other; fakeredis has none (ValueError)."""
        if self.settings.redis.url == _FAKE_URL:
            raise ValueError("fakeredis lives in this process only: use connect(), or redis='valkey'")
        return self.settings.redis.url

    @property
    def queue_name(self) -> str:
        """The list that producers push to."""
        return self.settings.queue.name

    def connect(self) -> Redis:
        """Return a blocking redis-py client of the queue's Redis, as a producer has one; closed with the worker."""
        client = self._connect()
        self._clients.append(client)
        return client

    async def push(self, *jobs: PushedJob) -> None:
        """Push jobs, in order: documents (see `mail_job`), or bytes and text exactly as they are."""
        words = [job if isinstance(job, str | bytes) else json.dumps(job) for job in jobs]
        _available(await self._client.command("RPUSH", self.queue_name, *words))

    def chaos(self, faults: str) -> None:
        """Make the relay misbehave from now on, as in ``rcpt=451:20%``; the empty text ends it.

        ``docs/testing.md`` has the words; others are a ValueError that points at the wrong one.
        """
        parsed = parse_faults(faults)
        if isinstance(parsed, FaultSyntax):
            pointer = f"{'^':>{parsed.place + 1}}"
            raise ValueError(f"{parsed.problem}\n  {faults}\n  {pointer}")  # noqa: TRY004  its value is wrong
        self._catcher.faults = parsed

    async def counts(self) -> Counts:
        """Return how many jobs are in each state."""
        return _available(await count_jobs(self._client, self.queue_name))

    async def dead(self) -> list[ShelvedJob]:
        """Return the dead letters, oldest first: their bytes, and the ``cause`` of each."""
        return await self._shelf("dead")

    async def held(self) -> list[ShelvedJob]:
        """Return the held jobs, oldest first: they may have been delivered."""
        return await self._shelf("held")

    async def wait_until_idle(self, timeout: float = WAIT_SECONDS) -> None:  # noqa: ASYNC109  as for Mails.wait
        """Wait until every job is done with: sent, dead or held. A job that is to be tried later is not.

        Raises `NotInTimeError`, which says what the queue holds.
        """
        __tracebackhide__ = True
        with trio.move_on_after(timeout) as patience:
            while True:
                changed = self._changed
                counts = await self.counts()
                if not (counts.waiting or counts.leased or counts.delayed):
                    return
                with trio.move_on_after(_LOOK_AGAIN_SECONDS):
                    await changed.wait()
        if patience.cancelled_caught:
            raise NotInTimeError(f"not idle within {timeout:g} s\n{await self.explain()}")

    async def explain(self) -> str:
        """Say what the queue holds, and why the newest jobs that were not sent are where they are."""
        counts = await self.counts()
        held = [f"{getattr(counts, state):,} {state}" for state in ("waiting", "leased", "delayed", "held", "dead")]
        lines = [f"the worker has sent {counts.sent:,}; in the queue: {', '.join(held)}"]
        if not counts.pushed:
            lines.append(f"  nothing has been pushed to the list {self.queue_name} of {self._place}")
        if self.worker.relay_trouble is not None:
            lines.append(f"  the relay: {trouble_words(self.worker.relay_trouble)}")
        if counts.paused:
            lines.append(f"  paused: {counts.paused}")
        delayed = _available(await read_delayed(self._client, self.queue_name, _JOBS_EXPLAINED))
        lines += [f"  delayed for {duration(job.at - counts.at)}: {_why(job)}" for job in delayed]
        for shelf, jobs in (("held", await self.held()), ("dead", await self.dead())):
            lines += [f"  {shelf}: {_why(job)}" for job in jobs[-_JOBS_EXPLAINED:]]
        return "\n".join(lines)

    @property
    def _place(self) -> str:
        url = self.settings.redis.url
        return "fakeredis" if url == _FAKE_URL else shown_redis_url(url)

    async def _shelf(self, shelf: Shelf) -> list[ShelvedJob]:
        found: list[ShelvedJob] = []
        async for page in walk_shelf(self._client, self.queue_name, shelf, with_bodies=True):
            found += _available(page)
        return found[::-1]

    def note(self, _event: Event) -> None:
        """For the worker: something happened."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def close(self) -> None:
        """For its opener: close the clients that `connect` gave."""
        for client in self._clients:
            client.close()


@asynccontextmanager
async def open_mail_worker(
    redis: str,
    *,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    templates_from: Path | None = None,
) -> AsyncIterator[MailWorker]:
    """Run a worker and a relay that catches its mails, for the block.

    ``redis`` is ``fake``, ``embedded:DIR`` or the URL of a server whose queue is this worker's alone. ``config`` is the
    application's own configuration file; ``settings`` are keys of it that win, such as ``{"retry.max_attempts": 2}``.
    Where the relay and the log are, both leave to this. ``mail.template_dirs`` are relative to the working directory,
    as for ``trio-worker run``, or to ``templates_from``. Mails in flight at the end have a second to finish.

    Raises `MailWorkerError` when it cannot be had. Needs real time: a clock that jumps makes every wait too short.
    """
    async with AsyncExitStack() as stack:
        # First what can be refused, so that a refusal leaves no nursery on its way out.
        url, connect, server = await _open_redis(stack, redis)
        read = _read(config, settings or {}, url, templates_from)
        types, composer = _templates(read)
        catcher = await stack.enter_async_context(open_catcher(store=MemoryStore(_MAILS_KEPT)))
        await stack.enter_async_context(open_bridge(_complain))
        client = await stack.enter_async_context(_open_client(read, server))
        options = worker_options(read, _relay(read, catcher.port))
        reporter = Reporter(Worker(options=options, client=client, composer=composer, types=types))
        worker = reporter.worker
        made = MailWorker(worker, read, client, catcher, connect)
        stack.callback(made.close)
        worker.sinks = [*worker.sinks, made.note]
        async with trio.open_nursery() as working:
            working.start_soon(reporter.run)
            try:
                yield made
            finally:
                worker.drain("the test is over")


def _why(job: ShelvedJob) -> str:
    # A job that the relay's trouble sent back has cost no attempt, and keeps no cause.
    why = "not tried yet" if job.cause == UNKNOWN_CAUSE else job.cause
    return f"{job.record.email_type or 'no type'}, {why}"


def _read(config: Path | None, asked: Mapping[str, Any], url: str, templates_from: Path | None) -> Settings:
    always = {**_ALWAYS, "redis.url": url}
    taken = sorted({*always, "smtp.port"} & asked.keys())
    if taken:
        raise MailWorkerError(f"{', '.join(taken)}: a test's worker has its own")
    settings = read_settings(config, {}, {**_SETTINGS, **asked, **always}, templates_from)
    if isinstance(settings, SettingFaults):
        raise _wrong("settings", settings.faults)
    return settings


def _templates(settings: Settings) -> tuple[Mapping[str, TypeSpec], Composer]:
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        raise _wrong("templates", catalogue.faults)
    composer = open_composer(settings.mail, catalogue)
    if isinstance(composer, ComposerFaults):
        raise _wrong("templates", composer.faults)
    return catalogue.types, composer


def _wrong(what: str, faults: Iterable[object]) -> MailWorkerError:
    return MailWorkerError("\n  ".join((f"the {what} are wrong:", *map(str, faults))))


def _relay(settings: Settings, port: int) -> Relay:
    smtp = evolve(settings.smtp, port=port)
    return Relay(smtp, settings.smtp_timeouts, tls_context(smtp))


def _complain(what: str) -> None:
    """Warn of a future that nobody awaited: under ``-W error`` a bug of the worker is not passed over."""
    warnings.warn(f"asyncio: {what}", ResourceWarning, stacklevel=2)


async def _open_redis(stack: AsyncExitStack, redis: str) -> tuple[str, Callable[[], Redis], Any]:
    """Return the URL, what makes blocking clients, and the fake server if it is one."""
    if redis == FAKE:
        fakeredis = _import_fakeredis()
        server = fakeredis.FakeServer()
        return _FAKE_URL, partial(fakeredis.FakeRedis, server=server), server
    if redis.startswith("embedded:"):
        address = parse_embedded(redis)
        if not isinstance(address, EmbeddedAddress):
            raise MailWorkerError(f"{redis}: {address.reason}")
        try:
            embedded = await stack.enter_async_context(open_embedded(address))
        except EmbeddedError as error:
            raise MailWorkerError(str(error)) from error
        redis = embedded.url
    return redis, partial(Redis.from_url, redis), None


def _import_fakeredis() -> Any:
    try:
        fakeredis = import_module("fakeredis")  # an application's tests may do without it
        import_module("lupa")  # what its scripts run on
    except ImportError as error:
        raise MailWorkerError(f"{error}: pip install 'fakeredis[lua]', or use redis='valkey'") from error
    return fakeredis


@asynccontextmanager
async def _open_client(settings: Settings, server: Any) -> AsyncIterator[RedisClient]:
    if server is None:
        async with open_redis_client(settings.redis, LONGEST_WAIT_SECONDS, settings.queue.name) as client:
            yield client
        return
    fake = _import_fakeredis().FakeAsyncRedis(server=server, socket_timeout=None)
    try:
        yield RedisClient(fake, fake)
    finally:
        with trio.CancelScope(shield=True):
            await call(fake.aclose)


def _available(answer: _T | Unavailable) -> _T:
    if isinstance(answer, Unavailable):
        raise MailWorkerError(f"Redis: {answer.reason}")
    return answer


def _parsed(mail: CaughtMail) -> EmailMessage:
    return BytesParser(EmailMessage, policy=SMTP).parsebytes(mail.content)
