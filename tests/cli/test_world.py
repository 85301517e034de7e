"""Which world a command looks at: that of a configuration, never one that it makes up or starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from trio_worker.cli.command_line import app

WAIT_SECONDS = 90
OF_THE_QUEUE = [
    "status", "status --json", "audit", "stats --last 5", "tail --for 1s", "worker list", "relay probe",
    "queue list", "queue pause --reason x", "queue resume", "queue purge --yes", "dead list", "dead retry --yes x",
    "held list", "delayed list", "job show x", "job find --id x", "why",
]  # fmt: skip
COMMANDS = [
    *OF_THE_QUEUE, "doctor", "enqueue", "send", "smtp check", "schema", "shell", "mail preview Registration",
    "capture ls", "capture show last", "capture chaos", "capture clear", "config show", "config check", "metrics show",
]  # fmt: skip


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trio_worker", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def ended(command: str) -> int:
    try:
        return int(app(command.split(), exit_on_error=True) or 0)
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_configuration_no_world_is_made_up(
    command: str, work_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and which file it would take; the folder stays empty."""
    monkeypatch.delenv("TRIO_WORKER_CONFIG", raising=False)

    assert ended(command) == 78
    told = capfd.readouterr()
    assert told.out == ""
    assert f"there is no {work_folder}/conf/dev.toml" in told.err
    assert list(work_folder.iterdir()) == []


@pytest.mark.parametrize("command", OF_THE_QUEUE)
def test_no_command_starts_a_server(
    command: str, work_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """69, and what would start it; it is named which configuration was read."""
    monkeypatch.setenv("TRIO_WORKER_CONFIG", "worker.toml")
    (work_folder / "worker.toml").touch()

    assert ended(command) == 69
    told = capfd.readouterr()
    first, *others = told.err.splitlines()
    assert first == f"{work_folder}/worker.toml: queue jobs, Redis embedded:var/valkey"
    assert f"no server runs in {work_folder}/var/valkey; trio-worker run starts one" in "\n".join(others)
    assert told.out == ""
    assert not (work_folder / "var").exists()


def test_a_server_that_cannot_start_is_quoted_line_by_line(tmp_path: Path) -> None:
    """69, and the end of its log, whose lines are lines."""
    (tmp_path / "var" / "valkey").mkdir(0o700, parents=True)
    (tmp_path / "var" / "valkey" / "appendonlydir").touch()

    done = run("run --burst", tmp_path, TRIO_WORKER__REDIS__URL="embedded:var/valkey?port=0")
    assert done.returncode == 69
    assert any(line.endswith("the end of its valkey.log:") for line in done.stderr.splitlines())
    assert "append-only dir" in done.stderr.splitlines()[-1]
    assert "\\n" not in done.stderr


def test_commands_use_the_server_of_a_worker_in_the_same_folder(tmp_path: Path) -> None:
    """Also of one without a configuration; what they change is the world of that worker."""
    port = {"TRIO_WORKER__REDIS__URL": "embedded:var/valkey?port=0"}
    before = run("status", tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "trio_worker", "run", "--no-dashboard"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **port},
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        while "running" not in worker.stdout.readline():
            assert worker.poll() is None
        paused = run("queue pause --reason lunch", tmp_path)
        status = run("status --json", tmp_path)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=WAIT_SECONDS)
    after = run("status", tmp_path)

    assert (before.returncode, paused.returncode, status.returncode, after.returncode) == (78, 0, 0, 78)
    assert status.stderr == "environment and defaults: queue jobs, Redis embedded:var/valkey\n"
    assert "lunch" in json.dumps(json.loads(status.stdout))
    assert worker.returncode == 0


def test_variables_are_a_configuration(tmp_path: Path) -> None:
    """As in a container, which has no file."""
    done = run("status", tmp_path, TRIO_WORKER__REDIS__URL="redis://127.0.0.1:1")

    assert done.returncode == 69
    assert done.stderr.splitlines()[0] == "environment and defaults: queue jobs, Redis 127.0.0.1:1"
