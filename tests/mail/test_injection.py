"""No field of a job becomes a command, a header or a second message, shown against the strict catcher byte by byte."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from typing import Any

import pytest
from attrs import evolve

from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.capture.store import MemoryStore
from trio_worker.settings.reader import Settings
from trio_worker.smtp.options import RelayOptions
from trio_worker.worker.phase import Disposition

EVIL = "evil@attacker.example"
COMMANDS = f"MAIL FROM:<{EVIL}>{{0}}RCPT TO:<{EVIL}>{{0}}DATA{{0}}From: {EVIL}{{0}}{{0}}smuggled{{0}}.{{0}}"
# Each way in which some server or other has taken a line, or a message, to end.
ENDINGS = (
    "\r\n.\r\n",
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r\n.\r",
    "\r.\r\n",
    "\r\n\x00.\r\n",
    "\u2028.\u2028",
    "\x85.\x85",
)
SMUGGLED = [ending + COMMANDS.format(ending.replace(".", "")[:2] or "\n") for ending in ENDINGS]
HEADERS = [
    f"x\r\nBcc: {EVIL}",
    f"x\nBcc: {EVIL}",
    f"x\rBcc: {EVIL}",
    f"x\r\n\r\nBcc: {EVIL}",
    f"x\x0bBcc: {EVIL}",
    f"x\u2028Bcc: {EVIL}",
]
BRACKETS = [
    f"<{EVIL}>",
    f"a@example.com>\r\nRCPT TO:<{EVIL}",
    f"a@example.com, {EVIL}",
    f"a@example.com> SIZE=1 <{EVIL}",
    "a@example.com\x00",
]
PIECES = [*SMUGGLED, *HEADERS, *BRACKETS]

TEMPLATED: dict[str, Any] = {"email": "a@example.com", "username": "ann", "token": "secret"}
MESSAGE: dict[str, Any] = {"to": ["a@example.com"], "subject": "s", "text": "t", "html": "<p>t</p>"}


def job(email_type: str, payload: dict[str, Any]) -> bytes:
    return json.dumps({"task_type": "Email", "data": {"email_type": email_type, "data": payload}}).encode()


def all_jobs() -> list[bytes]:
    """Every piece in every field of a templated type and of a message."""
    jobs = []
    for piece in PIECES:
        jobs += [job("Registration", {**TEMPLATED, key: piece}) for key in TEMPLATED]
        jobs += [job("Registration", {**TEMPLATED, key: TEMPLATED[key] + piece}) for key in TEMPLATED]
        jobs += [job("Message", {**MESSAGE, key: [piece] if key == "to" else piece}) for key in MESSAGE]
        jobs += [
            job("Message", {**MESSAGE, "to": [f'"{piece}" <a@example.com>']}),
            job("Message", {**MESSAGE, "to": [f"{piece} <a@example.com>"]}),
            job("Message", {**MESSAGE, "reply_to": piece}),
            job("Message", {**MESSAGE, "headers": {"X-Tag": piece}}),
            job("Message", {**MESSAGE, "headers": {f"X-Tag: y\r\n{piece}": "v"}}),
            job("Message", {**MESSAGE, "headers": {piece: "v"}}),
            job("Message", {**MESSAGE, "attachments": [{"name": piece, "type": "text/plain", "base64": "aGk="}]}),
            job(
                "Message",
                {**MESSAGE, "attachments": [{"name": "a.txt", "type": f"text/plain{piece}", "base64": "aGk="}]},
            ),
            job("Message", {**MESSAGE, "attachments": [{"name": "a.txt", "type": "text/plain", "base64": piece}]}),
        ]
    return jobs


@pytest.mark.case("C31", "C32", "C28")
@pytest.mark.parametrize("ignored", [(), ("CHUNKING",), ("CHUNKING", "PIPELINING")])
async def test_no_field_becomes_a_command_a_header_or_a_second_message(
    workers: WorkerMaker, ignored: tuple[str, ...]
) -> None:
    """Each job is one mail to whom it names, or a dead letter; the strict relay sees no rule broken."""
    jobs = all_jobs()
    async with open_catcher(store=MemoryStore(max_mails=10_000)) as relay:
        await workers.push(*jobs)
        options = workers.options(relay.port)
        reporter = workers.make(
            evolve(options, relay=evolve(options.relay, options=_ignoring(options.relay.options, ignored)))
        )
        assert await reporter.run() == 0

        ledger = reporter.board.ledger
        sent, dead = ledger.settled[Disposition.SENT], ledger.settled[Disposition.DEAD]
        assert sent + dead == ledger.claimed == len(jobs)
        assert relay.total == sent > len(PIECES)
        assert relay.violations == ()
        _assert_as_meant(relay)


def _ignoring(options: RelayOptions, ignored: tuple[str, ...]) -> RelayOptions:
    return evolve(options, ignore_ehlo=ignored)


def _assert_as_meant(relay: Catcher) -> None:
    sender = Settings().mail.sender
    for mail in relay.mails:
        # A message may name the attacker as its only recipient; no other recipient is ever added.
        assert len(mail.recipients) == 1
        assert mail.sender in sender
        assert b"\r" not in mail.content.replace(b"\r\n", b"")
        assert b"\n" not in mail.content.replace(b"\r\n", b"")
        assert b"\x00" not in mail.content
        headers = message_from_bytes(mail.content, policy=policy.default).keys()
        assert not {"Bcc", "RCPT TO", "MAIL FROM"} & set(headers)
        once = ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type")
        assert all(headers.count(name) == 1 for name in once)
