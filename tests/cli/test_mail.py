"""``mail preview`` as the author of a template types it: no Redis, no relay."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.paths import ROOT
from trio_worker.cli.command_line import app
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue

Run = Callable[..., int]


@pytest.fixture
def run(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command in a folder with an empty configuration, and return its exit code."""
    (work_folder / "worker.toml").touch()
    monkeypatch.setenv("TRIO_WORKER_CONFIG", "worker.toml")

    def command(*words: str) -> int:
        try:
            return int(app(list(words), exit_on_error=True))
        except SystemExit as ended:
            return int(ended.code or 0)

    return command


def give(monkeypatch: pytest.MonkeyPatch, document: object) -> None:
    """Put a document on standard input."""
    octets = document if isinstance(document, bytes) else json.dumps(document).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(octets)))


def built_in_types() -> list[str]:
    catalogue = read_catalogue([])
    assert isinstance(catalogue, Catalogue)
    return [*catalogue.types, "Message"]


@pytest.mark.parametrize("email_type", built_in_types())
def test_every_type_is_shown_with_its_samples(run: Run, capsys: pytest.CaptureFixture[str], email_type: str) -> None:
    """Header, text, and how to see the HTML part."""
    assert run("mail", "preview", email_type) == 0

    printed = capsys.readouterr().out
    assert "From:     DimDim Health <no-reply@example.com>" in printed
    assert "ann@example.com" in printed
    assert "--html" in printed


def test_each_part_is_printed_alone(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """--html is a document, --raw a message that a mail reader can open."""
    assert run("mail", "preview", "WeeklyRecap", "--html") == 0
    assert capfdbinary.readouterr().out.startswith(b"<!DOCTYPE html>")

    assert run("mail", "preview", "WeeklyRecap", "--raw") == 0
    raw = capfdbinary.readouterr().out
    assert message_from_bytes(raw)["List-Unsubscribe"] == "<http://localhost:8081/settings/email-preferences>"
    assert b"\r\n" in raw

    assert run("mail", "preview", "WeeklyRecap", "--raw", "--html") == 2


def test_json_holds_header_text_and_html(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """For tests of applications that compare mails."""
    assert run("mail", "preview", "Message", "--json") == 0

    document = json.loads(capsys.readouterr().out)
    assert document["headers"]["Subject"] == "Lunch on Friday"
    assert (document["text"], document["html"]) == ("Shall we say noon?\n", "<p>Shall we say <b>noon</b>?</p>\n")


@pytest.mark.parametrize(("name", "begin"), [("a.html", b"<!DOCTYPE"), ("a.eml", b"Date: "), ("a.txt", b"Hello Ann")])
def test_a_file_gets_the_part_that_its_name_asks_for(run: Run, work_folder: Path, name: str, begin: bytes) -> None:
    """A browser opens the HTML part, a mail reader the message."""
    assert run("mail", "preview", "Registration", "--output", name) == 0

    assert (work_folder / name).read_bytes().lstrip().startswith(begin)


def test_a_file_that_cannot_be_written_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, and exit code 4."""
    assert run("mail", "preview", "Registration", "--output", "no/such/folder.html") == 4
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("is_whole_job", [False, True])
def test_data_of_ones_own_replaces_the_samples(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_whole_job: bool
) -> None:
    """The data alone, or a job as a producer pushes it."""
    fields = {"email": "bo@example.org", "username": "Bo", "token": "a/b"}
    job = {"task_type": "Email", "data": {"email_type": "Registration", "data": fields}}
    give(monkeypatch, job if is_whole_job else fields)

    assert run("mail", "preview", "Registration", "--data", "-") == 0

    printed = capsys.readouterr().out
    assert "Hello Bo" in printed
    assert "token=a%2Fb" in printed


def test_what_the_terminal_cannot_show_is_escaped(work_folder: Path) -> None:
    """A name in a mail does not end the command half way."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_worker", "mail", "preview", "WeeklyRecap", "--data", "-"],
        input=json.dumps({"email": "bo@example.org", "username": "Bö"}).encode(),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "TRIO_WORKER__LOG__FILE": ""},
        cwd=work_folder,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Hello B\\xf6,\n" in done.stdout


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"email": "bo@example.org", "username": "Bo"}, "token: is missing"),
        ({"email": "nobody", "username": "a\u001bb", "token": "t"}, "username: contains a control character"),
        (b"{", "not_json"),
        ([1], "must be an object"),
        ({"task_type": "Email", "data": {"email_type": "Message", "data": {}}}, "of another type than Registration"),
    ],
)
def test_data_that_no_worker_would_take_is_explained(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, document: object, said: str
) -> None:
    """Every fault by the name of its field, exit code 78, nothing printed."""
    give(monkeypatch, document)

    assert run("mail", "preview", "Registration", "--data", "-") == 78

    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_terminal_obeys_nothing_that_a_mail_says(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escape sequences in a text are shown as such."""
    give(monkeypatch, {"to": "a@example.org", "subject": "x", "text": "red \u001b[31m\u009b31m"})

    assert run("mail", "preview", "Message", "--data", "-") == 0
    assert r"red \u001b[31m\u009b31m" in capsys.readouterr().out


def test_a_part_that_a_mail_lacks_is_nothing_that_matches(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, and nothing printed."""
    give(monkeypatch, {"to": "a@example.org", "subject": "x", "text": "hello"})

    assert run("mail", "preview", "Message", "--data", "-", "--html") == 3
    assert "does not have the HTML part" in capsys.readouterr().err


def test_an_unknown_type_names_the_one_that_was_meant(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """And all that there are; exit code 3."""
    assert run("mail", "preview", "registraton") == 3

    said = capsys.readouterr().err
    assert "Did you mean Registration?" in said
    assert "WeeklyRecap" in said


def test_a_type_of_ones_own_is_shown_and_its_faults_are_told(
    run: Run, work_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, three files, no code; a template that fails says where."""
    folder = work_folder / "templates" / "Invitation"
    folder.mkdir(parents=True)
    (folder / "subject.j2").write_text("{{ host }} invites you")
    (folder / "text.j2").write_text("Come on {{ day }}.\n")
    entries = {"email": ("recipient", "ann@example.com"), "host": ("line", "Bo"), "day": ("line", "Friday")}
    lines = [f'[fields.{name}]\nkind = "{kind}"\nsample = "{sample}"\n' for name, (kind, sample) in entries.items()]
    (folder / "fields.toml").write_text('says = "Invites."\n' + "".join(lines))
    (work_folder / "mine.toml").write_text('[mail]\ntemplate_dirs = ["templates"]\n')

    assert run("mail", "preview", "Invitation", "--config", "mine.toml") == 0
    printed = capsys.readouterr().out
    assert "Subject:  Bo invites you" in printed
    assert "Come on Friday." in printed

    (folder / "text.j2").write_text("Come on {{ weekday }}.\n")
    assert run("mail", "preview", "Invitation", "--config", "mine.toml") == 78
    assert "Invitation/text.j2:1: uses 'weekday'" in capsys.readouterr().err
