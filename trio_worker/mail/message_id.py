"""Pure. Message-IDs, made from the ids of jobs, or from jobs that have an id of their producer."""

from __future__ import annotations

import base64
import hashlib

from trio_worker.jobs.address import AddressFault, parse_mailbox
from trio_worker.jobs.domain import DomainFault, parse_domain
from trio_worker.mail.options import MailOptions

# The ids that we give jobs have no hyphen.
DERIVED = "id-"


def derived_mail_id(body: bytes) -> str:
    """Return the left side of the Message-ID of a job to which the producer gave an ``id``; ``body`` is all of it.

    If Redis loses the last second of its writes, the job is back in the list and gets another id of ours; so two mails
    of one job have the same Message-ID nevertheless. Other jobs with the same ``id`` but another content do not: a
    mail program would drop the second of them as a copy.
    """
    digest = hashlib.sha256(body).digest()[:16]
    return DERIVED + base64.b32hexencode(digest).decode("ascii").rstrip("=").lower()


def message_id_of(job_id: str, options: MailOptions) -> str:
    """Return the Message-ID with this left side under these options; empty if they are wrong."""
    sender, domain = parse_mailbox(options.sender), message_id_domain(options.message_id_domain)
    if isinstance(sender, AddressFault) or isinstance(domain, DomainFault):
        return ""
    return f"<{job_id}@{domain or sender.domain}>"


def message_id_domain(text: str) -> str | DomainFault:
    """Return the domain of mail.message_id_domain, empty if there is none, or why it cannot be used."""
    return parse_domain(text) if text else ""
