"""``smtp check`` as an operator types it, against the strict catcher over plain and encrypted sockets."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from trio_worker.capture import EXTENSIONS, Catcher, Faults, open_catcher, parse_faults
from trio_worker.cli import app

SECRET = "ann.secret@example.org"
LOGIN = ("mailer@example.com", "correct horse")
Check = Callable[..., Awaitable[int]]


@pytest.fixture
def check(work_folder: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command with some lines of configuration, in a thread: it has a trio run of its own."""

    async def run(port: int, *words: str, smtp: str = 'tls = "none"', more: str = "") -> int:
        config = work_folder / "worker.toml"
        config.write_text(f'[smtp]\nhost = "localhost"\nport = {port}\n{smtp}\n{more}\n')
        call = partial(app, ["smtp", "check", "--config", str(config), *words], exit_on_error=True)
        with trio.fail_after(30):
            try:
                return int(await trio.to_thread.run_sync(call))
            except SystemExit as ended:
                return int(ended.code or 0)

    return run


def faults(text: str) -> Faults:
    parsed = parse_faults(text)
    assert isinstance(parsed, Faults)
    return parsed


def verbs(catcher: Catcher) -> tuple[str, ...]:
    (said,) = catcher.commands.values()
    return said


async def test_every_step_is_timed_and_nothing_is_sent(
    check: Check, catcher: Catcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a step with its milliseconds; the sender is named and taken back."""
    assert await check(catcher.port) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["resolve", "connect", "greeting", "EHLO", "MAIL", "RSET"]
    assert all(float(line.split()[1]) >= 0 and line.split()[2] == "ms" for line in lines[1:-1])
    assert lines[-1].endswith("nothing was sent")
    assert verbs(catcher) == ("EHLO", "MAIL", "RSET", "QUIT")
    assert catcher.total == 0


async def test_a_recipient_is_asked_about_and_not_shown(
    check: Check, catcher: Catcher, capsys: pytest.CaptureFixture[str]
) -> None:
    """RCPT is said and taken back; the relay that repeats the address is masked."""
    catcher.faults = faults(f"rcpt=550-5.1.1-No_such_{SECRET}")

    assert await check(catcher.port, "--to", SECRET) == 4

    captured = capsys.readouterr()
    assert "RCPT was refused: 550 5.1.1" in captured.err
    assert SECRET not in captured.out + captured.err
    assert verbs(catcher) == ("EHLO", "MAIL", "RCPT", "RSET", "QUIT")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_encryption_and_login_are_steps(
    check: Check, work_folder: Path, capsys: pytest.CaptureFixture[str], tls: str
) -> None:
    """The version, the days that the certificate has left, the mechanism and the user, masked."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(work_folder / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    smtp = f'tls = "{tls}"\nca_file = "ca.pem"\nusername = "{LOGIN[0]}"\npassword = "{LOGIN[1]}"'

    async with open_catcher(
        tls=server, implicit_tls=tls == "implicit", credentials=LOGIN, require_auth=True
    ) as catcher:
        assert await check(catcher.port, smtp=smtp) == 0
        printed = capsys.readouterr().out
        assert await check(catcher.port, "--json", smtp=smtp) == 0
        document = json.loads(capsys.readouterr().out)
        assert await check(catcher.port, "--json", smtp=smtp.replace("correct", "wrong")) == 77
        refused = json.loads(capsys.readouterr().out)

    assert "TLSv1.3, certificate until" in printed
    assert "PLAIN as m…r@example.com" in printed
    assert LOGIN[1] not in printed
    assert (document["ok"], document["tls"], document["problem"]) == (True, "TLSv1.3", None)
    assert document["certificate_days"] > 0
    assert sum(step["seconds"] for step in document["steps"]) <= document["seconds"] + 0.001
    assert (refused["ok"], refused["extensions"]) == (False, [])
    assert refused["problem"].startswith("login at auth: 535")


async def test_nobody_listening_is_unreachable(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 69; a catcher that nobody hosts is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        more = f'[capture]\nlisten = "localhost:{port}"\n'

        assert await check(port, more=more) == 69

    assert "which nobody hosts now" in capsys.readouterr().err


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
async def test_a_step_that_fails_is_named(
    check: Check, catcher: Catcher, capsys: pytest.CaptureFixture[str], chaos: str, code: int, said: str
) -> None:
    """With the relay's words where it had some."""
    catcher.faults = faults(chaos)

    assert await check(catcher.port, more="[smtp.timeouts]\ncommand_seconds = 0.3\n") == code
    assert said in capsys.readouterr().err


async def test_an_address_beyond_ascii_needs_the_extension(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """SMTPUTF8 is asked for where it is offered; else the relay is asked nothing."""
    async with open_catcher() as catcher:
        assert await check(catcher.port, "--to", "grüße@example.org") == 0
        assert catcher.violations == ()
    async with open_catcher(extensions=EXTENSIONS - {"SMTPUTF8"}) as catcher:
        assert await check(catcher.port, "--to", "grüße@example.org") == 4
        assert verbs(catcher) == ("EHLO", "QUIT")
    assert "does not offer SMTPUTF8" in capsys.readouterr().err


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
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    smtp: str,
    code: int,
    said: str,
) -> None:
    """No connection is opened."""
    assert await check(catcher.port, *words, smtp=smtp) == code

    assert said in capsys.readouterr().err
    assert catcher.connections_opened == 0


async def test_the_dev_profile_reaches_no_real_relay(
    check: Check, work_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for `run`: exit code 78, before any name is resolved."""
    (work_folder / "real.toml").write_text('[smtp]\nhost = "smtp.example.com"\n')
    call = partial(app, ["smtp", "check", "--config", "real.toml"], exit_on_error=True)

    with pytest.raises(SystemExit) as ended:
        await trio.to_thread.run_sync(call)

    assert ended.value.code == 78
    assert "allow_real_relay" in capsys.readouterr().err
