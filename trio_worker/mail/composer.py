"""Pure. Composes mails: makes a mail from a job, with compiled templates and a strict check of every header.

The message classes of the standard library are not used here: they cost more than everything else together. The tests
read the octets back with them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import field

from trio_worker.jobs.address import AddressFault, Mailbox, has_control_character, parse_mailbox
from trio_worker.jobs.domain import DomainFault, readable_domain
from trio_worker.jobs.fault import Fault, Malformed, malformed
from trio_worker.jobs.job import Job, Message, Templated, sample_jobs
from trio_worker.mail.body import Insertion, Texts
from trio_worker.mail.links import parse_base_url
from trio_worker.mail.message_id import message_id_domain
from trio_worker.mail.mime import CRLF, address_header, canonical, date_header, message_header, unstructured_header
from trio_worker.mail.options import MailOptions
from trio_worker.mail.skeleton import RenderedText
from trio_worker.mail.template import Templates, compile_templates
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio_worker.jobs.email_type import Catalogue, TypeSpec

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,56}")  # a boundary made of it has at most 70 characters (RFC 2046, 5.1.1)
_AUTO_SUBMITTED = f"Auto-Submitted: auto-generated{CRLF}"  # RFC 3834, 5
_NO_RECIPIENT_SHOWN = f"To: undisclosed-recipients:;{CRLF}"  # RFC 5322, 3.4: an empty group


@frozen
class Draft:
    """The parts of a mail that a producer wrote; ``extra`` has the last header lines, each ending with CRLF."""

    subject: str
    to: tuple[Mailbox, ...]
    body: Texts | Insertion
    extra: str
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: Mailbox | None = None


@typed_frozen
class Mail:
    """One mail, ready to be sent: its envelope, and its octets for relays with and without 8BITMIME and SMTPUTF8.

    ``sender`` and ``recipients`` are the bare addresses of the envelope; no recipient occurs twice. The
    ``message_id`` is made of the job's id: all attempts have the same one.

    ``needs_smtputf8``: without SMTPUTF8 it goes to nobody, because of its sender or Reply-To. ``uses_smtputf8``: that,
    or a recipient is not ASCII; without SMTPUTF8 it goes to the others.
    """

    sender: str
    recipients: tuple[str, ...] = field(repr=False)
    message_id: str
    needs_smtputf8: bool
    uses_smtputf8: bool = field(repr=False)
    _job_id: str = field(repr=False)
    _header: bytes = field(repr=False)
    _body: Texts | Insertion = field(repr=False)
    _ascii_header: bytes | None = field(default=None, repr=False)  # None: the header is ASCII
    _contents: dict[tuple[bool, bool], bytes] = field(factory=dict, init=False, repr=False, eq=False)

    def content(self, *, eight_bit: bool, smtputf8: bool = True) -> bytes:
        """Return the whole message (RFC 5322): CRLF line ends only, no line over 998 octets, not dot-stuffed.

        ``eight_bit`` and ``smtputf8`` say whether the relay offers 8BITMIME and SMTPUTF8. Without the first only the
        header may be other than ASCII, without both nothing is, for those who can have the mail so. Each content is
        made once.
        """
        made = self._contents.get((eight_bit, smtputf8))
        if made is None:
            header = self._header if smtputf8 or self._ascii_header is None else self._ascii_header
            made = self._body.octets(header, self._job_id, eight_bit=eight_bit)
            self._contents[eight_bit, smtputf8] = made
        return made


@frozen
class ComposerFaults:
    """All the faults in the options and templates that keep a composer from being made."""

    faults: tuple[Fault, ...]


@frozen
class Composer:
    """Makes a `Mail` from a `Job`. Made by `open_composer`; it needs no closing."""

    sender: Mailbox
    envelope_sender: Mailbox
    message_id_domain: str
    templates: Mapping[str, Templates] = field(repr=False)
    extra: Mapping[str, str] = field(repr=False)
    """The last header lines of each templated type's mails."""
    _from: str = field(init=False, repr=False)
    _envelope_from: str = field(init=False, repr=False)
    _needs_smtputf8: bool = field(init=False, repr=False)  # because of the sender

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_from", address_header("From", [self.sender]))
        object.__setattr__(self, "_envelope_from", self.envelope_sender.address)
        needs_smtputf8 = self.sender.needs_smtputf8 or self.envelope_sender.needs_smtputf8
        object.__setattr__(self, "_needs_smtputf8", needs_smtputf8)

    def compose(self, job: Job, job_id: str, at: float) -> Mail | Malformed:
        """Make the mail of a job; never raises, whatever the content of the job.

        ``at`` is the Date, in epoch seconds. ``job_id`` becomes the Message-ID; it must be 1 to 56 letters, digits,
        '-' and '_' (else ValueError).
        """
        if not _JOB_ID.fullmatch(job_id):
            raise ValueError("a job id is 1 to 56 letters, digits, '-' and '_'")
        content = job.content
        if isinstance(content, Templated):
            return self._compose_templated(job.email_type, content, job_id, at)
        draft = _draft_of_message(content)
        mailboxes = (*draft.to, *draft.cc, *draft.bcc)
        shown = mailboxes if draft.reply_to is None else (*mailboxes, draft.reply_to)
        mailbox_text = "".join([f"{mailbox.name}{mailbox.address}" for mailbox in shown])
        # The last check before the header is written, for jobs that were not decoded; most texts are printable.
        header_text = draft.subject + mailbox_text
        if not header_text.isprintable() and has_control_character(header_text):
            return malformed("bad_header", _faults_of_header(draft.subject, mailbox_text))

        message_id = f"<{job_id}@{self.message_id_domain}>"
        header = self._header(draft, message_id, int(at))
        needs_smtputf8 = uses_smtputf8 = self._needs_smtputf8
        if not mailbox_text.isascii():
            needs_smtputf8 |= draft.reply_to is not None and draft.reply_to.needs_smtputf8
            uses_smtputf8 = needs_smtputf8 or any(mailbox.needs_smtputf8 for mailbox in mailboxes)
        ascii_header = None
        if uses_smtputf8 and not needs_smtputf8 and not header.isascii():
            ascii_header = self._header(draft, message_id, int(at), ascii_only=True).encode()
        return Mail(
            self._envelope_from,
            _envelope_recipients(mailboxes),
            message_id,
            needs_smtputf8,
            uses_smtputf8,
            job_id,
            header.encode(),
            draft.body,
            ascii_header,
        )

    def _compose_templated(self, email_type: str, content: Templated, job_id: str, at: float) -> Mail | Malformed:
        """Make the mail of a templated type: only recipient, subject, Date and Message-ID differ in its header."""
        templates = self.templates.get(email_type)
        if templates is None:
            return malformed("unknown_type", [Fault("$.data.email_type", "has no templates here")])
        rendered = templates.render(content.fields)
        if isinstance(rendered, Fault):
            return malformed("template", [rendered])
        subject, recipient = rendered.subject, content.recipient
        mailbox_text = recipient.name + recipient.address
        header_text = subject + mailbox_text
        if not header_text.isprintable() and has_control_character(header_text):
            return malformed("bad_header", _faults_of_header(subject, mailbox_text))
        message_id = f"<{job_id}@{self.message_id_domain}>"
        header = "".join(
            (
                date_header(int(at)),
                self._from,
                address_header("To", (recipient,)),
                unstructured_header("Subject", subject),
                f"Message-ID: {message_id}{CRLF}MIME-Version: 1.0{CRLF}",
                self.extra[email_type],
            ),
        )
        return Mail(
            self._envelope_from,
            (recipient.address,),
            message_id,
            self._needs_smtputf8,
            self._needs_smtputf8 or not recipient.address.isascii(),
            job_id,
            header.encode(),
            rendered.body,
        )

    def _header(self, draft: Draft, message_id: str, second: int, *, ascii_only: bool = False) -> str:
        return "".join(
            (
                date_header(second),
                self._from,
                _recipient_headers(draft, ascii_only=ascii_only),
                address_header("Reply-To", [draft.reply_to]) if draft.reply_to else "",
                unstructured_header("Subject", draft.subject),
                f"Message-ID: {message_id}{CRLF}MIME-Version: 1.0{CRLF}",
                draft.extra,
            ),
        )


