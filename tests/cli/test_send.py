"""``send`` as a person types it: one mail over a real socket, without a queue."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from attrs import frozen

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from trio_worker.capture.server import open_catcher

SECRET = "ann.secret@example.org"


@frozen
class Sent:
    """How one ended."""

    code: int
    out: str
    err: str


Send = Callable[..., Awaitable[Sent]]


@pytest.fixture
def send(work_folder: Path) -> Send:
    """Run the command on a job, with some lines of configuration."""

    async def run(port: int, job: bytes, *words: str, smtp: str = "") -> Sent:
        config = work_folder / "worker.toml"
        relay = f'host = "127.0.0.1"\nport = {port}\ntls = "none"\n{smtp}\n'
        config.write_text(f'[redis]\nurl = "redis://127.0.0.1:1"\n[smtp]\n{relay}')
        command = [sys.executable, "-m", "trio_worker", "send", "--config", str(config), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with trio.fail_after(60):
            done = await trio.run_process(
                command,
                stdin=job,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=environment,
                cwd=work_folder,
            )
        return Sent(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def message_id(content: bytes) -> str:
    return content.partition(b"Message-ID: ")[2].partition(b"\r\n")[0].decode()


async def test_mail_is_sent_without_a_queue(send: Send, work_folder: Path) -> None:
    """It arrives once, Redis is not asked, the log says who did it, and no address is shown."""
    async with open_catcher() as catcher:
        sent = await send(catcher.port, job_bytes(1, SECRET) + b"\n")
        mails = catcher.mails

    assert sent.code == 0, sent
    assert sent.out.startswith("sent: 250")
    (mail,) = mails
    assert mail.recipients == (SECRET,)
    assert message_id(mail.content) in sent.out
    log = (work_folder / "logs" / "worker.log").read_text()
    assert "Sends by hand" in log
    assert SECRET not in sent.out + sent.err + log


async def test_refused_recipient_is_named_masked(send: Send) -> None:
    """A refusal is exit code 4, with the relay's words; an address in them is masked."""
    async with open_catcher(faults=faults("rcpt=550")) as catcher:
        sent = await send(catcher.port, job_bytes(1, SECRET), "--json")

    document = json.loads(sent.out)
    assert sent.code == 4
    assert document["outcome"] == "refused"
    assert document["why"].startswith("550")
    assert [each["recipient"] for each in document["refused"]] == ["a…t@example.org"]


async def test_partly_refused_mail_is_partly_done(send: Send) -> None:
    """The refused ones of several recipients are printed; exit code 5."""
    job = json.loads(job_bytes(1))
    job["data"] = {
        "email_type": "Message",
        "data": {"to": ["ann@example.org", "bob@example.org"], "subject": "x", "text": "y"},
    }
    async with open_catcher(faults=faults("rcpt=550:every2")) as catcher:
        sent = await send(catcher.port, json.dumps(job).encode())
        mails = catcher.mails

    assert sent.code == 5, sent
    assert [len(mail.recipients) for mail in mails] == [1]
    assert "refused " in sent.out


async def test_recipient_that_the_relay_cannot_serve_is_named_masked(send: Send) -> None:
    """The others have the mail; exit code 5."""
    job = json.loads(job_bytes(1))
    job["data"] = {
        "email_type": "Message",
        "data": {"to": ["ann@exämple.org", "änne@example.org"], "subject": "x", "text": "y"},
    }
    async with open_catcher() as catcher:
        sent = await send(catcher.port, json.dumps(job).encode(), smtp='ignore_ehlo = ["SMTPUTF8"]')
        mails = catcher.mails

    assert sent.code == 5, sent
    assert [mail.recipients for mail in mails] == [("ann@xn--exmple-cua.org",)]
    assert "refused ä…@example.org: not ASCII before the @, and the relay does not offer SMTPUTF8" in sent.out


async def test_relay_that_is_gone_or_leaves_is_unreachable(send: Send) -> None:
    """Nobody listens, or the relay closes before the message: nothing was sent, exit code 69."""
    gone = await send(unused_port(), job_bytes(1))
    async with open_catcher(faults=faults("mail=421")) as catcher:
        closed = await send(catcher.port, job_bytes(1))

    assert (gone.code, closed.code) == (69, 69)
    assert "not sent: " in gone.out
    assert "not sent: closing at mail" in closed.out


async def test_lost_answer_is_called_uncertain(send: Send) -> None:
    """All was sent and no answer came: it may have been delivered, exit code 75."""
    async with open_catcher(faults=faults("final=drop")) as catcher:
        sent = await send(catcher.port, job_bytes(1))

    assert sent.code == 75, sent
    assert "may have been delivered" in sent.out


async def test_signal_ends_the_wait_for_an_answer(work_folder: Path) -> None:
    """Ctrl-C while the relay is silent ends the command, which prints that the mail may have been delivered."""
    async with open_catcher(faults=faults("final=stall")) as catcher:
        config = work_folder / "worker.toml"
        config.write_text(f'[smtp]\nhost = "127.0.0.1"\nport = {catcher.port}\ntls = "none"\n')
        (work_folder / "job").write_bytes(job_bytes(1))
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_worker", "send", "job", "--config", str(config)],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=work_folder,
        )
        with trio.move_on_after(20) as waiting:
            await catcher.wait_until(lambda: any("BDAT" in verbs for verbs in catcher.commands.values()))
            process.send_signal(signal.SIGTERM)
            await process.wait()
        process.kill()
        await process.wait()
        assert process.stderr is not None
        said = b"".join([part async for part in process.stderr]).decode()

    assert not waiting.cancelled_caught
    assert process.returncode == 143
    assert "uncertain: it may have been delivered" in said
    assert "Message-ID <" in said


async def test_what_no_worker_would_send_is_not_sent(send: Send) -> None:
    """A faulty job, one before or past its time, one that smtp.only_to forbids, and two at once."""
    async with open_catcher() as catcher:
        later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        refused = [
            await send(catcher.port, job_bytes(1, "no address")),
            await send(catcher.port, job_bytes(1, not_before=later)),
            await send(catcher.port, job_bytes(1, expires_at="2020-01-01T00:00:00Z")),
            await send(catcher.port, job_bytes(1), smtp='only_to = ".*@example.net"'),
        ]
        many = await send(catcher.port, job_bytes(1) + b"\n" + job_bytes(2))
        mails = catcher.mails

    assert [each.code for each in refused] == [4, 4, 4, 4]
    assert "email" in refused[0].err
    assert "not_before: the mail is due in" in refused[1].err
    assert "expired" in refused[2].err
    assert "smtp.only_to" in refused[3].err
    assert many.code == 2
    assert "has 2 jobs" in many.err
    assert not mails
