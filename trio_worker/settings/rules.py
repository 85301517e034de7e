"""Edge. Rules between keys of the settings: faults and warnings; reads folders and files, changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from attrs import evolve

from trio_worker.capture.options import split_listen
from trio_worker.jobs.address import AddressFault, Mailbox, parse_mailbox
from trio_worker.jobs.domain import DomainFault, parse_domain
from trio_worker.mail.links import parse_base_url
from trio_worker.mail.options import MailOptions
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.url import SCHEMES, EmbeddedAddressFault, RedisUrlFault, parse_embedded, parse_redis_url
from trio_worker.settings.placeholders import is_loopback, placeholders
from trio_worker.settings.record import TYPES, Origins, Settings
from trio_worker.settings.sources import SettingFault, is_read_by_others
from trio_worker.settings.spelling import suggestion
from trio_worker.smtp.options import is_full_name
from trio_worker.smtp.reply_text import printable_line
from trio_worker.telemetry.options import split_addresses

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  a setting of the catcher is compared with them
_EHLO_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")  # RFC 5321, 4.1.1.1
_MAX_LABEL_OCTETS = 63  # RFC 1035, 2.3.4
_REDIS_SCHEMES = (*SCHEMES, "embedded")


def faults_between(found: Sequence[SettingFault], settings: Settings, origins: Origins) -> Iterator[SettingFault]:
    """Yield the faults between keys; not of a key that has a fault itself, because its default stands in its place."""
    faulty = {fault.reason.partition(":")[0] for fault in found}
    if "profile" in faulty:
        settings = evolve(settings, profile="")  # what only one of the profiles refuses cannot be known
    for keys, message in _crossed(settings):
        if faulty.isdisjoint(keys):
            yield SettingFault(origins.place(keys[0]), f"{keys[0]}: {message}")
    if "mail.template_dirs" not in faulty:
        yield from _faults_of_types(settings.mail.template_dirs, origins)


# A fault: the key that it is told of, the others that it depends on, and what is wrong.
_Crossed: TypeAlias = tuple[tuple[str, ...], str]


def _crossed(settings: Settings) -> Iterator[_Crossed]:
    """Yield the faults between keys, and in the meaning of one."""
    smtp, queue = settings.smtp, settings.queue
    if not smtp.host or re.search(r"[\s\x00-\x1f/@]", smtp.host):
        yield ("smtp.host",), "must be a name or an address"
    elif re.fullmatch(r"[^:]*:\d+", smtp.host):
        yield ("smtp.host",), "must not contain a port: set smtp.port"
    elif reason := _host_fault(smtp.host):
        yield ("smtp.host",), reason
    elif settings.profile == "dev" and not is_loopback(smtp.host) and not smtp.allow_real_relay:
        reason = f"{smtp.host} is not this machine: profile dev needs smtp.allow_real_relay = true"
        yield ("smtp.host", "smtp.allow_real_relay"), reason
    yield from _refused_in_production(settings)
    if smtp.username and smtp.tls == "none" and not is_loopback(smtp.host):
        yield (
            ("smtp.tls", "smtp.host", "smtp.username"),
            "must not be none with a username: the login would be sent unencrypted",
        )
    ehlo_name = parse_domain(smtp.ehlo_name) if smtp.ehlo_name else ""
    if isinstance(ehlo_name, DomainFault) or not smtp.ehlo_name.isascii():
        yield ("smtp.ehlo_name",), "must be a host name, or an address such as [192.0.2.1]"
    for keyword in smtp.ignore_ehlo:
        if not _EHLO_KEYWORD.fullmatch(keyword):
            yield ("smtp.ignore_ehlo",), f"{printable_line(keyword)} is not the name of an SMTP extension"
    if smtp.only_to and _regex_fault(smtp.only_to):
        yield ("smtp.only_to",), f"is not a regular expression: {_regex_fault(smtp.only_to)}"
    if not queue.name or re.search(r"[{}\x00-\x20\x7f]", queue.name):
        yield ("queue.name",), "must be a name without spaces, braces and control characters"
    if settings.history.days and not settings.history.key:
        reason = "needs history.key_file, a file with a random text, the same for all workers and commands"
        yield ("history.days", "history.key"), reason
    if settings.retry.base_seconds > settings.retry.cap_seconds:
        reason = f"is above retry.cap_seconds ({settings.retry.cap_seconds:g})"
        yield ("retry.base_seconds", "retry.cap_seconds"), reason
    if settings.smtp_pool.min_idle > settings.smtp_pool.max_size:
        reason = f"is above smtp.pool.max_size ({settings.smtp_pool.max_size})"
        yield ("smtp.pool.min_idle", "smtp.pool.max_size"), reason
    yield from _faults_of_mail(settings.mail)
    if settings.redis.key_file and not settings.redis.cert_file:
        yield ("redis.key_file", "redis.cert_file"), "a key without its certificate: set redis.cert_file too"
    redis = _fault_of_redis(settings.redis.url)
    if redis:
        yield ("redis.url",), redis
    for key, listen, parse in (
        ("capture.listen", settings.capture.listen, split_listen),
        ("metrics.listen", settings.metrics.listen, split_addresses),
    ):
        reason = _listen_fault(listen, parse)
        if reason:
            yield (key,), reason


def _refused_in_production(settings: Settings) -> Iterator[_Crossed]:
    if settings.profile == "production" and settings.redis.url.startswith("embedded:"):
        reason = "profile production refuses the embedded server: it serves one machine and has no replicas"
        yield ("redis.url",), reason
    if settings.profile == "production" and settings.capture.listen:
        yield ("capture.listen",), "profile production refuses the mail catcher: mails would not be delivered"
    for key, reason in placeholders(settings):
        yield (key,), f"profile production: {reason}"


def _listen_fault(listen: str, parse: Callable[[str], object]) -> str:
    try:
        parse(listen or "127.0.0.1:0")
    except ValueError as error:
        return str(error)
    return ""


def _is_caught(listen: str, host: str, port: int) -> bool:
    """Return whether a catcher with this address gets the mails sent to a loopback address; ``localhost`` is any."""
    own_host, own_port = split_listen(listen)
    return own_port == port and (own_host == host or not {own_host, host}.isdisjoint({"localhost", *_ANY_ADDRESS}))


def _host_fault(host: str) -> str:
    """Return why a name cannot be looked up; beyond ASCII by IDNA 2008, as it is looked up."""
    if not host.isascii():
        parsed = parse_domain(host)
        return parsed.reason if isinstance(parsed, DomainFault) else ""
    parts = host.removesuffix(".").split(".")
    is_fit = all(0 < len(part) <= _MAX_LABEL_OCTETS for part in parts)
    return "" if is_fit else "has a part between its dots that is empty or too long"


def _faults_of_mail(mail: MailOptions) -> Iterator[_Crossed]:
    sender = parse_mailbox(mail.sender)
    if isinstance(sender, AddressFault):
        yield ("mail.from",), sender.reason
    envelope_from = parse_mailbox(mail.envelope_from) if mail.envelope_from else sender
    if mail.envelope_from and isinstance(envelope_from, AddressFault):
        yield ("mail.envelope_from",), envelope_from.reason
    domain = parse_domain(mail.message_id_domain) if mail.message_id_domain else ""
    if isinstance(domain, DomainFault):
        yield ("mail.message_id_domain",), domain.reason
    base = parse_base_url(mail.frontend_url)
    if isinstance(base, DomainFault):
        yield ("mail.frontend_url",), base.reason
    for folder in mail.template_dirs:
        if not _is_folder(folder):
            yield ("mail.template_dirs",), f"{folder} is not a folder"


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:  # a name that no file system takes, for example one that is too long
        return False


def _faults_of_types(template_dirs: tuple[str, ...], origins: Origins) -> Iterator[SettingFault]:
    """Yield faults for email types that have options and no template; not while a folder is missing."""
    is_whole = all(_is_folder(folder) and os.access(folder, os.R_OK | os.X_OK) for folder in template_dirs)
    if not is_whole or not origins.type_places:
        return
    # Imported here, because few configurations name email types, and every command reads one.
    from trio_worker.jobs.catalogue import type_names  # noqa: PLC0415

    known = sorted(type_names(template_dirs))
    for name, place in origins.type_places.items():
        if name not in known:
            yield SettingFault(place, f"{TYPES}.{name}: no such email type{suggestion(name, known)}")


def _fault_of_redis(url: str) -> str:
    scheme = url.partition(":")[0]
    if scheme not in _REDIS_SCHEMES:
        return (
            "must begin with redis://, rediss://, unix://, redis+sentinel://, redis+cluster:// or embedded:"
            + suggestion(scheme, _REDIS_SCHEMES)
        )
    if scheme == "embedded":
        embedded = parse_embedded(url)
        return embedded.reason if isinstance(embedded, EmbeddedAddressFault) else ""
    parsed = parse_redis_url(url)
    return parsed.reason if isinstance(parsed, RedisUrlFault) else ""


def _regex_fault(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return ""


def _warnings_about_tls(redis: RedisOptions) -> Iterator[tuple[str, str]]:
    files = [("redis.ca_file", redis.ca_file), ("redis.cert_file", redis.cert_file)]
    if not redis.url.startswith("rediss"):
        yield from ((key, "is used with rediss:// only, and redis.url has no TLS") for key, file in files if file)
        return
    # The key may be in the file of the certificate, which else may be read by all.
    key, file = ("redis.key_file", redis.key_file) if redis.key_file else files[1]
    if file and is_read_by_others(Path(file)) and (redis.key_file or _has_key(Path(file))):
        yield key, f"the private key in {file} can be read by all users: chmod o-r"


def _has_key(file: Path) -> bool:
    try:
        return b"PRIVATE KEY-----" in file.read_bytes()
    except OSError:
        return False


def warnings_about(settings: Settings, origins: Origins) -> Iterator[SettingFault]:
    """Yield warnings: settings that work, but are rarely intended."""
    smtp, pool = settings.smtp, settings.smtp_pool
    consumers = settings.number_workers
    if consumers < pool.max_size:
        few = f"{consumers} consumer{'' if consumers == 1 else 's'} can use {consumers}"
        message = f"number_workers: {few} of the {pool.max_size} connections (smtp.pool.max_size)"
        yield SettingFault(origins.place("number_workers"), message)
    if pool.depth > 1 and consumers >= pool.max_size * pool.depth:  # in 0.1.0 the key counted jobs
        many = f"{consumers:,} consumers for {pool.max_size} connections, {consumers * pool.depth:,} jobs at once"
        message = f"number_workers: {many}; as many consumers as connections are enough"
        yield SettingFault(origins.place("number_workers"), message)
    if smtp.ehlo_name and not smtp.ehlo_name.startswith("[") and not is_full_name(smtp.ehlo_name):
        message = f"smtp.ehlo_name: many relays refuse {smtp.ehlo_name}: it is not the full name of one machine"
        yield SettingFault(origins.place("smtp.ehlo_name"), message)
    for key, text in (("mail.from", settings.mail.sender), ("mail.envelope_from", settings.mail.envelope_from)):
        sender = parse_mailbox(text) if text else None
        if isinstance(sender, Mailbox) and sender.needs_smtputf8:
            message = f"{key}: is not ASCII before the @: only a relay that offers SMTPUTF8 takes mails from it"
            yield SettingFault(origins.place(key), message)
    if smtp.tls == "none" and not is_loopback(smtp.host):
        yield SettingFault(origins.place("smtp.tls"), f"smtp.tls: mails are sent unencrypted to {smtp.host}")
    if smtp.tls == "none" and smtp.username:
        yield SettingFault(origins.place("smtp.tls"), "smtp.tls: without TLS only CRAM-MD5 is used for the login")
    if smtp.username and not smtp.password:
        yield SettingFault(origins.place("smtp.username"), "smtp.username: smtp.password is not set")
    for key, message in _warnings_about_tls(settings.redis):
        yield SettingFault(origins.place(key), f"{key}: {message}")
    if (
        settings.capture.listen
        and is_loopback(smtp.host)
        and not _is_caught(settings.capture.listen, smtp.host, smtp.port)
    ):
        message = (
            f"capture.listen: mails go to {smtp.host}:{smtp.port} (smtp.host, smtp.port), not to this mail catcher"
        )
        yield SettingFault(origins.place("capture.listen"), message)
