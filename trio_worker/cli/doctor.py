"""Trio. ``doctor``: everything that a worker will need, looked at before it does."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from attrs import asdict, evolve, frozen

from trio_worker.capture.host import read_host
from trio_worker.cli.connect import open_queue
from trio_worker.cli.exit_codes import LOGIN_REFUSED, MISCONFIGURED, OK, UNREACHABLE
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings, warnings_of
from trio_worker.cli.output import print_json, redis_name
from trio_worker.cli.setup import relay_of
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.mail.composer import ComposerFaults, open_composer
from trio_worker.privacy import mask_text
from trio_worker.queue.journal import JournalUnusableError, Owner, open_journal
from trio_worker.redis.client import RedisClient, Unavailable
from trio_worker.redis.durability import check_durability
from trio_worker.settings.reader import Settings
from trio_worker.settings.text import effective
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.outcome import FailureKind, Trouble
from trio_worker.smtp.session import open_session
from trio_worker.telemetry.words import counted

# What a report of a fault should name.
_PACKAGES = ("trio-worker", "trio", "trio-asyncio", "redis", "aiosmtplib")


@frozen
class CheckResult:
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
    findings = [_look_at_versions(), _look_at_origins(settings)]
    findings += [
        CheckResult("configuration", str(warning), is_warning=True) for warning in warnings_of(config, settings)
    ]
    findings += [*_look_at_templates(settings), *_look_at_journal(settings)]
    async with open_queue(settings) as client:
        findings += [*await _look_at_redis(settings, client), await _look_at_relay(settings)]
    # What a relay or a Redis says may name an address; this is made to be sent to somebody.
    findings = [evolve(each, says=mask_text(each.says)) for each in findings]
    if as_json:
        print_json(Document.FINDING, [{"sign": each.sign, **asdict(each)} for each in findings])
    else:
        for each in findings:
            print(f"{each.sign:<5}{each.what:<14} {each.says}")
    return max(each.code for each in findings)


def _look_at_versions() -> CheckResult:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    where = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    return CheckResult("versions", f"{packages}; {where}")


def _look_at_origins(settings: Settings) -> CheckResult:
    """Say where values come from, and of secrets whether there are any; `config show --origin` has each key."""
    places = Counter(re.sub(r":[0-9]+$", "", place) for place in settings.origins.values())
    said = [f"{place} ({count})" if count > 1 else place for place, count in sorted(places.items())]
    secrets = [key for key, value, is_secret in effective(settings) if is_secret and value]
    held = f"secrets: {', '.join(secrets)}" if secrets else "no secrets"
    return CheckResult("configuration", f"profile {settings.profile}, from {', '.join(said) or 'defaults'}; {held}")


def _look_at_templates(settings: Settings) -> Iterator[CheckResult]:
    catalogue = read_catalogue(settings.mail.template_dirs)
    if isinstance(catalogue, CatalogueFaults):
        yield from (CheckResult("templates", str(fault), MISCONFIGURED) for fault in catalogue.faults)
        return
    composer = open_composer(settings.mail, catalogue)
    if isinstance(composer, ComposerFaults):
        yield from (CheckResult("templates", str(fault), MISCONFIGURED) for fault in composer.faults)
        return
    yield CheckResult("templates", f"{counted(len(catalogue.types), 'email type')} compiled")


def _look_at_journal(settings: Settings) -> Iterator[CheckResult]:
    folder = settings.queue.journal_dir
    if not folder:
        promise = "a settlement that Redis does not take is lost with the worker, and its mail sent again"
        yield CheckResult("journal", f"queue.journal_dir is empty: {promise}", is_warning=True)
        return
    try:
        with open_journal(Path(folder), Owner(settings.queue.name, redis_name(settings.redis.url))) as journal:
            waiting = len(journal.orphaned)
    except JournalUnusableError as error:
        yield CheckResult("journal", str(error), MISCONFIGURED)
        return
    yield CheckResult(
        "journal",
        f"{folder} can be written; {counted(waiting, 'settlement waits', 'settlements wait')} there for a worker",
    )


async def _look_at_redis(settings: Settings, client: RedisClient) -> list[CheckResult]:
    name = redis_name(settings.redis.url)
    risks = await check_durability(client)
    if isinstance(risks, Unavailable):
        code = LOGIN_REFUSED if risks.is_login else UNREACHABLE
        return [CheckResult("redis", f"{name}: {risks.what}", code)]
    found = [CheckResult("redis", str(each), MISCONFIGURED if each.breaks else OK, is_warning=True) for each in risks]
    return [CheckResult("redis", f"{name} answers{await _server(client)}"), *found]


async def _server(client: RedisClient) -> str:
    """Return what kind of server it is and its version; nothing where it does not tell."""
    told = await client.command("INFO", "server")
    if not isinstance(told, dict):
        return ""
    fields = {str(key): str(value) for key, value in told.items()}
    kind = "valkey" if "valkey_version" in fields else "redis"
    version_told = fields.get(f"{kind}_version", "")
    return f", {kind} {version_told}" if version_told else ""


async def _look_at_relay(settings: Settings) -> CheckResult:
    name = f"{settings.smtp.host}:{settings.smtp.port}"
    opened = await open_session(relay_of(settings))
    if (
        isinstance(opened, Trouble)
        and settings.capture.listen == name
        and read_host(Path(settings.capture.dir)) is None
    ):
        return CheckResult("relay", f"{name} is the mail catcher, which nobody hosts now: `run` will", is_warning=True)
    if isinstance(opened, Trouble):
        return CheckResult(
            "relay", f"{name}: {opened}", LOGIN_REFUSED if opened.how is FailureKind.LOGIN else UNREACHABLE
        )
    await Connection(0, opened, settings.smtp_timeouts).close()
    offers = " ".join(opened.capabilities.keywords)
    return CheckResult(
        "relay", f"{name} lets us in, {opened.tls or 'no TLS'}, {opened.seconds * 1000:.0f} ms; offers {offers}"
    )
