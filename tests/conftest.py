"""Fixtures: a real Valkey and a fake one behind the same client, the asyncio bridge, the strict catcher, workers."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis import Redis

pytest.register_assert_rewrite("tests.support")

from tests.support.alive import still_alive
from tests.support.bridge import Complaints
from tests.support.processes import Programs
from tests.support.redis import open_fake, open_real
from tests.support.workers import WorkerMaker
from trio_worker.bridge import open_bridge
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue
from trio_worker.mail.composer import Composer, open_composer
from trio_worker.mail.options import MailOptions
from trio_worker.redis.client import RedisClient
from trio_worker.redis.embedded import ANY_PORT, EmbeddedAddress, acquire_embedded, release_embedded

# A guard looks every second whether its server has a user, on a busy machine later; the server then writes its data.
GUARD_SECONDS = 30.0
# The time of an example depends on how busy the machine is, not on the code.
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


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_alive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of the run no process that its tests started is alive, whatever became of the test."""
    if sys.platform != "linux":
        yield
        return
    mark = f"MADE_BY_TESTS_{os.getpid()}_{secrets.token_hex(4)}"
    os.environ[mark] = "1"
    yield
    left = still_alive(mark, tmp_path_factory.getbasetemp(), GUARD_SECONDS)
    assert left == {}, f"left behind: {left}"


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey for the whole run, whose default user may do everything: each test has the users that it needs."""
    hold = acquire_embedded(EmbeddedAddress(tmp_path_factory.mktemp("valkey"), ANY_PORT))
    with Redis.from_url(hold.server.tcp_url) as owner:
        owner.execute_command("ACL SETUSER", "default", "~*", "&*", "+@all")
    yield f"redis://127.0.0.1:{hold.server.port}/0"
    release_embedded(hold)


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of others are installed that the slow tests use, once for all processes of a run."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "servers"


@pytest.fixture
async def bridge() -> AsyncIterator[Complaints]:
    """The asyncio loop, which must have nothing to complain of."""
    complaints = Complaints()
    async with open_bridge(complaints.said.append):
        yield complaints
    assert complaints.said == []


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


@pytest.fixture
def shared_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as /tmp is one, and in it, that the test runs in: other users can come to it and make files."""
    folder = Path(tempfile.mkdtemp(prefix="trio-worker-shared-"))
    folder.chmod(0o1777)
    monkeypatch.chdir(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def relay() -> AsyncIterator[Catcher]:
    """A strict relay that keeps many mails."""
    async with open_catcher() as catcher:
        yield catcher
    assert catcher.violations == ()


@pytest.fixture
def programs(real_redis: RedisClient, valkey_url: str, relay: Catcher, tmp_path: Path) -> Iterator[Programs]:
    """Workers with a short lease on the real Valkey and that relay."""
    config = tmp_path / "worker.toml"
    config.write_text(
        f'profile = "dev"\n[redis]\nurl = "{valkey_url}"\n[queue]\nlease_seconds = 2\n'
        f'[smtp]\nport = {relay.port}\ntls = "none"\n[retry]\nbase_seconds = 0.1\ncap_seconds = 0.2\n'
    )
    made = Programs(tmp_path, config)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process._proc.wait()
        assert process.poll() is not None  # which closes its descriptor too
