"""How long supervisors wait, and whether `config check` warns only where a worker would be cut off."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.production import OWN_VALUES
from trio_worker.cli.command_line import app
from trio_worker.settings.stop_times import StopTime, find_stop_times, seconds_of


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90", 90),
        ("60s", 60),
        ("1min 30s", 90),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("infinity", math.inf),
        ("0", 0),
        ("", None),
        ("soon", None),
        ("5 parsecs", None),
        ("-5", None),
    ],
)
def test_spans_are_read_as_systemd_and_compose_write_them(written: str, seconds: float | None) -> None:
    """What is no span is none."""
    assert seconds_of(written) == seconds


@given(st.text(st.sampled_from("0123456789.smhdinec $")))
def test_no_text_raises(written: str) -> None:
    """A time is never below nothing."""
    seconds = seconds_of(written)
    assert seconds is None or seconds >= 0


def test_a_drop_in_of_an_installed_unit_has_the_last_word(tmp_path: Path) -> None:
    """As to systemd; and 0 is no limit to it."""
    start = "[Service]\nExecStart=/bin/trio-worker run --config /etc/trio-worker/mine.toml\n"
    (tmp_path / "trio-worker.service").write_text(f"{start}TimeoutStopSec=60\n")
    (tmp_path / "trio-worker@.service").write_text(f"{start}TimeoutStopSec=0\n")
    (tmp_path / "trio-worker.service.d").mkdir()
    (tmp_path / "trio-worker.service.d" / "stop.conf").write_text("[Service]\nTimeoutStopSec=20\n")

    found = list(find_stop_times(tmp_path / "mine.toml", is_production=False, installed=tmp_path))

    config = "/etc/trio-worker/mine.toml"
    drop_in = tmp_path / "trio-worker.service.d" / "stop.conf"
    assert found == [
        StopTime(f"{drop_in}:2", 20, config),
        StopTime(f"{tmp_path / 'trio-worker@.service'}:3", math.inf, config),
    ]
    assert not list(find_stop_times(tmp_path / "other.toml", is_production=True, installed=tmp_path))


def warnings_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    with suppress(SystemExit):
        app([*words, "--json"])
    found: list[str] = json.loads(capsys.readouterr().out)["warnings"]
    return found


@pytest.fixture
def own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The production file as an operator has it: with values of one's own."""
    for name, value in OWN_VALUES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRIO_WORKER__SMTP__ALLOW_REAL_RELAY", "true")


@pytest.mark.usefixtures("own_values")
@pytest.mark.parametrize("name", ["dev", "production"])
def test_the_stock_files_have_no_warning(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What always warns is not read when it matters."""
    monkeypatch.chdir(ROOT)
    if name == "dev":
        monkeypatch.setenv("TRIO_WORKER__SMTP__HOST", "127.0.0.1")

    assert warnings_of(capsys, "config", "check", "--config", f"conf/{name}.toml") == []


@pytest.mark.usefixtures("own_values")
def test_a_grace_that_a_supervisor_cuts_off_is_warned_of(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the line of the file that says so; the units in conf/ops/ are of production.toml, so dev.toml may differ."""
    shutil.copytree(ROOT / "conf", work_folder / "conf")
    monkeypatch.setenv("TRIO_WORKER__SHUTDOWN__GRACE_SECONDS", "50")

    (only,) = warnings_of(capsys, "config", "check", "--config", "conf/production.toml")

    assert only.startswith(
        "TRIO_WORKER__SHUTDOWN__GRACE_SECONDS  shutdown.grace_seconds: 50 s, but conf/ops/docker/compose.yaml:"
    )
    assert only.endswith(" after 40 s")
    with monkeypatch.context() as dev:
        dev.setenv("TRIO_WORKER__SMTP__HOST", "127.0.0.1")
        assert warnings_of(capsys, "config", "check", "--config", "conf/dev.toml") == []
    monkeypatch.setenv("TRIO_WORKER__SHUTDOWN__GRACE_SECONDS", "60")
    assert len(warnings_of(capsys, "config", "check", "--config", "conf/production.toml")) == 4


@pytest.mark.usefixtures("own_values")
def test_strict_check_fails_for_a_warning(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a pipeline that deploys: what is seldom meant ends it as well; without a warning it passes."""
    shutil.copytree(ROOT / "conf", work_folder / "conf")
    words = ["config", "check", "--config", "conf/production.toml"]
    assert app([*words, "--strict"]) == 0
    monkeypatch.setenv("TRIO_WORKER__SHUTDOWN__GRACE_SECONDS", "50")

    assert app(words) == 0
    capsys.readouterr()
    assert app([*words, "--strict"]) == 78

    assert capsys.readouterr().out.endswith("1 problem\n")
