"""The fuzz targets: checks that must pass for any bytes. `tools/fuzz` runs them for hours, each test run on the corpus.

A target takes bytes, and raises an exception if a check fails.
"""

from __future__ import annotations

import base64
import email
import email.message
import email.policy
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from trio_worker.jobs.address import AddressFault, Mailbox, parse_mailbox
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue
from trio_worker.jobs.fault import Malformed
from trio_worker.jobs.job import Job, decode
from trio_worker.mail.composer import Composer, Mail, open_composer
from trio_worker.mail.options import MailOptions
from trio_worker.queue.journal import JournalUnusableError, read_journal
from trio_worker.redis.url import RedisUrl, RedisUrlFault, parse_redis_url, shown_redis_url
from trio_worker.smtp.capabilities import Capabilities, read_ehlo
from trio_worker.smtp.conversation import Conversation
from trio_worker.smtp.envelope import Envelope
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Outcome

AT = 1_800_000_000.0
JOB_ID = "01JD4Y6T8QABCDEFXYZ"
MODES: Final = (
    Capabilities(pipelining=True, chunking=True, eight_bit=True),
    Capabilities(pipelining=True),
    Capabilities(chunking=True),
    Capabilities(),
)
ENVELOPE = Envelope("us@example.com", ("a@example.org", "b@example.org"), b"Subject: x\r\n\r\n.y\r\n")
AWAITING = Envelope("us@example.com", ("a@example.org",), b"Subject: x\r\n\r\n.y\r\n", awaits_recipients=True)
OUR_HEADERS = {"Date", "Message-ID", "From", "Subject", "MIME-Version", "Auto-Submitted", "Content-Type"}
OPTIONAL_HEADERS = {"To", "Cc", "Reply-To", "Content-Transfer-Encoding"}


@cache
def _built_in() -> tuple[Catalogue, Composer]:
    catalogue = read_catalogue([])
    assert isinstance(catalogue, Catalogue)
    composer = open_composer(MailOptions(), catalogue)
    assert isinstance(composer, Composer)
    return catalogue, composer


def check_job(data: bytes) -> None:
    """Any bytes give a job or faults, and a job gives a well-formed mail or faults."""
    catalogue, composer = _built_in()
    job = decode(data, catalogue.types)
    if isinstance(job, Malformed):
        assert job.faults
        assert all(str(fault).isprintable() for fault in job.faults)
        return
    _check_mail(job, composer)


def check_message(data: bytes) -> None:
    """Any texts in the fields of a message; the standard library reads the accepted ones back unchanged."""
    catalogue, composer = _built_in()
    texts = [part.decode("utf-8", "surrogateescape") for part in data.split(b"\xff")[:8]]
    subject, to, text, html, name, value, file_name, file_text = [*texts, *[""] * 8][:8]
    file = {"name": file_name or "f", "type": "text/csv", "base64": _base64(file_text)}
    payload = {
        "to": [to or "a@example.org"],
        "subject": subject,
        "text": text,
        "html": html,
        "headers": {"X-Tag": value, "X-" + (name or "Name"): "v"},
        "attachments": [file],
    }
    document = {"task_type": "Email", "data": {"email_type": "Message", "data": payload}}
    job = decode(json.dumps(document).encode(), catalogue.types)
    if isinstance(job, Job):
        _check_mail(job, composer, subject.strip(" "))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode(errors="replace")).decode()


def _check_mail(job: Job, composer: Composer, subject: str | None = None) -> None:
    mail = composer.compose(job, JOB_ID, AT)
    if isinstance(mail, Malformed):
        assert mail.faults
        return
    assert isinstance(mail, Mail)
    for eight_bit in (True, False):
        content = mail.content(eight_bit=eight_bit)
        assert content.endswith(b"\r\n")
        assert b"\0" not in content
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
        assert max(map(len, content.split(b"\r\n"))) <= 998
        assert content.isascii() or eight_bit or mail.uses_smtputf8
        assert mail.needs_smtputf8 or mail.content(eight_bit=False, smtputf8=False).isascii()
        read = email.message_from_bytes(content, policy=email.policy.default)
        kinds = {key for key in read if not key.upper().startswith("X-")}
        known = OUR_HEADERS | OPTIONAL_HEADERS
        # A job may add headers, but not a second one of ours.
        assert all(read.keys().count(key) == 1 for key in kinds & known)
        assert kinds >= OUR_HEADERS
        if subject is not None and not mail.needs_smtputf8:
            assert read["Subject"] == subject
    assert mail.recipients
    for recipient in mail.recipients:
        assert not re.search(r"[\s<>\x00-\x1f\x7f]", re.sub(r'^".*"@', "@", recipient)), "unclean recipient"


def check_replies(data: bytes) -> None:
    """Any replies, split anywhere, give the same outcome; no mail is accepted without a final 2xx."""
    if len(data) < 2:
        return
    capabilities, envelope = MODES[data[0] % 4], (ENVELOPE, AWAITING)[data[0] // 4 % 2]
    wire, step = data[2:], data[1] % 7 + 1
    whole, is_broken = _play(capabilities, envelope, [wire])
    in_parts, _ = _play(capabilities, envelope, [wire[at : at + step] for at in range(0, len(wire), step)])
    # A reply before its command ends the conversation; if it arrives in parts, it may come after the command.
    assert is_broken or in_parts == whole
    for outcome in (whole, in_parts):
        assert not isinstance(outcome, Accepted) or re.search(rb"(^|\n)2\d\d", wire)
    read_ehlo(wire.decode("utf-8", "replace"), ["CHUNKING"])


def _play(capabilities: Capabilities, envelope: Envelope, parts: list[bytes]) -> tuple[Outcome, bool]:
    """Return the outcome of the mail, and whether a reply of the relay ended the conversation."""
    conversation = Conversation(capabilities)
    transaction = conversation.begin(envelope)
    conversation.take_outgoing()
    for part in parts:
        conversation.receive(part)
        conversation.take_outgoing()
    is_broken = conversation.end is not None
    conversation.lose(FailureKind.EOF, "the end")
    assert transaction.outcome is not None
    return transaction.outcome, is_broken


def check_mailbox(data: bytes) -> None:
    """Any text gives one mailbox that can be read back, or a fault that does not contain the text."""
    text = data.decode("utf-8", "surrogateescape")
    match parse_mailbox(text):
        case AddressFault(what):
            assert len(text) < 12 or text not in what
        case Mailbox() as mailbox:
            assert not re.search(r"[\r\n\x00]", mailbox.address + mailbox.name)
            again = parse_mailbox(mailbox.address)
            assert isinstance(again, Mailbox)
            assert again.address == mailbox.address


def check_journal(data: bytes) -> None:
    """Any file is read as a journal, or refused with a reason."""
    try:
        _, entries = read_journal(data, Path("x.journal"))
    except JournalUnusableError:
        return
    assert len(entries) <= data.count(b"\n")


def check_url(data: bytes) -> None:
    """Any text gives a Redis URL or a fault, and is shown without its login."""
    text = data.decode("utf-8", "replace")
    match parse_redis_url(text):
        case RedisUrl():
            authority, _, path = text.partition("://")[2].partition("?")[0].partition("/")
            login, _, hosts = authority.rpartition("@")
            assert len(login) < 8 or login in path + hosts or login not in shown_redis_url(text)
        case RedisUrlFault(what):
            assert what


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "job": check_job,
    "message": check_message,
    "replies": check_replies,
    "mailbox": check_mailbox,
    "journal": check_journal,
    "url": check_url,
}
CORPUS = Path(__file__).parent / "corpus"
