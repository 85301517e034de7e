"""The audit log: the line about a command goes to the log of the worker, wherever the command is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import CAUSES, Ask, bury
from trio_worker.cli.audit_log import configured_log
from trio_worker.cli.command_line import app
from trio_worker.settings.reader import Settings, read_settings


def settings_of(file: Path, text: str = "") -> Settings:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    settings = read_settings(file, {})
    assert isinstance(settings, Settings)
    return settings


@pytest.mark.parametrize("file", ["app/conf/mine.toml", "app/mine.toml"])
def test_a_reveal_from_another_folder_is_logged_where_the_worker_logs(
    file: str, work_folder: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask, valkey_url: str
) -> None:
    """And nothing is made in the folder where somebody stands."""
    (job_id,) = bury(ask, CAUSES[:1])
    settings_of(Path(file), f'[redis]\nurl = "{valkey_url}"\n')
    elsewhere = work_folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    assert app(["dead", "show", job_id, "--reveal", "--config", str(work_folder / file)]) == 0

    log = (work_folder / "app" / "logs" / "worker.log").read_text()
    assert "Revealed" in log
    assert job_id in log
    assert list(elsewhere.iterdir()) == []


def test_the_log_of_a_worker_that_runs_elsewhere_is_found_where_it_is(work_folder: Path) -> None:
    """A service with another working directory: who stands there meets its log."""
    settings = settings_of(work_folder / "etc" / "mine.toml")
    Path("logs").mkdir()
    Path("logs/worker.log").touch()

    assert configured_log(settings) == "logs/worker.log"


@pytest.mark.parametrize("file", ["", "/var/log/mail/worker.log"])
def test_a_log_that_is_named_in_full_stays(work_folder: Path, file: str) -> None:
    """So does standard error."""
    assert configured_log(settings_of(work_folder / "mine.toml", f"[log]\nfile = {json.dumps(file)}\n")) == file
