"""Fixtures: a real Valkey and a fake one behind the same client, the asyncio bridge, the strict catcher."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio
from attrs import define, evolve, field
from fakeredis import FakeAsyncRedis

from trio_worker.bridge import call, open_bridge
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer, MailOptions, open_composer
from trio_worker.queue.broker import QueueOptions
from trio_worker.queue.journal import Journal
from trio_worker.redis.client import RedisClient, RedisOptions, open_redis_client
from trio_worker.redis.embedded import EmbeddedAddress, acquire_embedded, release_embedded
from trio_worker.smtp.pool import PoolOptions
from trio_worker.smtp.relay import Relay, RelayOptions, Timeouts, tls_context
from trio_worker.worker.events import Event, Settled, SettledJob
from trio_worker.worker.verdict import RetryPolicy
from trio_worker.worker.worker import ShutdownOptions, Worker, WorkerOptions

# How long an example takes tells how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_a_terminal() -> None:
    """A shell's background, and nohup, have programs start with these ignored; those of the tests must not be."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for the whole run."""
    hold = acquire_embedded(EmbeddedAddress(tmp_path_factory.mktemp("valkey"), None))
    yield hold.server.url
    release_embedded(hold)


@define
class Complaints:
    """What the asyncio loop complained of; a test that does not expect any fails on them."""

    said: list[str] = field(factory=list)


@pytest.fixture
async def bridge() -> AsyncIterator[Complaints]:
    """The asyncio loop, which must have nothing to complain of."""
    complaints = Complaints()
    async with open_bridge(complaints.said.append):
        yield complaints
    assert complaints.said == []


@asynccontextmanager
async def open_real(url: str) -> AsyncIterator[RedisClient]:
    """A client of the real server, its queue empty."""
    async with open_redis_client(RedisOptions(url=url), 5.0) as client:
        await client.command("FLUSHALL")
        yield client


@asynccontextmanager
async def open_fake() -> AsyncIterator[RedisClient]:
    """A client of a fake server of its own."""
    fake = FakeAsyncRedis(socket_timeout=None)
    try:
        yield RedisClient(fake, fake)
    finally:
        await call(fake.aclose)


@pytest.fixture
async def real_redis(bridge: Complaints, valkey_url: str) -> AsyncIterator[RedisClient]:
    """A real Valkey with nothing in it."""
    async with open_real(valkey_url) as client:
        yield client


@pytest.fixture(params=["valkey", "fake"])
async def redis(bridge: Complaints, valkey_url: str, request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    """The conformance suite's Redis: the real one, then the fake."""
    async with open_real(valkey_url) if request.param == "valkey" else open_fake() as client:
        yield client


@pytest.fixture
async def catcher() -> AsyncIterator[Catcher]:
    """A strict relay; a test that makes it see a broken rule fails."""
    async with open_catcher() as opened:
        yield opened
    assert opened.violations == ()


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The built-in email types."""
    read = read_catalogue([])
    assert isinstance(read, Catalogue)
    return read


@pytest.fixture(scope="session")
def composer(catalogue: Catalogue) -> Composer:
    """What composes the built-in types."""
    opened = open_composer(MailOptions(), catalogue)
    assert isinstance(opened, Composer)
    return opened


def relay_at(port: int, username: str = "", password: str = "") -> Relay:
    """Return the relay at a port of this machine, without TLS."""
    options = RelayOptions(port=port, tls="none", username=username, password=password)
    return Relay(options, Timeouts(), tls_context(options))


def job_bytes(number: int = 0, email: str | None = None, **envelope: object) -> bytes:
    """A Registration job as a producer pushes it."""
    fields = {"email": email or f"user{number}@example.com", "username": "ann", "token": f"secret{number}"}
    document = {"task_type": "Email", "data": {"email_type": "Registration", "data": fields}, **envelope}
    return json.dumps(document).encode()


@define
class WorkerMaker:
    """Makes workers against one Redis and one relay, and keeps every event of theirs."""

    client: RedisClient
    composer: Composer
    catalogue: Catalogue
    events: list[Event] = field(factory=list)
    jobs: list[SettledJob] = field(factory=list)
    _changed: trio.Event = field(factory=trio.Event)

    def note(self, event: Event) -> None:
        """Keep an event, and what it says of single jobs beside it."""
        self.events.append(event)
        self.jobs += event.jobs if isinstance(event, Settled) else ()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until ``is_so()``, which is asked after each event of a worker; the caller bounds the wait."""
        while not is_so():
            await self._changed.wait()

    def options(self, port: int, **changes: Any) -> WorkerOptions:
        made = WorkerOptions(
            number_workers=10,
            queue=QueueOptions(),
            relay=relay_at(port),
            pool=PoolOptions(),
            retry=RetryPolicy(base_seconds=0.05, cap_seconds=0.2),
            mail=MailOptions(),
            shutdown=ShutdownOptions(),
        )
        return evolve(made, **changes)

    def make(self, options: WorkerOptions, *, is_burst: bool = True, journal: Journal | None = None) -> Worker:
        return Worker(
            options=options,
            client=self.client,
            composer=self.composer,
            types=self.catalogue.types,
            sinks=[self.note],
            is_burst=is_burst,
            journal=journal,
        )

    async def push(self, *jobs: bytes) -> None:
        await self.client.command("RPUSH", "jobs", *jobs)


@pytest.fixture
async def workers(real_redis: RedisClient, composer: Composer, catalogue: Catalogue) -> WorkerMaker:
    """Workers on the real Valkey."""
    return WorkerMaker(real_redis, composer, catalogue)


@pytest.fixture
async def any_workers(redis: RedisClient, composer: Composer, catalogue: Catalogue) -> WorkerMaker:
    """Workers on the real Valkey, then on the fake one."""
    return WorkerMaker(redis, composer, catalogue)


@pytest.fixture
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
