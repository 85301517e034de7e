"""Folders and files in which another user of the machine may have a hand; with another user where we may become one."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.neighbour import needs_a_neighbour, planted_by_a_neighbour
from tests.support.paths import ROOT
from trio_worker.own_files import (
    UntrustedPathError,
    check_own_folder,
    check_way,
    make_own_folder,
    make_safe_folder,
    open_own_file,
    replace_own_file,
)

WRITE = os.O_WRONLY | os.O_CREAT


def test_folders_are_made_for_this_user_alone(work_folder: Path) -> None:
    """With the missing ones above them, whatever the umask."""
    usual = os.umask(0)
    try:
        make_own_folder(Path("var/valkey"))
        make_safe_folder(Path("logs"), 0o755)
    finally:
        os.umask(usual)

    assert [oct(Path(name).stat().st_mode & 0o777) for name in ("var", "var/valkey", "logs")] == [
        "0o700",
        "0o700",
        "0o755",
    ]


@pytest.mark.parametrize("open_one", ["var", "var/valkey"])
def test_a_folder_that_others_may_write_is_refused(work_folder: Path, open_one: str) -> None:
    """It, or one above it: they could put another one in its place."""
    make_own_folder(Path("var/valkey"))
    Path(open_one).chmod(0o777)

    with pytest.raises(UntrustedPathError, match="can be written by all users") as raised:
        make_own_folder(Path("var/valkey"))
    assert str(raised.value.filename).endswith(open_one)


def test_a_working_directory_that_others_may_write_is_refused(work_folder: Path) -> None:
    """They could rename what is below it; the folder of a group of colleagues is one's own choice."""
    work_folder.chmod(0o775)
    make_own_folder(Path("var"))
    work_folder.chmod(0o777)

    with pytest.raises(UntrustedPathError, match="can be written by all users"):
        make_own_folder(Path("var"))


def test_a_sticky_folder_is_safe_above_and_no_state_folder(work_folder: Path) -> None:
    """As /tmp: nobody can rename what others have there, but everybody can add files."""
    work_folder.chmod(0o1777)
    make_own_folder(Path("var"))

    with pytest.raises(UntrustedPathError):
        check_own_folder(work_folder)


def test_a_link_of_this_user_is_followed_to_a_safe_place_only(work_folder: Path) -> None:
    """Who moves var to another disk leaves a link; what it leads to is looked at as well."""
    make_own_folder(Path("disk/var"))
    Path("var").symlink_to("disk/var")
    make_own_folder(Path("var/valkey"))
    Path("disk").chmod(0o777)

    with pytest.raises(UntrustedPathError, match="can be written by all users"):
        check_way(Path("var/valkey"))


def test_a_file_that_is_a_link_is_refused_and_left_alone(work_folder: Path) -> None:
    """To open it would change the file that the link leads to."""
    Path("victim").write_text("precious")
    Path("file").symlink_to("victim")

    with pytest.raises(UntrustedPathError, match="is a link"):
        open_own_file(Path("file"), WRITE | os.O_TRUNC)
    assert Path("victim").read_text() == "precious"


def test_what_is_no_plain_file_is_refused(work_folder: Path) -> None:
    """A pipe would pass on what is written to whoever reads it."""
    os.mkfifo("file")

    with pytest.raises(UntrustedPathError, match="is no plain file"):
        open_own_file(Path("file"), os.O_RDWR)


def test_a_file_is_replaced_as_a_whole(work_folder: Path) -> None:
    """The new one is for this user alone; a link in its place is replaced, not followed; nothing else is left."""
    Path("victim").write_text("precious")
    Path("file").symlink_to("victim")
    replace_own_file(Path("file"), b"new")

    assert Path("victim").read_text() == "precious"
    assert Path("file").read_bytes() == b"new"
    assert oct(Path("file").lstat().st_mode & 0o777) == "0o600"
    assert sorted(path.name for path in work_folder.iterdir()) == ["file", "victim"]


# Files that a person names on the command line, and the descriptors of the process itself.
NO_STATE = {"__main__.py", "own_files.py", "cli/config.py", "cli/mail.py", "cli/top.py", "cli/run_display.py"}
MAKES = {"mkdir", "makedirs", "mkdtemp", "mkstemp", "write_text", "write_bytes", "touch", "symlink_to"}


def test_nothing_else_makes_folders_or_opens_files_to_write() -> None:
    """One place for it: a folder that another module made would be one that nobody checks."""
    package = ROOT / "trio_worker"
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = {each.value for each in node.args if isinstance(each, ast.Constant)}
            if name in MAKES or (name == "open" and modes & {"w", "x", "wb", "xb"}):
                found.add(str(path.relative_to(package)))

    assert found <= NO_STATE


@needs_a_neighbour
@pytest.mark.parametrize(
    ("plant", "words"),
    [
        ("mkdir var", "belongs to user"),
        ("mkdir -m 777 var", "belongs to user"),
        ("mkdir -m 777 elsewhere && ln -s elsewhere var", "is a link that was made by user"),
    ],
)
def test_what_a_neighbour_made_is_refused(plant: str, words: str, shared_folder: Path) -> None:
    """A folder or a link of another user, where everybody may make some."""
    planted_by_a_neighbour(plant, shared_folder)

    with pytest.raises(UntrustedPathError, match=words):
        make_own_folder(Path("var/valkey"))


@needs_a_neighbour
@pytest.mark.parametrize(
    ("plant", "command"),
    [
        ("mkdir -m 777 var", "run"),
        ("mkdir -m 777 var var/valkey", "run"),
        ("mkdir -m 777 var var/journal", "run"),
        ("mkdir -m 777 logs", "run"),
        ("mkdir -m 777 logs && ln -s ../victim logs/worker.log", "run"),
        ("mkdir -m 777 var var/capture && ln -s ../../victim var/capture/host.lock", "capture run"),
        ("mkdir -m 777 var var/capture var/capture/new", "capture ls"),
        ("mkdir -m 777 var var/valkey && ln -s ../../victim var/valkey/server.json.new", "status"),
    ],
)
def test_no_command_uses_what_a_neighbour_planted(plant: str, command: str, shared_folder: Path) -> None:
    """It says so and exits with 78; no file is changed through a link."""
    victim = shared_folder / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    (shared_folder / "worker.toml").write_text(
        '[redis]\nurl = "embedded:var/valkey?port=0"\n[capture]\nlisten = "127.0.0.1:0"\n'
    )
    planted_by_a_neighbour(plant, shared_folder)

    done = subprocess.run(
        [sys.executable, "-m", "trio_worker", *command.split(), "--config", "worker.toml"],
        cwd=shared_folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert done.returncode == 78, (done.stdout, done.stderr)
    assert "another user could read or change what is kept there" in done.stderr
    assert victim.read_text() == "precious"
