"""Libraries of other languages read our messages as their producers meant them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default as default_policy
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers.debian import debian_image, run_in_layers
from tests.support.servers.npm import npm_packages
from trio_worker.jobs.email_type import Catalogue
from trio_worker.jobs.job import Job, decode
from trio_worker.mail.composer import Composer, Mail

pytestmark = pytest.mark.slow

_SCRIPTS = Path(__file__).parent.parent / "support" / "servers"
CALENDAR = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
LONG_URL = "https://example.com/unsubscribe?" + "&".join(f"part{number}=~=?x?q?{number}" for number in range(40))


def _file(name: str, media_type: str, octets: bytes, line_end: str = "", **more: str) -> dict[str, str]:
    """With base64 as encoders write it: with a line end after each 76 characters, the last one too, or without any."""
    letters = base64.b64encode(octets).decode()
    lines = [letters[at : at + 76] for at in range(0, len(letters), 76)] if line_end else [letters]
    return {"name": name, "type": media_type, "base64": "".join(f"{line}{line_end}" for line in lines), **more}


MESSAGES: dict[str, dict[str, Any]] = {
    "names": {
        "to": ["Zoë Müller <zoe@example.org>", '"Doe, J. \\"JD\\"" <doe@example.org>', "plain@example.org"],
        "cc": ["山田太郎 <yamada@example.org>", '"O\'Neil (Sales)" <o@example.org>'],
        "reply_to": "Ünïcode Desk with a name that is long enough for two words <desk@example.org>",
        "subject": "Größe: 10 € für «Zoë» 🎉 " + "and a subject that goes on over some lines " * 4,
        "text": "Grüße\n.\n..dots\nFrom here\n",
        "headers": {
            "Errors-To": "Büro <errors@example.org>",
            "X-Note": "Grüße aus Köln " * 20,
            "X-Short": "plain words",
        },
    },
    "long headers": {
        "to": "a@example.org",
        "subject": "ids and URLs",
        "text": "x\n",
        "html": "<p>x</p>\n",
        "headers": {
            "References": " ".join(f"<{number}.{'x' * 60}@example.org>" for number in range(40)),
            "List-Unsubscribe": f"<{LONG_URL}>",
            "X-SMTPAPI": json.dumps({"category": ["a=?b?="], "unique_args": {"id": "x" * 300, "more": "y " * 300}}),
            "X-Header-With-A-Name-That-Takes-Most-Of-Its-First-Line": "Ünïcode " * 12,
        },
    },
    "attachments": {
        "to": "a@example.org",
        "subject": "files",
        "text": "see them\n",
        "attachments": [
            _file("crlf.bin", "application/octet-stream", bytes(range(256)) * 9, "\r\n"),
            _file("lf.bin", "application/octet-stream", bytes(range(256)) * 7, "\n"),
            _file("none.bin", "application/octet-stream", b"\0\r\n.\r\n\xff" * 50),
            _file("table.csv", "text/csv; charset=utf-8; header=present", "é;ü\r\n".encode()),
            _file("Über größe.pdf", "application/pdf", b"%PDF-1.7\n"),
            _file(
                f"a file with a long name, ä, {'x' * 90}.txt",
                "text/x-log; charset=utf-8",
                b"t\r\n",
            ),
        ],
    },
    "invitation": {
        "to": "Ann <ann@example.org>",
        "subject": "Invitation",
        "text": "Please come.\n",
        "html": "<p>Please come.</p>\n",
        "attachments": [
            _file("invite.ics", "text/calendar; method=REQUEST; charset=utf-8", CALENDAR.encode()),
        ],
    },
    "inline images": {
        "to": "Ann <ann@example.org>",
        "subject": "Pictures",
        "text": "Two pictures.\n",
        "html": '<img src="cid:logo"><p>Zoë</p><img src="cid:photo.1@example.com">\n',
        "attachments": [
            _file("logo.png", "image/png", b"\x89PNG\r\n\x1a\n" * 30, cid="logo"),
            _file("photo.jpg", "image/jpeg", b"\xff\xd8\xff" * 90, cid="photo.1@example.com"),
            _file("terms.txt", "text/plain; charset=us-ascii", b"none\r\n"),
        ],
    },
}
HEADERS = sorted({name.lower() for message in MESSAGES.values() for name in message.get("headers", {})})
Read = Callable[[Path], list[dict[str, Any]]]


def read_with_python(folder: Path) -> list[dict[str, Any]]:
    """Read with email of the standard library."""

    def mailboxes(message: EmailMessage, name: str) -> list[list[str]]:
        field = message[name]
        # This library keeps the space between two encoded-words, but only in names (RFC 2047, 6.2, drops it).
        names = [] if field is None else [each.display_name.replace("  ", " ") for each in field.addresses]
        return [[name, each.addr_spec] for name, each in zip(names, field.addresses, strict=True)] if names else []

    def document(path: Path) -> dict[str, Any]:
        message = BytesParser(policy=default_policy).parsebytes(path.read_bytes())
        assert isinstance(message, EmailMessage)
        bodies = [message.get_body((kind,)) for kind in ("plain", "html")]
        texts = [None if body is None else body.get_content() for body in bodies]
        leaves = [part for part in message.walk() if not part.is_multipart() and part not in bodies]
        return {
            "subject": message["subject"],
            **{name: mailboxes(message, name.replace("_", "-")) for name in ("from", "to", "cc", "reply_to")},
            "text": texts[0],
            "html": texts[1],
            "headers": {name: message[name] for name in HEADERS},
            "attachments": [
                {
                    "name": part.get_filename(),
                    "type": part.get_content_type(),
                    "parameters": dict(part["content-type"].params),
                    "cid": part["content-id"] and part["content-id"].strip("<>"),
                    "base64": base64.b64encode(bytes(part.get_payload(decode=True))).decode(),
                }
                for part in leaves
            ],
        }

    return [document(path) for path in sorted(folder.iterdir())]


@pytest.fixture(params=["email of Python", "mailparser of Node.js", "mail of Ruby"])
def read(request: pytest.FixtureRequest, servers_folder: Path, tmp_path: Path) -> Read:
    """Each of the readers: from a folder of mails to what it reads in each, in the order of their names."""
    if request.param == "email of Python":
        return read_with_python
    if request.param == "mailparser of Node.js":
        environment = {"NODE_PATH": str(npm_packages(servers_folder, "mailparser@3.14.2")), "PATH": os.environ["PATH"]}

        def read_with_node(folder: Path) -> list[dict[str, Any]]:
            command = ["node", str(_SCRIPTS / "read_mails.js"), str(folder), *HEADERS]
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            return list(json.loads(done.stdout))

        return read_with_node
    image = debian_image(servers_folder, "ruby", "ruby-mail")

    def read_with_ruby(folder: Path) -> list[dict[str, Any]]:
        files = {f"/mails/{path.name}": path.read_bytes() for path in folder.iterdir()}
        files["/read.rb"] = (_SCRIPTS / "read_mails.rb").read_bytes()
        work = tmp_path / "layers"
        work.mkdir()
        script = f"LANG=C.UTF-8 ruby /read.rb /mails {' '.join(HEADERS)}"
        return list(json.loads(run_in_layers(image, work, files, script)))

    return read_with_ruby


def meant(message: dict[str, Any]) -> dict[str, Any]:
    """What a reader must find, in the form of the readers."""

    def mailboxes(value: str | list[str] | None) -> list[list[str]]:
        found = []
        for text in [value] if isinstance(value, str) else value or []:
            name, _, address = text.rpartition(" ")
            is_quoted = name.startswith('"')
            found.append([name[1:-1].replace('\\"', '"') if is_quoted else name, address.strip("<>")])
        return found

    def attachments(given: dict[str, str]) -> list[dict[str, Any]]:
        essence, *parameters = [word.strip() for word in given["type"].split(";")]
        as_file = {
            "name": given["name"],
            "type": essence,
            "parameters": dict(parameter.split("=") for parameter in parameters),
            "cid": given.get("cid"),
            "base64": base64.b64encode(base64.b64decode(given["base64"])).decode(),
        }
        # An invitation is an alternative of the text too, which has no name.
        return [as_file, {**as_file, "name": None}] if essence == "text/calendar" else [as_file]

    return {
        "subject": message["subject"].strip(),
        "from": [["DimDim Health", "no-reply@example.com"]],
        **{name: mailboxes(message.get(name)) for name in ("to", "cc", "reply_to")},
        "text": message.get("text"),
        "html": message.get("html"),
        "headers": {name.lower(): text.strip() for name, text in message.get("headers", {}).items()},
        "attachments": [found for given in message.get("attachments", []) for found in attachments(given)],
    }


def normal(document: dict[str, Any]) -> dict[str, Any]:
    """Without what readers differ in: line ends at the end of a text, and the order of headers and attachments."""
    texts = {
        name: None if document[name] is None else document[name].replace("\r\n", "\n").rstrip("\n")
        for name in ("text", "html")
    }
    attachments = sorted(document["attachments"], key=lambda each: str(each["name"]))
    headers = {name: text.strip() for name, text in document["headers"].items() if text is not None}
    return {**document, **texts, "headers": headers, "attachments": attachments}


def flat(value: Any, path: str = "$") -> dict[str, Any]:
    """The values of a document by their paths."""
    if not value or not isinstance(value, dict | list):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for key, item in items for name, leaf in flat(item, f"{path}.{key}").items()}


@pytest.mark.parametrize("eight_bit", [True, False])
def test_a_message_is_read_as_it_was_meant(
    read: Read, composer: Composer, catalogue: Catalogue, tmp_path: Path, *, eight_bit: bool
) -> None:
    """Names, subjects, texts, headers, and of attachments the name, type with parameters, id and bytes."""
    folder = tmp_path / "mails"
    folder.mkdir()
    for number, message in enumerate(MESSAGES.values()):
        document = {"task_type": "Email", "data": {"email_type": "Message", "data": message}}
        job = decode(json.dumps(document).encode(), catalogue.types)
        assert isinstance(job, Job), job
        mail = composer.compose(job, "job1", 1_790_000_000.0)
        assert isinstance(mail, Mail)
        (folder / f"{number}.eml").write_bytes(mail.content(eight_bit=eight_bit))

    for found, (name, message) in zip(read(folder), MESSAGES.items(), strict=True):
        read_as, wanted = flat(normal(found)), flat(normal(meant(message)))
        assert {path: value for path, value in read_as.items() if wanted.get(path) != value} == {}, name
        assert read_as.keys() == wanted.keys(), name
