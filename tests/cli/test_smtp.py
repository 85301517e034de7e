"""``smtp check`` as an operator types it, against the strict catcher over plain and encrypted sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trustme
from attrs import frozen

from tests.support.faults import faults
from tests.support.paths import ROOT
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.server import open_catcher
from trio_worker.capture.server_profile import EXTENSIONS

SECRET = "ann.secret@example.org"
LOGIN = ("mailer@example.com", "correct horse")


@frozen
class Checked:
    """How one check ended."""

    code: int
    out: str
    err: str


Check = Callable[..., Awaitable[Checked]]


@pytest.fixture
def check(work_folder: Path) -> Check:
    """Run the command with some lines of configuration."""

    async def run(
        port: int, *words: str, smtp: str = 'tls = "none"', more: str = "", host: str = "localhost"
    ) -> Checked:
        config = work_folder / "worker.toml"
        config.write_text(f'[smtp]\nhost = "{host}"\nport = {port}\n{smtp}\n{more}\n')
        command = [sys.executable, "-m", "trio_worker", "smtp", "check", "--config", str(config), *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with trio.fail_after(60):
            done = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False, env=environment
            )
        return Checked(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def verbs(catcher: Catcher) -> tuple[str, ...]:
    (said,) = catcher.commands.values()
    return said


async def test_every_step_is_timed_and_nothing_is_sent(check: Check, catcher: Catcher) -> None:
    """One line a step with its milliseconds; the sender is named and taken back."""
    done = await check(catcher.port)

    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["resolve", "connect", "greeting", "EHLO", "MAIL", "RSET"]
    assert all(float(line.split()[1]) >= 0 and line.split()[2] == "ms" for line in lines[1:-1])
    assert lines[-1].endswith("no mail was sent")
    assert verbs(catcher) == ("EHLO", "MAIL", "RSET", "QUIT")
    assert catcher.total == 0


@pytest.mark.parametrize("credentials", ["", "credentials"])
async def test_a_login_without_its_password_is_not_tried(
    check: Check, work_folder: Path, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    """Beside a systemd unit only the unit has it: what is missing is named, and how to pass it; no 535 is earned."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", credentials and str(work_folder))
    async with open_catcher(credentials=LOGIN) as catcher:
        done = await check(catcher.port, smtp=f'tls = "none"\nusername = "{LOGIN[0]}"')
        told = json.loads((await check(catcher.port, "--json", smtp=f'tls = "none"\nusername = "{LOGIN[0]}"')).out)

    assert done.code == 78
    assert "the login was not tried" in done.err
    assert "smtp.password_file" in done.err
    assert "LoadCredential=smtp_password:" in done.err
    assert ("systemd-run --pipe --wait --same-dir" in done.err) is not bool(credentials)
    assert (told["ok"], told["problem"].count("smtp_password") > 0) == (False, True)
    assert set(catcher.commands.values()) == {("EHLO", "QUIT")}


async def test_a_recipient_is_asked_about_and_not_shown(check: Check, catcher: Catcher) -> None:
    """RCPT is said and taken back; the relay that repeats the address is masked."""
    catcher.faults = faults(f"rcpt=550-5.1.1-No_such_{SECRET}")

    done = await check(catcher.port, "--to", SECRET)

    assert done.code == 4
    assert "RCPT was refused: 550 5.1.1" in done.err
    assert SECRET not in done.out + done.err
    assert verbs(catcher) == ("EHLO", "MAIL", "RCPT", "RSET", "QUIT")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_encryption_and_login_are_steps(check: Check, work_folder: Path, tls: str) -> None:
    """The version, the days that the certificate has left, the mechanism and the user, masked."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(work_folder / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    smtp = f'tls = "{tls}"\nca_file = "ca.pem"\nusername = "{LOGIN[0]}"\npassword = "{LOGIN[1]}"'

    async with open_catcher(
        tls=server, implicit_tls=tls == "implicit", credentials=LOGIN, require_auth=True
    ) as catcher:
        done = await check(catcher.port, smtp=smtp)
        document = json.loads((await check(catcher.port, "--json", smtp=smtp)).out)
        wrong = await check(catcher.port, "--json", smtp=smtp.replace("correct", "wrong"))

    assert (done.code, wrong.code) == (0, 77)
    assert "TLSv1.3, certificate until" in done.out
    assert "PLAIN as m…r@example.com" in done.out
    assert LOGIN[1] not in done.out
    assert (document["ok"], document["tls"], document["problem"]) == (True, "TLSv1.3", None)
    assert document["certificate_days"] > 0
    assert sum(step["seconds"] for step in document["steps"]) <= document["seconds"] + 0.001
    refused = json.loads(wrong.out)
    assert (refused["ok"], refused["extensions"]) == (False, [])
    assert refused["problem"].startswith("login at auth: 535")


async def test_nobody_listening_is_unreachable(check: Check) -> None:
    """Exit code 69; a catcher that no process hosts is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        more = f'[capture]\nlisten = "localhost:{port}"\n'

        done = await check(port, more=more)

    assert done.code == 69
    assert "which does not run now" in done.err


