"""``dead edit`` and ``dead export --raw``: the ways back of jobs that a worker refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import CAUSES, SECRET, Ask, bury, counts, push
from trio_worker.cli.enqueue import read_lines
from trio_worker.queue.dead_letters import find_job, read_shelf
from trio_worker.queue.record import Cause

BAD = Cause("bad_field", text="$.data.data.token: is missing")


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a Python expression of the text the editor."""

    def use(expression: str) -> None:
        program = tmp_path / "editor.py"
        program.write_text(
            f"import pathlib, sys\nfile = pathlib.Path(sys.argv[1])\ntext = file.read_text()\n"
            f"file.write_text({expression})\n"
        )
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", f"python3 {program}")

    return use


def test_a_corrected_job_is_due_again_with_its_message_id(
    run: Callable[..., int],
    ask: Ask,
    editor: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    work_folder: Path,
) -> None:
    """On one line, with new attempts; the log notes who saw it, and no address is printed."""
    (job_id,) = bury(ask, [BAD])
    assert run("dead", "show", job_id, "--json") == 0
    message_id = json.loads(capsys.readouterr().out)["message_id"]
    editor('text.replace(\'"username": "ann"\', \'"username": "Anna"\')')

    assert run("dead", "edit", job_id) == 0
    told = capsys.readouterr()
    assert message_id in told.out
    assert SECRET not in told.out + told.err
    found = ask(lambda client: find_job(client, "jobs", job_id))
    assert found[0] == "delayed"
    assert json.loads(found[1].body)["data"]["data"]["username"] == "Anna"
    assert b"\n" not in found[1].body
    assert (found[1].record.attempts, found[1].record.failed) == (0, ())
    assert run("job", "show", job_id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["message_id"] == message_id
    assert counts(ask).dead == 0
    assert counts(ask).balances
    assert 'command="dead edit"' in (work_folder / "worker.log").read_text()
    assert run("dead", "edit", job_id) == 3


def test_a_corrected_job_keeps_the_message_id_that_was_told_also_with_an_id_of_its_producer(
    run: Callable[..., int], ask: Ask, editor: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A Message-ID that derives from the new bytes would be another one."""
    (job_id,) = bury(ask, [BAD])
    editor("""text.replace('"task_type"', '"id": "ORDER-17", "task_type"')""")
    assert run("dead", "edit", job_id) == 0
    told = capsys.readouterr().out

    assert run("job", "show", job_id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["message_id"] in told


@pytest.mark.parametrize(
    ("expression", "words", "code", "said"),
    [
        ("text", (), 3, "nothing was changed"),
        ("text.replace('@', ' at ')", ("--no-input",), 4, "$.data.data.email"),
        ("text.replace('{', '')", ("--yes",), 4, "is not JSON"),
        ("text.replace('ann', 'Anna') + 1", (), 4, "ended with 1"),
        ("text.replace('\"ann\"', '\"' + 'x' * 70000 + '\"')", ("--yes",), 4, "max_job_bytes is 65,536"),
        ("text.replace('\"ann\"', '\"Anna\"')", ("--dry-run",), 0, "would be put back"),
    ],
)
def test_a_job_that_is_no_better_stays_dead(
    run: Callable[..., int],
    ask: Ask,
    editor: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    expression: str,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    """With its own bytes: unchanged, still wrong, an editor that failed, or only tried."""
    (job_id,) = bury(ask, [BAD])
    (before,) = ask(lambda client: read_shelf(client, "jobs", "dead", 1, with_bodies=True))
    editor(expression)

    assert run("dead", "edit", job_id, *words) == code
    told = capsys.readouterr()
    assert said in told.out + told.err
    assert ask(lambda client: read_shelf(client, "jobs", "dead", 1, with_bodies=True)) == [before]


def test_an_editor_that_is_not_there_is_named(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable to set."""
    bury(ask, [BAD])
    monkeypatch.setenv("VISUAL", "no-such-editor --wait")

    assert run("dead", "edit", "last") == 78
    assert "no-such-editor cannot be started" in capsys.readouterr().err


async def _lines(file: Path) -> list[bytes]:
    read = await read_lines(str(file))
    assert isinstance(read, list)
    return read


def test_a_raw_export_is_what_was_pushed_and_enqueue_takes_it(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Byte for byte, whatever the bytes."""
    bury(ask, CAUSES)
    before = ask(lambda client: read_shelf(client, "jobs", "dead", 100, with_bodies=True))
    assert run("dead", "export", "--raw", "--cause", "refused") == 0
    file = tmp_path / "dead.ndjson"
    file.write_text(capsys.readouterr().out)

    assert run("enqueue", "--unchecked", str(file)) == 0
    pushed = ask(lambda client: client.command("LRANGE", "jobs", 0, -1))
    assert pushed == [job.body for job in before if job.cause.word == "refused"]
    push(ask)
