"""Trio. The mail worker for tests in trio: a complete worker with its own queue and its own relay."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import trio
from attrs import evolve, field
from redis import Redis
from redis.asyncio import Redis as AsyncioRedis

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
from trio_worker.mail.composer import Composer, ComposerFaults, open_composer, sender_needs_smtputf8
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import Shelf, read_shelf, walk_shelf
from trio_worker.queue.record import UNKNOWN_CAUSE, ShelvedJob
from trio_worker.records import define
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.embedded import ANY_PORT, EmbeddedAddress, EmbeddedError, open_embedded, parse_embedded
from trio_worker.redis.url import shown_redis_url
from trio_worker.settings.reader import SettingFaults, Settings, read_settings
from trio_worker.settings.worker_options import worker_options
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.telemetry.number_words import counted, duration
from trio_worker.telemetry.words import trouble_words
from trio_worker.testing.producers import Producers, TrioRedis, producers_at, producers_of_fake
from trio_worker.worker.claiming import LONGEST_WAIT_SECONDS
from trio_worker.worker.events import Event
from trio_worker.worker.worker import Worker

FAKE = "fake"
"""Used in place of a Redis URL: fakeredis, which exists in this process only."""
# The settings need a URL; this one is never connected to.
_FAKE_URL = "redis://fakeredis.invalid/0"

WAIT_SECONDS = 10.0
"""Default timeout of the waits."""

# Defaults of a test, which cannot wait for retries that take a day. Its ``settings`` override them.
_SETTINGS: Mapping[str, Json] = {
    "number_workers": 10,
    "queue.journal_dir": "",
    "retry.base_seconds": 0.05,
    "retry.cap_seconds": 0.2,
    "shutdown.grace_seconds": 1.0,
    "smtp.pool.min_idle": 0,
}
# Settings that a test cannot override: no configuration file may make the worker send a mail to another relay.
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
# Of each state the newest jobs are shown: they fit on a screen.
_JOBS_EXPLAINED = 5
# The queue is polled too, because changes by other programs make no event of this worker.
_POLL_SECONDS = 0.25

_T = TypeVar("_T")
PushedJob: TypeAlias = "Mapping[str, Any] | str | bytes"


class MailWorkerError(Exception):
    """The mail worker cannot be started or used; the message says why."""


class NotInTimeError(AssertionError):
    """A wait of a test timed out; the message says what happened instead."""


def mail_job(email_type: str, /, **fields: Any) -> dict[str, Any]:
    """Return the document of a job, for `push`: ``mail_job("Registration", email="a@example.com", ...)``."""
    return {"task_type": TASK_TYPE, "data": {"email_type": email_type, "data": fields}}


@define(eq=False, repr=False)
class Mails:
    """The mails that the worker has sent, as the relay caught them."""

    _catcher: Catcher
    _explain: Callable[[], Awaitable[str]]

    def __repr__(self) -> str:
        return f"<{counted(self._catcher.total, 'mail')}>"

    @property
    def envelopes(self) -> tuple[CaughtMail, ...]:
        """Sender, recipients and octets of each mail, oldest first."""
        return self._catcher.mails

    async def caught(self) -> list[EmailMessage]:
        """Return the mails caught so far, oldest first."""
        await trio.lowlevel.checkpoint()
        return [_parsed(mail) for mail in self._catcher.mails]

    async def wait(self, count: int = 1, timeout: float = WAIT_SECONDS) -> list[EmailMessage]:  # noqa: ASYNC109  its error must say what happened instead
        """Wait until ``count`` mails are caught since the start; return all of them, oldest first.

        Raises `NotInTimeError`, which says how many were caught and why the other jobs were not sent.
        """
        __tracebackhide__ = True
        with trio.move_on_after(timeout):
            await self._catcher.wait_for_mails(count)
        if self._catcher.total < count:
            missed = f"{counted(count, 'mail')} wanted, {self._catcher.total:,} caught within {timeout:g} s"
            raise NotInTimeError(f"{missed}\n{await self._explain()}")
        return await self.caught()


@define(eq=False, repr=False)
class MailWorker:
    """A worker with its own queue and its own relay; made by `open_mail_worker`."""

    worker: Worker
    settings: Settings
    _client: RedisClient
    _catcher: Catcher
    _producers: Producers
    mails: Mails = field(init=False)
    _changed: trio.Event = field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.mails = Mails(self._catcher, self.explain)

    def __repr__(self) -> str:
        return f"<worker of {self.queue_name}, {counted(self._catcher.total, 'mail')}>"

    @property
    def redis_url(self) -> str:
        """The URL that producers push to, in this process or another; fakeredis has none (ValueError)."""
        if self.settings.redis.url == _FAKE_URL:
            raise ValueError("fakeredis exists in this process only: use connect(), or redis='valkey'")
        return self.settings.redis.url

    @property
    def queue_name(self) -> str:
        """The list that producers push to."""
        return self.settings.queue.name

    def connect(self) -> Redis:
        """Return a blocking redis-py client of the queue's Redis, as producers use; closed with the worker."""
        return self._producers.connect()

    def connect_asyncio(self) -> AsyncioRedis:
        """Return redis-py's client for asyncio, for producers in a loop of the test; close it there (`async with`)."""
        return self._producers.connect_asyncio()

    def connect_trio(self) -> TrioRedis:
        """Return a client whose commands are awaited in trio, for producers in this trio; closed with the worker."""
        return self._producers.connect_trio()

    async def push(self, *jobs: PushedJob) -> None:
        """Push jobs in this order: documents (see `mail_job`), or bytes and text, which are pushed unchanged."""
        pushed = [job if isinstance(job, str | bytes) else json.dumps(job) for job in jobs]
        _available(await self._client.command("RPUSH", self.queue_name, *pushed))

    def chaos(self, faults: str) -> None:
        """Make the relay inject faults from now on, such as ``rcpt=451:20%``; the empty text ends this.

        See ``docs/testing.md`` for the syntax. Raises a ValueError that points at the first mistake.
        """
        parsed = parse_faults(faults)
        if isinstance(parsed, FaultSyntax):
            pointer = f"{'^':>{parsed.place + 1}}"
            raise ValueError(f"{parsed.problem}\n  {faults}\n  {pointer}")  # noqa: TRY004  a wrong value, not a wrong type
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
        """Wait until every job is sent, dead or held; a delayed job keeps it waiting.

        Raises `NotInTimeError`, which says how many jobs are in each state, and why.
        """
        __tracebackhide__ = True
        with trio.move_on_after(timeout) as patience:
            while True:
                changed = self._changed
                counts = await self.counts()
                if not (counts.waiting or counts.leased or counts.delayed):
                    return
                with trio.move_on_after(_POLL_SECONDS):
                    await changed.wait()
        if patience.cancelled_caught:
            raise NotInTimeError(f"not idle within {timeout:g} s\n{await self.explain()}")

    async def explain(self) -> str:
        """Return how many jobs are in each state, and why the newest ones that were not sent are in theirs."""
        counts = await self.counts()
        states = [f"{getattr(counts, state):,} {state}" for state in ("waiting", "leased", "delayed", "held", "dead")]
        lines = [f"the worker has sent {counts.sent:,}; in the queue: {', '.join(states)}"]
        if not counts.pushed:
            lines.append(f"  nothing has been pushed to the list {self.queue_name} of {self._place}")
        if self.worker.relay_trouble is not None:
            lines.append(f"  the relay: {trouble_words(self.worker.relay_trouble)}")
        if counts.paused:
            lines.append(f"  paused: {counts.paused}")
        delayed = _available(await read_shelf(self._client, self.queue_name, "delayed", _JOBS_EXPLAINED))
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
        async with aclosing(walk_shelf(self._client, self.queue_name, shelf, with_bodies=True)) as pages:
            async for page in pages:
                found += _available(page)
        return found[::-1]

    def note(self, _event: Event) -> None:
        """Take in an event of the worker: waits check the queue again."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@asynccontextmanager
async def open_mail_worker(
    redis: str,
    *,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    templates_from: Path | None = None,
) -> AsyncIterator[MailWorker]:
    """Run a worker and a relay that catches its mails, for the block.

    ``redis`` is ``fake``, ``embedded:DIR`` or the URL of a server where no other worker uses this queue. ``config`` is
    the application's configuration file; ``settings`` override keys of it, such as ``{"retry.max_attempts": 2}``.
    Neither can set the relay or the log. ``mail.template_dirs`` are relative to the configuration file, as for
    ``trio-worker run``; those of ``settings`` to ``templates_from``, or to the working directory. At the end, mails in
    flight have a second to finish.

    Raises `MailWorkerError` if it cannot start. Needs real time: with a clock that jumps every wait is too short.
    """
    async with AsyncExitStack() as stack:
        # The steps that may raise come first, so that their errors do not pass through a nursery.
        url, producers, server = await _open_redis(stack, redis)
        read = _read(config, settings or {}, url, templates_from)
        types, composer = _templates(read)
        catcher = await stack.enter_async_context(open_catcher(store=MemoryStore(_MAILS_KEPT)))
        await stack.enter_async_context(open_bridge(_complain))
        client = await stack.enter_async_context(_open_client(read, server))
        options = worker_options(read, _relay(read, catcher.port))
        reporter = Reporter(Worker(options=options, client=client, composer=composer, types=types))
        worker = reporter.worker
        made = MailWorker(worker, read, client, catcher, producers)
        stack.push_async_callback(producers.close)
        worker.sinks = [*worker.sinks, made.note]
        async with trio.open_nursery() as working:
            working.start_soon(reporter.run)
            try:
                yield made
            finally:
                worker.drain("the test is over")


def _why(job: ShelvedJob) -> str:
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


def _wrong(name: str, faults: Iterable[object]) -> MailWorkerError:
    return MailWorkerError("\n  ".join((f"the {name} are wrong:", *map(str, faults))))


def _relay(settings: Settings, port: int) -> Relay:
    smtp = evolve(settings.smtp, port=port)
    return Relay(smtp, settings.smtp_timeouts, tls_context(smtp), sender_needs_smtputf8(settings.mail))


def _complain(complaint: str) -> None:
    """Warn of an error of the asyncio loop, such as a future that was never awaited: ``-W error`` makes it fail."""
    warnings.warn(f"asyncio: {complaint}", ResourceWarning, stacklevel=2)


async def _open_redis(stack: AsyncExitStack, redis: str) -> tuple[str, Producers, Any]:
    """Return the URL, what makes the clients of producers, and the server of fakeredis, or None."""
    if redis == FAKE:
        fakeredis = _import_fakeredis()
        server = fakeredis.FakeServer()
        return _FAKE_URL, producers_of_fake(fakeredis, server), server
    if redis.startswith("embedded:"):
        address = parse_embedded(redis)
        if not isinstance(address, EmbeddedAddress):
            raise MailWorkerError(f"{redis}: {address.reason}")
        # Never the usual port by itself: a worker with the default URL would send the jobs of the test.
        address = address if address.port is not None else evolve(address, port=ANY_PORT)
        try:
            embedded = await stack.enter_async_context(open_embedded(address))
        except EmbeddedError as error:
            raise MailWorkerError(str(error)) from error
        redis = embedded.tcp_url
    return redis, producers_at(redis), None


def _import_fakeredis() -> Any:
    try:
        fakeredis = import_module("fakeredis")  # optional for tests of applications
        import_module("lupa")  # the Lua that its scripts need
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
