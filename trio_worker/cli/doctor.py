"""Trio. ``doctor``: everything that a worker will need, looked at before it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import asdict, frozen

from trio_worker.capture import read_host
from trio_worker.catalogue import CatalogueFaults, read_catalogue
from trio_worker.cli.run import relay_of
from trio_worker.cli.surroundings import (
    LOGIN_REFUSED,
    MISCONFIGURED,
    OK,
    UNREACHABLE,
    AsJson,
    ConfigFile,
    load_settings,
    open_queue,
    print_json,
    redis_name,
)
from trio_worker.connection import Connection
from trio_worker.inspection import examine
from trio_worker.journal import JournalUnusableError, Owner, open_journal
from trio_worker.mail import ComposerFaults, open_composer
from trio_worker.opening import open_session
from trio_worker.outcome import How, Trouble
from trio_worker.redis_client import RedisClient, Unavailable
from trio_worker.settings import Settings


@frozen
class Finding:
    """One thing that was looked at; ``code`` is the exit code that it asks for, 0 for none."""

    what: str
    says: str
    code: int = OK
    is_warning: bool = False

    @property
    def sign(self) -> str:
        return "fail" if self.code else "warn" if self.is_warning else "ok"


async def doctor(*, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Look at the configuration, the templates, the journal, Redis and the relay; send nothing, claim nothing."""
    settings = load_settings(config)
    findings = [Finding("configuration", "read")]
    findings += [Finding("configuration", str(warning), is_warning=True) for warning in settings.warnings]
    findings += [*_look_at_templates(settings), *_look_at_journal(settings)]
    async with open_queue(settings) as client:
        findings += [*await _look_at_redis(settings, client), await _look_at_relay(settings)]
    if as_json:
        print_json([{"sign": each.sign, **asdict(each)} for each in findings])
    else:
        for each in findings:
            print(f"{each.sign:<5}{each.what:<14} {each.says}")
    return max(each.code for each in findings)


def _look_at_templates(settings: Settings) -> Iterator[Finding]:
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        yield from (Finding("templates", str(fault), MISCONFIGURED) for fault in catalogue.faults)
        return
    composer = open_composer(settings.mail, catalogue)
    if isinstance(composer, ComposerFaults):
        yield from (Finding("templates", str(fault), MISCONFIGURED) for fault in composer.faults)
        return
    yield Finding("templates", f"{len(catalogue.types)} email types compiled")


def _look_at_journal(settings: Settings) -> Iterator[Finding]:
    folder = settings.queue.journal_dir
    if not folder:
        promise = "a settlement that Redis does not take is lost with the worker, and its mail sent again"
        yield Finding("journal", f"queue.journal_dir is empty: {promise}", is_warning=True)
        return
    try:
        with open_journal(Path(folder), Owner(settings.queue.name, redis_name(settings.redis.url))) as journal:
            waiting = len(journal.orphaned)
    except JournalUnusableError as error:
        yield Finding("journal", str(error), MISCONFIGURED)
        return
    yield Finding("journal", f"{folder} can be written; {waiting} settlements wait there for a worker")


async def _look_at_redis(settings: Settings, client: RedisClient) -> list[Finding]:
    name = redis_name(settings.redis.url)
    weaknesses = await examine(client)
    if isinstance(weaknesses, Unavailable):
        code = LOGIN_REFUSED if weaknesses.is_login else UNREACHABLE
        return [Finding("redis", f"{name}: {weaknesses.what}", code)]
    found = [Finding("redis", str(each), MISCONFIGURED if each.breaks else OK, is_warning=True) for each in weaknesses]
    return [Finding("redis", f"{name} answers"), *found]


async def _look_at_relay(settings: Settings) -> Finding:
    name = f"{settings.smtp.host}:{settings.smtp.port}"
    opened = await open_session(relay_of(settings))
    if (
        isinstance(opened, Trouble)
        and settings.capture.listen == name
        and read_host(Path(settings.capture.dir)) is None
    ):
        return Finding("relay", f"{name} is the mail catcher, which nobody hosts now: `run` will", is_warning=True)
    if isinstance(opened, Trouble):
        return Finding("relay", f"{name}: {opened}", LOGIN_REFUSED if opened.how is How.LOGIN else UNREACHABLE)
    await Connection(0, opened, settings.smtp_timeouts).close()
    offers = " ".join(opened.capabilities.keywords)
    return Finding(
        "relay", f"{name} lets us in, {opened.tls or 'no TLS'}, {opened.seconds * 1000:.0f} ms; offers {offers}"
    )
