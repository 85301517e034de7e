"""Edge. TOML, environment and flags become the option records of every module; all faults are told at once.

Order: flags, environment, file, default. The option records live beside the modules that obey them; this is the only
place that knows them all, and the file format.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, get_args, get_type_hints
from urllib.parse import urlsplit

import attrs
from attrs import evolve, field, frozen

from trio_worker.address import AddressFault, parse_domain, parse_mailbox
from trio_worker.broker import QueueOptions
from trio_worker.capture_options import CaptureOptions, split_listen
from trio_worker.catalogue import type_names
from trio_worker.embedded import EmbeddedAddressFault, parse_embedded
from trio_worker.logbook import LogOptions
from trio_worker.mail import MailOptions, TypeOptions
from trio_worker.opening import RelayOptions, Timeouts
from trio_worker.option import Option, option, option_of
from trio_worker.pool import PoolOptions
from trio_worker.redis_client import RedisOptions
from trio_worker.redis_url import SCHEMES, RedisUrlFault, parse_redis_url
from trio_worker.settings_source import (
    CREDENTIALS,
    PREFIX,
    Fault,
    Given,
    is_read_by_others,
    read_environment,
    read_secret,
    read_toml,
    variable_of,
)
from trio_worker.spelling import nearest
from trio_worker.verdict import RetryPolicy
from trio_worker.web import MetricsOptions, split_address
from trio_worker.worker import ShutdownOptions

CONFIG_VARIABLE = "TRIO_WORKER_CONFIG"
DEV_FILE = Path("conf/dev.toml")
_TYPES = "mail.types"
_MOST_BITS = 63
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  what a catcher may be told, not what we listen on
_REDIS_SCHEMES = (*SCHEMES, "embedded")


@frozen
class Settings:
    """All option records of a process; ``origins`` tells where each key's value came from, ``warnings`` what is odd.

    The default profile is dev: it refuses to send to a relay that is not on this machine, so that a worker started
    without configuration can harm nobody.
    """

    number_workers: int = option(
        10, "Jobs at work at once, those that only wait to be settled left out.", least=1, most=10_000
    )
    profile: str = option(
        "dev",
        "dev refuses relays that are not on this machine, production the embedded server and the catcher.",
        choices=("dev", "production"),
    )
    queue: QueueOptions = field(factory=QueueOptions)
    redis: RedisOptions = field(factory=RedisOptions)
    smtp: RelayOptions = field(factory=RelayOptions)
    smtp_pool: PoolOptions = field(factory=PoolOptions)
    smtp_timeouts: Timeouts = field(factory=Timeouts)
    retry: RetryPolicy = field(factory=RetryPolicy)
    mail: MailOptions = field(factory=MailOptions)
    capture: CaptureOptions = field(factory=CaptureOptions)
    shutdown: ShutdownOptions = field(factory=ShutdownOptions)
    log: LogOptions = field(factory=LogOptions)
    metrics: MetricsOptions = field(factory=MetricsOptions)
    origins: Mapping[str, str] = field(factory=dict, eq=False)
    warnings: tuple[Fault, ...] = field(default=(), eq=False)


@frozen
class Faults:
    """Everything that is wrong with a configuration."""

    faults: tuple[Fault, ...]


# Sections in the order of the files; the empty one holds the keys above all sections.
SECTIONS: dict[str, tuple[str, type[Any]]] = {
    "": ("", Settings),
    "queue": ("queue", QueueOptions),
    "redis": ("redis", RedisOptions),
    "smtp": ("smtp", RelayOptions),
    "smtp.pool": ("smtp_pool", PoolOptions),
    "smtp.timeouts": ("smtp_timeouts", Timeouts),
    "retry": ("retry", RetryPolicy),
    "mail": ("mail", MailOptions),
    "capture": ("capture", CaptureOptions),
    "shutdown": ("shutdown", ShutdownOptions),
    "log": ("log", LogOptions),
    "metrics": ("metrics", MetricsOptions),
}


@frozen
class Key:
    """One key that may be set: ``dotted`` is its public name, ``name`` the field of its record."""

    dotted: str
    section: str
    name: str
    option: Option
    kind: Any
    default: Any

    @property
    def variable(self) -> str:
        return variable_of(self.dotted)


def _keys_of(section: str, record: type[Any]) -> Iterator[Key]:
    kinds = get_type_hints(record)
    for attribute in attrs.fields(record):
        if not attribute.metadata or kinds[attribute.name] == dict[str, TypeOptions]:
            continue
        declared = option_of(attribute)
        dotted = ".".join(filter(None, (section, declared.key or attribute.name)))
        yield Key(dotted, section, attribute.name, declared, kinds[attribute.name], attribute.default)


KEYS: dict[str, Key] = {
    key.dotted: key for section, (_, record) in SECTIONS.items() for key in _keys_of(section, record)
}
TYPE_KEYS: dict[str, Key] = {key.name: key for key in _keys_of(f"{_TYPES}.*", TypeOptions)}


def digest_of(settings: Settings) -> str:
    """Return four digits that tell settings from others; secrets have no part in them.

    What is each worker's own, its metrics' address, is left out as well.
    """
    shown = [
        f"{key.dotted}={value_of(settings, key.dotted)!r}"
        for key in KEYS.values()
        if not key.option.secret and key.section != "metrics"
    ]
    return hashlib.sha256("\n".join([*shown, repr(sorted(settings.mail.types.items()))]).encode()).hexdigest()[:4]


def value_of(settings: Settings, dotted: str) -> Any:
    """Return the value of the key with this public name."""
    key = KEYS[dotted]
    return getattr(_section_of(settings, key.section), key.name)


def _section_of(settings: Settings, section: str) -> Any:
    return getattr(settings, SECTIONS[section][0]) if section else settings


def config_path(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: the one given, else TRIO_WORKER_CONFIG, else conf/dev.toml where there is one."""
    if given is not None:
        return given
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return DEV_FILE if DEV_FILE.is_file() else None


