"""Edge. ``mail preview``: the mail of one email type as its reader sees it, without a queue or a relay."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter
from cyclopts.validators import mutually_exclusive

from trio_worker.cli.exit_codes import MISCONFIGURED, NOTHING_MATCHED, OK, REFUSED
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import print_json, refuse
from trio_worker.cli.setup import MailSetup, read_mail_setup
from trio_worker.jobs.email_type import MESSAGE
from trio_worker.jobs.fault import Malformed
from trio_worker.jobs.job import TASK_TYPE, Json, decode
from trio_worker.jobs.strict_json import read_json
from trio_worker.printing import say, say_octets, say_text
from trio_worker.records import frozen
from trio_worker.settings.spelling import nearest

# Sample data of the type Message, which has no template and so no samples.
MESSAGE_SAMPLE: Mapping[str, Json] = {
    "to": "Ann <ann@example.com>",
    "subject": "Lunch on Friday",
    "text": "Shall we say noon?\n",
    "html": "<p>Shall we say <b>noon</b>?</p>\n",
}
_HEADERS = ("From", "To", "Cc", "Reply-To", "Subject")
# The part that --output writes, without --raw or --html.
_PART_OF_SUFFIX = {".html": "html", ".htm": "html", ".eml": "raw"}
_PARTS = {"text": "the text part", "html": "the HTML part", "raw": "the message"}
_ONE_PART = Group("Instead of headers and text", validator=mutually_exclusive)

mail = App(name="mail", help="Mails of each email type: preview.", help_format="plaintext")


@frozen
class Preview:
    """One mail as its reader gets it; a missing part is None."""

    raw: bytes
    message: EmailMessage
    text: str | None
    html: str | None

    def part(self, name: str) -> bytes | None:
        """Return the octets of the part called text, html or raw."""
        if name == "raw":
            return self.raw
        text = self.html if name == "html" else self.text
        return None if text is None else text.encode()


@mail.command(name="preview")
def preview_mail(
    email_type: Annotated[str, Parameter(help="Email type, for example Registration, or one of your own.")],
    /,
    *,
    data: Annotated[
        str | None,
        Parameter(
            help="JSON file with a job or with its data; - for standard input. Default: the sample data of the type.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    html: Annotated[bool, Parameter(negative=(), group=_ONE_PART, help="Print the HTML part.")] = False,
    raw: Annotated[
        bool, Parameter(negative=(), group=_ONE_PART, help="Print the whole message, byte for byte.")
    ] = False,
    output: Annotated[
        Path | None,
        Parameter(help="Write to this file: the HTML part for .html, the message for .eml, else the text part."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Print a mail of one type with sample data: its headers and its text. Sends nothing and needs no Redis."""
    mail_setup = read_mail_setup(load_settings(config))
    samples = samples_of(mail_setup, email_type)
    fields = samples if data is None else _given(_read(data), email_type)
    made = compose(mail_setup, email_type, fields)
    if isinstance(made, Malformed):
        refuse(MISCONFIGURED, *(f"{fault.path.removeprefix('$.data.data.')}: {fault.reason}" for fault in made.faults))
    part = "html" if html else "raw" if raw else ""
    if output is not None:
        return _write(made, part or _PART_OF_SUFFIX.get(output.suffix.lower(), "text"), output)
    if as_json:
        shown = {name: str(made.message[name]) for name in _HEADERS if made.message[name]}
        print_json(Document.PREVIEW, {"email_type": email_type, "headers": shown, "text": made.text, "html": made.html})
    elif part:
        say_octets(_wanted(made, part))
    else:
        _show(made)
    return OK


def compose(mail_setup: MailSetup, email_type: str, fields: Mapping[str, Json]) -> Preview | Malformed:
    """Compose the mail of one job as a worker does, and parse it as its reader does."""
    document = {"task_type": TASK_TYPE, "data": {"email_type": email_type, "data": fields}}
    job = decode(json.dumps(document).encode(), mail_setup.catalogue.types)
    if isinstance(job, Malformed):
        return job
    composed = mail_setup.composer.compose(job, "preview", time.time())
    if isinstance(composed, Malformed):
        return composed
    raw = composed.content(eight_bit=True)
    message = BytesParser(EmailMessage, policy=SMTP).parsebytes(raw)
    return Preview(raw, message, _body(message, "plain"), _body(message, "html"))


def _body(message: EmailMessage, subtype: str) -> str | None:
    found = message.get_body((subtype,))
    return None if found is None else str(found.get_content()).replace("\r\n", "\n")


def samples_of(mail_setup: MailSetup, email_type: str) -> Mapping[str, Json]:
    """Return the data of a sample job of an email type, or exit with 3."""
    if email_type == MESSAGE:
        return MESSAGE_SAMPLE
    spec = mail_setup.catalogue.types.get(email_type)
    if spec is None:
        known = sorted([*mail_setup.catalogue.types, MESSAGE])
        close = nearest(email_type, known, 0.5)
        near = f". Did you mean {close}?" if close else ""
        refuse(NOTHING_MATCHED, f"{email_type}: no such email type{near}", f"Email types: {', '.join(known)}.")
    return {declared.name: declared.sample for declared in spec.fields if declared.sample is not None}


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        refuse(NOTHING_MATCHED, f"{file}: {error.strerror}")


def _given(source: bytes, email_type: str) -> Mapping[str, Json]:
    """Return the data of a mail: the document itself, or the data inside a whole job."""
    fields = read_json(source)
    if isinstance(fields, Malformed):
        refuse(MISCONFIGURED, f"--data: {fields}")
    if isinstance(fields, dict) and "task_type" in fields:
        delivery = fields.get("data")
        if not isinstance(delivery, dict) or delivery.get("email_type") != email_type:
            refuse(MISCONFIGURED, f"--data: is a job of another type than {email_type}")
        fields = delivery.get("data")
    if not isinstance(fields, dict):
        refuse(MISCONFIGURED, "--data: must be an object: the data of a mail, or a whole job")
    return fields


def _wanted(made: Preview, part: str) -> bytes:
    octets = made.part(part)
    if octets is None:
        refuse(NOTHING_MATCHED, f"this mail does not have {_PARTS[part]}")
    return octets


def _write(made: Preview, part: str, output: Path) -> int:
    octets = _wanted(made, part)
    try:
        output.write_bytes(octets)
    except OSError as error:
        refuse(REFUSED, f"{output}: {error.strerror}")
    say(f"{output} written: {_PARTS[part]}, {len(octets):,} bytes")
    return OK


def _show(made: Preview) -> None:
    for name in _HEADERS:
        if made.message[name]:
            say(f"{name + ':':<10}{made.message[name]}")
    for attached in made.message.iter_attachments():
        say(f"{'Attached:':<10}{attached.get_filename() or ''} ({attached.get_content_type()})")
    say("")
    say_text(made.text if made.text is not None else "(no text part)")
    if made.html is not None:
        say(f"HTML part: {len(made.html.encode()):,} bytes. Print it with --html; for a browser: --output FILE.html")
