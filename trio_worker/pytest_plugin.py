"""Edge. The pytest plugin: fixtures with a worker, its queue and its relay. It imports no other module of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from trio_worker.testing import BlockingMails, BlockingMailWorker, Mails, MailWorker

_MARKER = "mail_worker(redis='valkey' or 'fake', settings={key: value}): options for the mail worker of a test"
_REDIS = ("valkey", "fake")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options for all tests."""
    group = parser.getgroup("trio-worker")
    group.addoption(
        "--mail-worker-redis", choices=_REDIS, help="Redis of the mail workers in tests; default: the ini value."
    )
    parser.addini(
        "mail_worker_redis", "Redis of the mail workers in tests: valkey (default) or fake.", default="valkey"
    )
    parser.addini("mail_worker_config", "Configuration file of trio-worker, relative to the root folder of the tests.")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail with a hint if a test cannot use the async fixtures; pytest would only say that they were not handled."""
    if "trio_mail_worker" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("anyio") is not None:
        return
    if not item.config.pluginmanager.has_plugin("trio"):
        pytest.fail("trio_mail_worker needs pytest-trio: pip install pytest-trio, or use mail_worker", pytrace=False)
    if item.get_closest_marker("trio") is None:
        how = "mark the test with pytest.mark.trio, set trio_mode = true, or use mail_worker"
        pytest.fail(f"trio_mail_worker is for async tests under pytest-trio: {how}", pytrace=False)


class MailWorkerRequest(NamedTuple):
    """The options of one test; ``redis`` is a URL or the word fake; ``settings`` may name folders in the root."""

    redis: str
    config: Path | None
    settings: dict[str, Any]
    templates_from: Path


@pytest.fixture(scope="session")
def mail_worker_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a Valkey for all tests; it stops at the end of the session, or when pytest dies."""
    from trio_worker.redis import embedded  # noqa: PLC0415  at the first use

    address = embedded.EmbeddedAddress(tmp_path_factory.mktemp("mail-worker-valkey"), embedded.ANY_PORT)
    try:
        hold = embedded.acquire_embedded(address)
    except embedded.EmbeddedError as error:
        raise pytest.fail.Exception(f"no Valkey for the mail worker: {error}", pytrace=False) from None
    yield hold.server.tcp_url
    embedded.release_embedded(hold)


@pytest.fixture
def mail_worker_request(request: pytest.FixtureRequest) -> MailWorkerRequest:
    """Return the options for the mail worker of a test, from the command line, the ini file and its marker."""
    marker = request.node.get_closest_marker("mail_worker")
    asked = dict(marker.kwargs) if marker is not None else {}
    redis = asked.pop(
        "redis", request.config.getoption("--mail-worker-redis") or request.config.getini("mail_worker_redis")
    )
    settings = asked.pop("settings", {})
    if redis not in _REDIS or asked or (marker is not None and marker.args):
        pytest.fail(f"{_MARKER}; got redis={redis!r} and {asked}", pytrace=False)
    named = request.config.getini("mail_worker_config")
    config = request.config.rootpath / named if named else None
    if redis == "valkey":
        redis = request.getfixturevalue("mail_worker_valkey")
        _flush(redis)
    return MailWorkerRequest(redis, config, settings, request.config.rootpath)


@pytest.fixture
def mail_worker(mail_worker_request: MailWorkerRequest) -> Iterator[BlockingMailWorker]:
    """Run a worker with blocking methods, with its own queue and relay (`testing.BlockingMailWorker`)."""
    from trio_worker import testing  # noqa: PLC0415  at the first use

    asked = mail_worker_request
    try:
        with testing.open_blocking_mail_worker(asked.redis, **_given(asked)) as worker:
            yield worker
    except testing.MailWorkerError as error:
        raise pytest.fail.Exception(f"no mail worker: {error}", pytrace=False) from None


@pytest.fixture
def mails(mail_worker: BlockingMailWorker) -> BlockingMails:
    """Return the mails that the worker of this test has sent."""
    return mail_worker.mails


@pytest.fixture
async def trio_mail_worker(mail_worker_request: MailWorkerRequest) -> AsyncIterator[MailWorker]:
    """Run a worker in the trio of a test under pytest-trio (`testing.MailWorker`)."""
    from trio_worker import testing  # noqa: PLC0415  at the first use

    asked = mail_worker_request
    try:
        async with testing.open_mail_worker(asked.redis, **_given(asked)) as worker:
            yield worker
    except testing.MailWorkerError as error:
        raise pytest.fail.Exception(f"no mail worker: {error}", pytrace=False) from None


@pytest.fixture
def trio_mails(trio_mail_worker: MailWorker) -> Mails:
    """Return the mails that the worker of this test has sent."""
    return trio_mail_worker.mails


def _given(asked: MailWorkerRequest) -> dict[str, Any]:
    """Return the keyword arguments of both openers."""
    return {"config": asked.config, "settings": asked.settings, "templates_from": asked.templates_from}


def _flush(url: str) -> None:
    """Empty the Valkey that the tests share, before the next test."""
    from redis import Redis  # noqa: PLC0415  only tests with a Valkey need it

    with Redis.from_url(url) as client:
        client.flushall()
