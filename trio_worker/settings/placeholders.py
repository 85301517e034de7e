"""Pure. Values that only stand for one's own: names of the documents (RFC 2606, RFC 6761), links to this machine.

A production file that was copied and not edited passes every other check, and then sends mails from example.com whose
links lead nowhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from trio_worker.jobs.address import AddressFault, parse_mailbox
from trio_worker.jobs.domain import DomainFault
from trio_worker.mail.links import parse_base_url
from trio_worker.settings.record import Settings

# Names that never belong to anybody: RFC 2606 and RFC 6761, 6.
_RESERVED = ("example", "example.com", "example.net", "example.org", "invalid", "localhost", "test")


def placeholders(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each key that has such a value in profile production, and what is wrong with it."""
    if settings.profile != "production":
        return
    host = settings.smtp.host
    if not is_loopback(host) and is_reserved(host):
        yield "smtp.host", f"{host} is a placeholder: name your relay"
    for key, mailbox in (("mail.from", settings.mail.sender), ("mail.envelope_from", settings.mail.envelope_from)):
        domain = _domain_of(mailbox)
        if is_reserved(domain):
            yield key, f"the domain {domain} is a placeholder: give the address of your mails"
    if is_reserved(settings.mail.message_id_domain):
        yield "mail.message_id_domain", f"{settings.mail.message_id_domain} is a placeholder: give a domain of yours"
    host = _host_of(settings.mail.frontend_url)
    if host and (is_loopback(host) or is_reserved(host)):
        yield "mail.frontend_url", f"links to {host} open nothing for who reads a mail: give the address of your site"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_reserved(domain: str) -> bool:
    """Return whether a domain, or one above it, is reserved for examples and tests, or is this machine."""
    labels = domain.lower().rstrip(".").split(".")
    return any(".".join(labels[-count:]) in _RESERVED for count in (1, 2))


def _domain_of(mailbox: str) -> str:
    parsed = parse_mailbox(mailbox) if mailbox else None
    return "" if parsed is None or isinstance(parsed, AddressFault) else parsed.domain


def _host_of(url: str) -> str:
    base = parse_base_url(url)
    return "" if isinstance(base, DomainFault) else urlsplit(base).hostname or ""