def read_settings(
    path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    templates_from: Path | None = None,
) -> Settings | Faults:
    """Read the settings, or say everything that is wrong; never raises for any file or environment.

    ``templates_from`` is the folder that ``mail.template_dirs`` are relative to, in place of the working directory.
    """
    reader = _Reader(environ, templates_from)
    given: dict[str, Given] = {}
    if path is not None:
        read = read_toml(path)
        if isinstance(read, Fault):
            return Faults((read,))
        given.update(read)
    for key, found in read_environment(environ).items():
        given.pop(f"{key}_file", None)
        given[key] = found
        if key.endswith("_file"):
            given.pop(key.removesuffix("_file"), None)
    given.update({key: Given(value, f"flag {key}") for key, value in (flags or {}).items()})
    settings = reader.build(given)
    faults = [*reader.faults, *_crossed_beside(reader.faults, settings, reader)]
    if faults:
        return Faults(tuple(faults))
    return evolve(settings, origins=reader.origins, warnings=(*reader.warnings, *_odd(settings, reader)))


class _Reader:
    """Turns given values into records, collecting faults on the way."""

    def __init__(self, environ: Mapping[str, str], templates_from: Path | None) -> None:
        self.environ = environ
        self.templates_from = templates_from
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        self.origins: dict[str, str] = {}
        self.type_places: dict[str, str] = {}

    def place(self, dotted: str) -> str:
        """Return where a key was set, for a fault that is found later."""
        return self.origins.get(dotted, "default")

    def build(self, given: dict[str, Given]) -> Settings:
        values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        types: dict[str, dict[str, Any]] = {}
        for dotted, found in given.items():
            if dotted.startswith(f"{_TYPES}."):
                self._take_type(dotted, found, types)
            elif dotted in KEYS:
                self._take(KEYS[dotted], dotted, found, values[KEYS[dotted].section])
            elif dotted.removesuffix("_file") in KEYS and KEYS[dotted.removesuffix("_file")].option.secret:
                self._take_secret_file(dotted, found, given, values)
            elif dotted not in {*SECTIONS, _TYPES} or not isinstance(found.value, dict) or found.value:
                self.faults.append(Fault(found.place, _unknown(dotted)))
        self._take_credentials(values)
        return self._compose(values, types)

    def _compose(self, values: dict[str, dict[str, Any]], types: dict[str, dict[str, Any]]) -> Settings:
        shipped = MailOptions().types
        merged = dict(shipped)
        for name, own in types.items():
            merged[name] = evolve(shipped.get(name, TypeOptions()), **own)
        values["mail"]["types"] = merged
        if self.templates_from is not None:
            folders = values["mail"].get("template_dirs", ())
            values["mail"]["template_dirs"] = tuple(str(self.templates_from / folder) for folder in folders)
        records = {name: record(**values[section]) for section, (name, record) in SECTIONS.items() if section}
        return Settings(**values[""], **records)

    def _take(self, key: Key, dotted: str, found: Given, into: dict[str, Any]) -> None:
        value = _converted(key, found)
        if isinstance(value, _Wrong):
            self.faults.append(Fault(found.place, f"{dotted}: {value.what}"))
            return
        if key.option.secret and value == "":
            return  # as in the files: empty means that it comes from elsewhere
        into[key.name] = value
        self.origins[dotted] = found.place

    def _take_type(self, dotted: str, found: Given, types: dict[str, dict[str, Any]]) -> None:
        if found.value == {} and not found.is_text:
            self._keep_type(dotted.removeprefix(f"{_TYPES}."), found, types)
            return
        name, _, last = dotted.removeprefix(f"{_TYPES}.").rpartition(".")
        if not name or last not in TYPE_KEYS:
            self.faults.append(Fault(found.place, _unknown(dotted)))
            return
        self._take(TYPE_KEYS[last], dotted, found, self._keep_type(name, found, types))

    def _keep_type(self, name: str, found: Given, types: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return what is said of a type so far; its first place is kept for what is wrong with its name."""
        self.type_places.setdefault(name, found.place)
        return types.setdefault(name, {})

    def _take_secret_file(
        self, dotted: str, found: Given, given: Mapping[str, Given], values: dict[str, dict[str, Any]]
    ) -> None:
        key = KEYS[dotted.removesuffix("_file")]
        if key.dotted in given and given[key.dotted].value not in ("", None):
            what = f"{dotted} and {key.dotted} are both set: one secret, one place"
            self.faults.append(Fault(found.place, what))
        elif not isinstance(found.value, str):
            self.faults.append(Fault(found.place, f"{dotted}: must be a string"))
        elif found.value:
            self._read_secret(key, Path(found.value), found.place, values)

    def _take_credentials(self, values: dict[str, dict[str, Any]]) -> None:
        """Look where systemd puts credentials, for secrets that nothing else gives."""
        folder = self.environ.get(CREDENTIALS)
        for key in KEYS.values() if folder else ():
            path = Path(folder or "") / key.dotted.replace(".", "_")
            if key.option.secret and key.dotted not in self.origins and path.is_file():
                self._read_secret(key, path, f"${CREDENTIALS}/{path.name}", values)

    def _read_secret(self, key: Key, path: Path, place: str, values: dict[str, dict[str, Any]]) -> None:
        secret = read_secret(path, place)
        if isinstance(secret, Fault):
            self.faults.append(secret)
            return
        if is_read_by_others(path):
            self.warnings.append(Fault(place, f"secret file {path} can be read by everybody: chmod o-r"))
        values[key.section][key.name] = secret
        self.origins[key.dotted] = place


@frozen
class _Wrong:
    what: str


Converted: TypeAlias = Any


def _converted(key: Key, found: Given) -> Converted | _Wrong:
    value = _from_text(key.kind, found.value) if found.is_text else found.value
    if isinstance(value, _Wrong):
        return value
    kinds = get_args(key.kind) or (key.kind,)
    if key.kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(each, str) and "\x00" not in each for each in value):
            return tuple(value)
        return _Wrong("must be a list of strings")
    if bool in kinds:
        return value if isinstance(value, bool) else _Wrong("must be true or false")
    if float in kinds or int in kinds:
        return _number(key, value, is_whole=int in kinds)
    if not isinstance(value, str):
        return _Wrong("must be a string")
    if "\x00" in value:
        return _Wrong("must not hold NUL")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        return _Wrong("must be UTF-8")
    if key.option.choices and value not in key.option.choices:
        words = ", ".join(choice or "(empty)" for choice in key.option.choices)
        return _Wrong(f"must be one of {words}{_near(value, key.option.choices)}")
    return value


def _number(key: Key, value: object, *, is_whole: bool) -> Converted | _Wrong:
    if isinstance(value, bool) or not isinstance(value, int | float) or (is_whole and not isinstance(value, int)):
        return _Wrong("must be a whole number" if is_whole else "must be a number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return _Wrong("is too large a number")
    if not math.isfinite(value):
        return _Wrong("must be a finite number")
    least, most = key.option.least, key.option.most
    if least is not None and value < least:
        return _Wrong(f"must be at least {least:g}")
    if most is not None and value > most:
        return _Wrong(f"must be at most {most:g}")
    # Waits beyond a century are typing errors, and some clocks overflow on them.
    if not is_whole and value > 4e9:
        return _Wrong("must be at most 4e9")
    return value if is_whole else float(value)


def _from_text(kind: Any, text: str) -> Converted | _Wrong:
    kinds = get_args(kind) or (kind,)
    if kind == tuple[str, ...]:
        return [word.strip() for word in text.split(",") if word.strip()]
    if bool in kinds:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), _Wrong("must be true or false"))
    try:
        return int(text) if int in kinds else float(text) if float in kinds else text
    except ValueError:
        return _Wrong("must be a whole number" if int in kinds else "must be a number")


def _unknown(dotted: str) -> str:
    kind = "section" if any(known.startswith(f"{dotted}.") for known in KEYS) else "key"
    if kind == "section":
        return f"{dotted}: is a section, not a key"
    return f"{dotted}: no such key{_near(dotted, [*KEYS, *(f'{k}_file' for k in KEYS if KEYS[k].option.secret)])}"


def _near(word: str, known: Any) -> str:
    close = nearest(word, known)
    return f". Did you mean {close}?" if close else ""


def suggest_key(dotted: str) -> str:
    """Return ``. Did you mean ...?`` for a key that does not exist, or nothing."""
    return _near(dotted, KEYS)


def is_loopback(host: str) -> bool:
    """Whether a relay's host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _crossed_beside(found: list[Fault], settings: Settings, reader: _Reader) -> Iterator[Fault]:
    """Yield what is wrong between keys, but for those with a fault of their own: there a default was checked."""
    faulty = {fault.what.partition(":")[0] for fault in found}
    if "profile" not in faulty:
        yield from (fault for fault in _crossed(settings, reader) if fault.what.partition(":")[0] not in faulty)


def _crossed(settings: Settings, reader: _Reader) -> Iterator[Fault]:
    """Yield what is wrong between keys, or with the meaning of one."""

    def fault(dotted: str, what: str) -> Fault:
        return Fault(reader.place(dotted), f"{dotted}: {what}")

    smtp, queue = settings.smtp, settings.queue
    if not smtp.host or re.search(r"[\s\x00-\x1f/@]", smtp.host):
        yield fault("smtp.host", "must be a name or an address")
    elif not _is_host_name(smtp.host):
        yield fault("smtp.host", "has an empty or too long part between its dots")
    elif settings.profile == "dev" and not is_loopback(smtp.host) and not smtp.allow_real_relay:
        yield fault("smtp.host", f"{smtp.host} is not this machine: profile dev needs smtp.allow_real_relay = true")
    if settings.profile == "production" and settings.redis.url.startswith("embedded:"):
        yield fault(
            "redis.url", "profile production refuses the embedded server: it is for one machine, without replicas"
        )
    if settings.profile == "production" and settings.capture.listen:
        yield fault("capture.listen", "profile production refuses the mail catcher: mails would end there")
    if smtp.username and smtp.tls == "none" and not is_loopback(smtp.host):
        yield fault("smtp.tls", "none with a username would show the login to the network")
    if smtp.only_to and _regex_fault(smtp.only_to):
        yield fault("smtp.only_to", f"is no regular expression: {_regex_fault(smtp.only_to)}")
    if not queue.name or re.search(r"[{}\x00-\x20\x7f]", queue.name):
        yield fault("queue.name", "must be a name without spaces, braces and control characters")
    if settings.retry.base_seconds > settings.retry.cap_seconds:
        yield fault("retry.base_seconds", f"is above retry.cap_seconds ({settings.retry.cap_seconds:g})")
    if settings.smtp_pool.min_idle > settings.smtp_pool.max_size:
        yield fault("smtp.pool.min_idle", f"is above smtp.pool.max_size ({settings.smtp_pool.max_size})")
    yield from _faults_of_mail(settings.mail, fault)
    yield from _faults_of_types(settings.mail.template_dirs, reader)
    redis = _fault_of_redis(settings.redis.url)
    if redis:
        yield fault("redis.url", redis)
    if settings.capture.listen:
        try:
            split_listen(settings.capture.listen)
        except ValueError as error:
            yield fault("capture.listen", str(error))
    if settings.metrics.listen:
        try:
            split_address(settings.metrics.listen)
        except ValueError as error:
            yield fault("metrics.listen", str(error))


def _is_caught(listen: str, host: str, port: int) -> bool:
    """Whether a catcher there gets what is sent to a loopback address; ``localhost`` may be any of them."""
    own_host, own_port = split_listen(listen)
    return own_port == port and (own_host == host or not {own_host, host}.isdisjoint({"localhost", *_ANY_ADDRESS}))


def _is_host_name(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _faults_of_mail(mail: MailOptions, fault: Any) -> Iterator[Fault]:
    sender = parse_mailbox(mail.sender)
    if isinstance(sender, AddressFault):
        yield fault("mail.from", sender.what)
    envelope_from = parse_mailbox(mail.envelope_from) if mail.envelope_from else sender
    if mail.envelope_from and isinstance(envelope_from, AddressFault):
        yield fault("mail.envelope_from", envelope_from.what)
    domain = parse_domain(mail.message_id_domain) if mail.message_id_domain else ""
    if isinstance(domain, AddressFault):
        yield fault("mail.message_id_domain", domain.what)
    if urlsplit(mail.frontend_url).scheme not in {"http", "https"} or not _host_of(mail.frontend_url):
        yield fault("mail.frontend_url", "must be a URL that begins with http:// or https://")
    for folder in mail.template_dirs:
        if not Path(folder).is_dir():
            yield fault("mail.template_dirs", f"{folder} is no folder")


def _faults_of_types(template_dirs: tuple[str, ...], reader: _Reader) -> Iterator[Fault]:
    """Yield the types that options are given for and that no folder holds; while a folder is missing nobody knows."""
    is_whole = all(Path(folder).is_dir() and os.access(folder, os.R_OK | os.X_OK) for folder in template_dirs)
    if not is_whole or any(fault.what.startswith("mail.template_dirs:") for fault in reader.faults):
        return
    known = sorted(type_names(template_dirs))
    for name, place in reader.type_places.items():
        if name not in known:
            yield Fault(place, f"{_TYPES}.{name}: no such email type{_near(name, known)}")


def _fault_of_redis(url: str) -> str:
    scheme = url.partition(":")[0]
    if scheme not in _REDIS_SCHEMES:
        return "must begin with redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// or embedded:" + _near(
            scheme, _REDIS_SCHEMES
        )
    if scheme == "embedded":
        embedded = parse_embedded(url)
        return embedded.what if isinstance(embedded, EmbeddedAddressFault) else ""
    parsed = parse_redis_url(url)
    return parsed.what if isinstance(parsed, RedisUrlFault) else ""


def _host_of(url: str) -> str:
    """Return the host of a URL; empty when it has none, or a port that is none."""
    try:
        host, port = urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        return ""
    return "" if port == 0 else host or ""


def _regex_fault(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return ""


def _odd(settings: Settings, reader: _Reader) -> Iterator[Fault]:
    """Yield what can be run with but is seldom meant."""
    smtp, pool = settings.smtp, settings.smtp_pool
    slots = pool.max_size * pool.depth
    if settings.number_workers < slots:
        what = (
            f"number_workers ({settings.number_workers}) is below the {slots} mails that the pool could carry at once"
        )
        yield Fault(reader.place("number_workers"), what)
    if smtp.tls == "none" and not is_loopback(smtp.host):
        yield Fault(reader.place("smtp.tls"), f"smtp.tls: mails travel in clear to {smtp.host}")
    if smtp.tls == "none" and smtp.username:
        yield Fault(reader.place("smtp.tls"), "smtp.tls: without TLS only CRAM-MD5 is used to log in")
    if smtp.username and not smtp.password:
        yield Fault(reader.place("smtp.username"), "smtp.username: there is no smtp.password")
    if (
        settings.capture.listen
        and is_loopback(smtp.host)
        and not _is_caught(settings.capture.listen, smtp.host, smtp.port)
    ):
        what = (
            f"capture.listen: mails go to {smtp.host}:{smtp.port} (smtp.host, smtp.port), so this catches none of them"
        )
        yield Fault(reader.place("capture.listen"), what)


__all__ = ["KEYS", "PREFIX", "SECTIONS", "Fault", "Faults", "Key", "Settings", "config_path", "read_settings"]