def _recipient_headers(draft: Draft, *, ascii_only: bool) -> str:
    """Return To and Cc; a mail whose recipients are all hidden says so."""
    if not draft.to and not draft.cc:
        return _NO_RECIPIENT_SHOWN
    shown = (("To", draft.to), ("Cc", draft.cc))
    return "".join([address_header(name, group, ascii_only=ascii_only) for name, group in shown if group])


def open_composer(options: MailOptions, catalogue: Catalogue) -> Composer | ComposerFaults:
    """Check the options, compile all templates, and compose each type's samples; return all faults at once."""
    faults: list[Fault] = []
    sender = parse_mailbox(options.sender)
    envelope_sender = parse_mailbox(options.envelope_from) if options.envelope_from else sender
    domain = message_id_domain(options.message_id_domain)
    for path, read in (
        ("mail.from", sender),
        ("mail.envelope_from", envelope_sender),
        ("mail.message_id_domain", domain),
    ):
        if isinstance(read, AddressFault | DomainFault) and not (read is sender and path != "mail.from"):
            faults.append(Fault(path, read.reason))
    base = parse_base_url(options.frontend_url)
    if isinstance(base, DomainFault):
        faults.append(Fault("mail.frontend_url", base.reason))
    url = "" if isinstance(base, DomainFault) else base
    product = "" if isinstance(sender, AddressFault) else sender.name or readable_domain(sender.domain)
    templates, template_faults = compile_templates(catalogue, {"product": product, "frontend_url": url})
    faults.extend(template_faults)
    if isinstance(sender, AddressFault) or isinstance(envelope_sender, AddressFault) or isinstance(domain, DomainFault):
        return ComposerFaults(tuple(faults))
    extra = {name: _AUTO_SUBMITTED + _unsubscribe(url, catalogue.types[name]) for name in templates}
    composer = Composer(sender, envelope_sender, domain or sender.domain, templates, extra)
    for email_type in templates:
        faults.extend(_proofs(composer, catalogue.types[email_type]))
    return ComposerFaults(tuple(faults)) if faults else composer


