"""Pure. Message-IDs, made from the ids of jobs."""

from __future__ import annotations

from trio_worker.jobs.address import AddressFault, parse_mailbox
from trio_worker.jobs.domain import DomainFault, parse_domain
from trio_worker.mail.options import MailOptions


def message_id_of(job_id: str, options: MailOptions) -> str:
    """Return the Message-ID of a job with these options, the same for every attempt; empty if they are wrong."""
    sender, domain = parse_mailbox(options.sender), message_id_domain(options.message_id_domain)
    if isinstance(sender, AddressFault) or isinstance(domain, DomainFault):
        return ""
    return f"<{job_id}@{domain or sender.domain}>"


def message_id_domain(text: str) -> str | DomainFault:
    """Return the domain of mail.message_id_domain, empty if there is none, or why it cannot be used."""
    return parse_domain(text) if text else ""
