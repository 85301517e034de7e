"""Real mail servers as relays, each with the settings it comes with: what they take, and what they keep of it."""

from __future__ import annotations

import json
import random
import smtplib
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from email.parser import BytesParser
from email.policy import default as default_policy
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import trio

from tests.support.servers.courier import open_courier
from tests.support.servers.dovecot import open_dovecot
from tests.support.servers.haraka import open_haraka
from tests.support.servers.opensmtpd import open_opensmtpd
from tests.support.servers.running import Kept, Running
from tests.support.servers.sendmail import open_sendmail
from tests.support.servers.smtp_server import open_smtp_server
from tests.support.workers import WorkerMaker
from trio_worker.jobs.email_type import Catalogue
from trio_worker.jobs.job import Job, decode
from trio_worker.mail.composer import Composer, Mail
from trio_worker.smtp.options import PoolOptions, RelayOptions, Timeouts
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.worker.events import BreakerChanged
from trio_worker.worker.phase import Disposition

pytestmark = pytest.mark.slow

JOBS = 300
OPENERS: dict[str, Callable[[Path, Path], AbstractContextManager[Running]]] = {
    "smtp-server": open_smtp_server,
    "haraka": open_haraka,
    "sendmail": open_sendmail,
    "opensmtpd": open_opensmtpd,
    "dovecot": open_dovecot,
    "courier": open_courier,
}
# What of EHLO is ignored so that a server that offers all is used in this mode.
IGNORED = {"chunked": (), "pipelined": ("CHUNKING",), "one at a time": ("CHUNKING", "PIPELINING")}
# The modes that each server offers.
MODES = {
    "smtp-server": ["pipelined", "one at a time"],
    "haraka": ["pipelined", "one at a time"],
    "sendmail": ["pipelined", "one at a time"],
    "opensmtpd": ["one at a time"],
    "dovecot": ["chunked", "pipelined", "one at a time"],
    "courier": ["pipelined", "one at a time"],
}
# What does not hold yet, by server, mode and depth.
KNOWN = {
    ("dovecot", "pipelined", 64): "Dovecot 2.3.19 breaks the connection when a RCPT came before its reply to the dot",
}
CASES = [(name, mode, depth) for name, modes in MODES.items() for mode in modes for depth in (1, 64)]
_MARKED = [
    pytest.param(
        *case, marks=[pytest.mark.xfail(reason=KNOWN[case])] if case in KNOWN else [], id="-".join(map(str, case))
    )
    for case in CASES
]