def _unsubscribe(url: str, spec: TypeSpec) -> str:
    """Return the List-Unsubscribe header line (RFC 2369, 3.2) of a type; empty if it has none."""
    return f"List-Unsubscribe: <{url}{spec.unsubscribe_path}>{CRLF}" if spec.unsubscribe_path else ""


def _proofs(composer: Composer, spec: TypeSpec) -> Iterator[Fault]:
    """Yield why no mail can be made of a type's samples; failures of templates are reported already."""
    for job in sample_jobs(spec):
        made = composer.compose(job, "sample", 0.0)
        if isinstance(made, Malformed) and made.reason != "template":
            yield from (
                Fault(f"{spec.email_type}/{each.path}.j2", f"{each.reason} (with the samples)") for each in made.faults
            )
            return


def sender_needs_smtputf8(options: MailOptions) -> bool:
    """Whether no mail can be sent without SMTPUTF8, because a sender address is not ASCII before the @."""
    senders = (parse_mailbox(text) for text in (options.sender, options.envelope_from) if text)
    return any(isinstance(sender, Mailbox) and sender.needs_smtputf8 for sender in senders)


def _draft_of_message(message: Message) -> Draft:
    texts = [
        (subtype, RenderedText(canonical(text)))
        for subtype, text in (("plain", message.text), ("html", message.html))
        if text is not None
    ]
    is_automatic = all(name.lower() != "auto-submitted" for name in message.headers)
    headers = [message_header(name, text) for name, text in message.headers.items()]
    return Draft(
        message.subject.strip(" "),
        message.to,
        Texts(tuple(texts), message.attachments),
        "".join((_AUTO_SUBMITTED if is_automatic else "", *headers)),
        message.cc,
        message.bcc,
        message.reply_to,
    )


def _faults_of_header(subject: str, mailbox_text: str) -> Iterator[Fault]:
    if has_control_character(subject):
        yield Fault("subject", "contains a control character, or is more than one line")
    if has_control_character(mailbox_text):
        yield Fault("recipient", "contains a control character")


def _envelope_recipients(mailboxes: tuple[Mailbox, ...]) -> tuple[str, ...]:
    """Return the addresses in order, each once; only in the domain case does not matter (RFC 5321, 2.4)."""
    if len(mailboxes) == 1:
        return (mailboxes[0].address,)
    addresses: dict[tuple[str, str], str] = {}
    for mailbox in mailboxes:
        addresses.setdefault((mailbox.local, mailbox.domain.lower()), mailbox.address)
    return tuple(addresses.values())
