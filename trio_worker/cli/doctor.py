"""Trio. ``doctor``: checks everything that a worker needs, before it is started."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from attrs import asdict, evolve

from trio_worker.bridge import open_bridge
from trio_worker.capture.host import read_host
from trio_worker.cli.connect import exit_on_signals, open_queue
from trio_worker.cli.embedded import embedded_code, embedded_fault
from trio_worker.cli.exit_codes import LOGIN_REFUSED, MISCONFIGURED, OK, UNREACHABLE
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.missing_password import missing_password, without_login
from trio_worker.cli.output import print_json, redis_name
from trio_worker.cli.setting_warnings import warnings_of
from trio_worker.cli.setup import relay_of
from trio_worker.fleet.overview import read_overview
from trio_worker.jobs.catalogue import CatalogueFaults, read_catalogue
from trio_worker.mail.composer import ComposerFaults, open_composer
from trio_worker.printing import complain, say
from trio_worker.privacy import mask_text
from trio_worker.queue.counts import count_jobs
from trio_worker.queue.journal import JournalUnusableError, Owner, open_journal
from trio_worker.queue.needs import TO_REPORT, find_refusal, find_wait_refusal
from trio_worker.records import frozen
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.redis.durability import check_durability
from trio_worker.redis.embedded import EmbeddedError, EmbeddedNotRunning
from trio_worker.settings.reader import Settings
from trio_worker.settings.text import effective
from trio_worker.smtp.connection import Connection
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.session import open_session
from trio_worker.telemetry.number_words import counted

# The packages whose versions a bug report should name.
_PACKAGES = ("trio-worker", "trio", "trio-asyncio", "redis", "aiosmtplib")


@frozen
class CheckResult:
    """The result of one check; ``code`` is the exit code that it causes, 0 if it passed."""

    what: str
    says: str
    code: int = OK
    is_warning: bool = False

    @property
    def sign(self) -> str:
        return "fail" if self.code else "warn" if self.is_warning else "ok"


async def doctor(*, config: ConfigFile = None, as_json: AsJson = False) -> int:
    """Check the configuration, the templates, the journal, Redis and the relay. Sends no mail, claims no job."""
    settings = load_settings(config)
    findings = [_look_at_versions(), _look_at_origins(settings)]
    findings += [
        CheckResult("configuration", str(warning), is_warning=True) for warning in warnings_of(config, settings)
    ]
    findings += [*_look_at_templates(settings), *_look_at_journal(settings)]
    fault = embedded_fault(settings)
    if fault is not None:
        async with exit_on_signals(), open_bridge(complain):
            findings += [_embedded_result(fault), await _look_at_relay(settings)]
    else:
        async with open_queue(settings) as client:
            findings += [*await _look_at_redis(settings, client), await _look_at_relay(settings)]
            findings += await _look_at_workers(settings, client)
    # Texts of a relay or a Redis may name addresses, and this output is made to be sent to other people.
    findings = [evolve(each, says=mask_text(each.says)) for each in findings]
    if as_json:
        print_json(Document.FINDING, [{"sign": each.sign, **asdict(each)} for each in findings])
    else:
        for each in findings:
            say(f"{each.sign:<5}{each.what:<14} {each.says}")
    return max(each.code for each in findings)


def _look_at_versions() -> CheckResult:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    where = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    return CheckResult("versions", f"{packages}; {where}")


def _look_at_origins(settings: Settings) -> CheckResult:
    """Return where values come from, and which secrets are set; `config show --origin` prints it for each key."""
    places = Counter(re.sub(r":[0-9]+$", "", place) for place in settings.origins.values())
    sources = [f"{place} ({count})" if count > 1 else place for place, count in sorted(places.items())]
    secrets = [key for key, value, is_secret in effective(settings) if is_secret and value]
    held = f"secrets: {', '.join(secrets)}" if secrets else "no secrets"
    return CheckResult("configuration", f"profile {settings.profile}, from {', '.join(sources) or 'defaults'}; {held}")


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
        promise = "a settlement that Redis does not accept is lost with the worker, and its mail is sent again"
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
        f"{folder} can be written; it holds {counted(waiting, 'settlement')} that a worker has to send to Redis",
    )


def _embedded_result(fault: EmbeddedError) -> CheckResult:
    """Return the result for an embedded server that cannot be asked; a worker starts one that does not run."""
    if isinstance(fault, EmbeddedNotRunning):
        return CheckResult("redis", str(fault), is_warning=True)
    return CheckResult("redis", str(fault).replace("\n", "; "), embedded_code(fault))


async def _look_at_redis(settings: Settings, client: RedisClient) -> list[CheckResult]:
    """Try what a worker needs; what INFO and CONFIG tell comes after that, and may be refused."""
    name, queue_name = redis_name(settings.redis.url), settings.queue.name
    # The first call of a worker that finds nothing to do: EVALSHA, all keys and their types.
    counted_jobs = await count_jobs(client, queue_name)
    refusal = counted_jobs if isinstance(counted_jobs, Unavailable) else await find_refusal(client, queue_name)
    if refusal is not None:
        return [CheckResult("redis", f"{name}: {refusal.reason}", _code_of(refusal))]
    found = [CheckResult("redis", f"{name} answers{await _server(client)}, and lets a worker claim and settle jobs")]
    mute = await find_refusal(client, queue_name, TO_REPORT)
    if mute is not None:
        what = f"{mute.reason}: no command can show workers, or give them orders"
        found.append(CheckResult("redis", what, is_warning=True))
    refused_wait = await find_wait_refusal(client, queue_name)
    if refused_wait is not None:
        what = f"{refused_wait.reason.rstrip('.')}: workers look for jobs every second, instead of waiting for them"
        found.append(CheckResult("redis", what, is_warning=True))
    durability = await check_durability(client)
    if isinstance(durability, Unavailable):
        what = f"{durability.reason}: not known whether settings of Redis weaken a promise"
        return [*found, CheckResult("redis", what, is_warning=True)]
    codes = [(str(each), MISCONFIGURED if each.breaks else OK) for each in durability.risks]
    return [*found, *(CheckResult("redis", says, code, is_warning=True) for says, code in codes)]


def _code_of(refusal: Unavailable) -> int:
    if refusal.is_login:
        return LOGIN_REFUSED
    return MISCONFIGURED if refusal.is_misconfigured else UNREACHABLE


async def _server(client: RedisClient) -> str:
    """Return the kind of the server and its version, or an empty string."""
    answer = await client.command("INFO", "server")
    if not isinstance(answer, dict):
        return ""
    fields = {str(key): str(value) for key, value in answer.items()}
    kind = "valkey" if "valkey_version" in fields else "redis"
    version_text = fields.get(f"{kind}_version", "")
    return f", {kind} {version_text}" if version_text else ""


async def _look_at_relay(settings: Settings) -> CheckResult:
    name = f"{settings.smtp.host}:{settings.smtp.port}"
    missing = missing_password(settings)
    opened = await open_session(relay_of(settings) if missing is None else without_login(relay_of(settings)))
    if (
        isinstance(opened, Trouble)
        and settings.capture.listen == name
        and read_host(Path(settings.capture.dir)) is None
    ):
        return CheckResult(
            "relay", f"{name} is the mail catcher, which does not run now: `run` will start it", is_warning=True
        )
    if isinstance(opened, Trouble):
        return CheckResult(
            "relay", f"{name}: {opened}", LOGIN_REFUSED if opened.how is FailureKind.LOGIN else UNREACHABLE
        )
    await Connection(0, opened, settings.smtp_timeouts).close()
    if missing is not None:
        return CheckResult("relay", f"{name}: {missing}", MISCONFIGURED)
    offers = " ".join(opened.capabilities.keywords)
    return CheckResult(
        "relay",
        f"{name} accepts the session, {opened.tls or 'no TLS'}, {opened.seconds * 1000:.0f} ms; offers {offers}",
    )


async def _look_at_workers(settings: Settings, client: RedisClient) -> list[CheckResult]:
    """Return what running workers say of the relay: it may accept a session, and refuse every mail."""
    seen = await read_overview(client, settings.queue.name)
    if isinstance(seen, Unavailable):
        return []
    live = [worker.beat for worker in seen.workers if not worker.is_lost]
    troubled = [beat for beat in live if beat.trouble]
    working = seen.counts.leased - seen.counts.run_out
    if not live and working > 0:
        what = f"{counted(working, 'job')} leased by a worker that is not heard: its log and trio-worker health say why"
        return [CheckResult("workers", what, is_warning=True)]
    if not live:
        return []
    if not troubled:
        run = "runs" if len(live) == 1 else "run"
        return [CheckResult("workers", f"{counted(len(live), 'worker')} {run}, and none has trouble with the relay")]
    what = f"{len(troubled):,} of {counted(len(live), 'worker')} claim nothing: the relay {troubled[0].trouble}"
    return [CheckResult("workers", what, UNREACHABLE)]