@pytest.fixture
def start_server(servers_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """Start a server of others by its name; all are ended in the end."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(OPENERS[name](servers_folder, tmp_path_factory.mktemp(name)))


def recipient_of(number: int) -> str:
    return f"user{number}@example.com"


def message_job(number: int) -> bytes:
    """A mail of one of the kinds that relays have broken: dots, eight bits, no final line end, long, attachments."""
    text = (
        f"plain {number}",
        ".\n..\n.dot\nend\n.",
        "Grüße, 你好, ё\n.ü\n",
        f"first {number}\n" + "\n" * 5 + "last\n\n\n",
        "x" * 900 + "\n" + "é" * 3000 + "\n",
        "".join(f".line {line} of a larger text, ñ\n" for line in range(3000)),
    )[number % 6]
    octets = random.Random(number).randbytes(20_000)
    attachments = [{"name": "a.bin", "type": "application/octet-stream", "base64": octets.hex()}]
    message = {"to": recipient_of(number), "subject": f"Größe {number}", "text": text}
    if number % 7 == 0:
        message["attachments"] = attachments  # type: ignore[assignment]  # 40,000 letters, a valid base64
    return json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": message}}).encode()


def modes_of(server: Running) -> list[str]:
    """The modes that a server offers in its EHLO reply."""
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        if server.tls == "starttls":
            client.starttls(context=ssl.create_default_context(cafile=server.ca_file))
        client.ehlo()
        is_pipelined, is_chunked = client.has_extn("pipelining"), client.has_extn("chunking")
    return ["chunked"] * (is_pipelined and is_chunked) + ["pipelined"] * is_pipelined + ["one at a time"]


def relay_of(server: Running, ignored: tuple[str, ...]) -> Relay:
    options = RelayOptions(
        host="127.0.0.1",
        port=server.port,
        tls=server.tls,
        ca_file=server.ca_file,
        username=server.username,
        password=server.password,
        ignore_ehlo=ignored,
        ehlo_name="client.example.org",
    )
    return Relay(options, Timeouts(), tls_context(options))


def head_and_body(octets: bytes) -> tuple[dict[str, str], bytes]:
    """The header fields, unfolded, by their names in small letters, and the body as it is."""
    head, _, body = octets.partition(b"\r\n\r\n")
    lines = head.decode().replace("\r\n ", " ").replace("\r\n\t", "\t").split("\r\n")
    return {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}, body


def parts(octets: bytes) -> list[tuple[str, str | None, bytes]]:
    """The parts that a reader sees: type, file name, and content with LF line ends where it is text."""
    message = BytesParser(policy=default_policy).parsebytes(octets)
    return [
        (part.get_content_type(), part.get_filename(), bytes(part.get_payload(decode=True)).replace(b"\r\n", b"\n"))
        for part in message.walk()
        if not part.is_multipart()
    ]


def wait_until_kept(server: Running) -> None:
    """Some servers hand a mail on after they have accepted it, and no event says so."""
    end = time.monotonic() + 30
    while len(server.kept()) < JOBS and time.monotonic() < end:
        time.sleep(0.1)


def check_kept(kept: list[Kept], composer: Composer, catalogue: Catalogue, *, is_rewritten: bool) -> None:
    """Each mail once, its body byte for byte as composed, and none of our header fields lost or changed.

    ``is_rewritten`` says that the server writes the MIME parts anew: then each part has the same content.
    """
    assert Counter(each.recipient for each in kept) == Counter(map(recipient_of, range(JOBS)))
    for each in kept:
        fields, body = head_and_body(each.octets)
        number = int(each.recipient.removeprefix("user").partition("@")[0])
        job = decode(message_job(number), catalogue.types)
        assert isinstance(job, Job)
        job_id = fields["message-id"].strip("<>").partition("@")[0]
        mail = composer.compose(job, job_id, parsedate_to_datetime(fields["date"]).timestamp())
        assert isinstance(mail, Mail)
        sent = mail.content(eight_bit=True), mail.content(eight_bit=False)
        if is_rewritten and "multipart" in fields["content-type"]:
            assert parts(each.octets) == parts(sent[0]), number
            continue
        expected = [head_and_body(content) for content in sent]
        assert body in [expected_body for _, expected_body in expected], number
        assert any(fields | ours == fields for ours, _ in expected), number


@pytest.mark.parametrize(("name", "mode", "depth"), _MARKED)
async def test_each_mail_arrives_once_and_unchanged(
    start_server: Callable[[str], Running], workers: WorkerMaker, name: str, mode: str, depth: int
) -> None:
    """In every mode that the server offers, one message on a connection and many; nothing is uncertain or waits."""
    server = await trio.to_thread.run_sync(start_server, name)
    assert await trio.to_thread.run_sync(modes_of, server) == MODES[name]
    await workers.push(*map(message_job, range(JOBS)))
    pool = PoolOptions(max_size=3, pipeline_depth=depth)
    relay = relay_of(server, IGNORED[mode])
    reporter = workers.make(workers.options(server.port, relay=relay, pool=pool, number_workers=6))
    with trio.fail_after(120):
        assert await reporter.run() == 0

    ledger = reporter.board.ledger
    assert ledger.balances
    causes = {str(job.cause) for job in workers.jobs if job.cause is not None}
    assert ledger.uncertain == 0, causes
    assert ledger.settled[Disposition.SENT] == JOBS
    assert set(ledger.settled) <= {Disposition.SENT, Disposition.RELEASED}, causes
    assert [event for event in workers.events if isinstance(event, BreakerChanged)] == []
    await trio.to_thread.run_sync(wait_until_kept, server)
    check_kept(server.kept(), workers.composer, workers.catalogue, is_rewritten=name == "courier")