@pytest.mark.parametrize(
    ("chaos", "code", "said"),
    [
        ("connect=554", 69, "greeting at greeting: 554"),
        ("ehlo=drop", 69, "eof at ehlo"),
        ("mail=drop", 69, "eof at mail"),
        ("mail=stall", 69, "timeout at mail: no answer within 0.3 s"),
        ("mail=530", 4, "MAIL was refused: 530"),
        ("rset=421", 4, "RSET was refused: 421"),
    ],
)
async def test_a_step_that_fails_is_named(check: Check, catcher: Catcher, chaos: str, code: int, said: str) -> None:
    """With the relay's words where it had some."""
    catcher.faults = faults(chaos)

    done = await check(catcher.port, more="[smtp.timeouts]\ncommand_seconds = 0.3\n")

    assert done.code == code
    assert said in done.err


async def test_an_address_beyond_ascii_needs_the_extension(check: Check) -> None:
    """SMTPUTF8 is asked for where it is offered; else the relay is asked nothing."""
    async with open_catcher() as catcher:
        assert (await check(catcher.port, "--to", "grüße@example.org")).code == 0
        assert catcher.violations == ()
    async with open_catcher(extensions=EXTENSIONS - {"SMTPUTF8"}) as catcher:
        done = await check(catcher.port, "--to", "grüße@example.org")
        assert verbs(catcher) == ("EHLO", "QUIT")

    assert done.code == 4
    assert "does not offer SMTPUTF8" in done.err


@pytest.mark.parametrize(
    ("words", "smtp", "code", "said"),
    [
        (("--to", SECRET), 'tls = "none"\nonly_to = ".*@example[.]com"', 4, "smtp.only_to does not allow"),
        (("--to", "nobody"), 'tls = "none"', 4, "has no @"),
        ((), 'tls = "none"\nca_file = "no.pem"', 78, "smtp.ca_file"),
    ],
)
async def test_what_the_configuration_forbids_is_not_tried(
    check: Check,
    catcher: Catcher,
    words: tuple[str, ...],
    smtp: str,
    code: int,
    said: str,
) -> None:
    """No connection is opened."""
    done = await check(catcher.port, *words, smtp=smtp)

    assert done.code == code
    assert said in done.err
    assert catcher.connections_opened == 0


async def test_the_dev_profile_reaches_no_real_relay(check: Check) -> None:
    """As for `run`: exit code 78, before any name is resolved."""
    done = await check(587, host="smtp.example.com")

    assert (done.code, done.out) == (78, "")
    assert "allow_real_relay" in done.err


async def test_ctrl_c_ends_a_check_that_waits(work_folder: Path, catcher: Catcher) -> None:
    """At once, with 130, though the relay never answers."""
    catcher.faults = faults("ehlo=stall")
    (work_folder / "worker.toml").write_text(f'[smtp]\nport = {catcher.port}\ntls = "none"\n')
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_worker", "smtp", "check", "--config", "worker.toml"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with trio.fail_after(60):
        await catcher.wait_until(lambda: ("EHLO",) in catcher.commands.values())
        process.send_signal(signal.SIGINT)

        assert await process.wait() == 130
