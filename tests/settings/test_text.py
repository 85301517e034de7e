"""The generated files: conf/ and docs/configuration.md say what the code does."""

from __future__ import annotations

import tomllib

import pytest

from tests.support.paths import ROOT
from tests.support.production import OWN_VALUES
from trio_worker.settings.reader import KEYS, Settings, read_settings
from trio_worker.settings.schema import schema_text
from trio_worker.settings.text import dev_text, production_text, settings_reference
from trio_worker.telemetry import metric_table


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conf/dev.toml", dev_text()),
        ("conf/production.toml", production_text()),
        ("conf/trio_worker.schema.json", schema_text()),
        ("docs/configuration.md", settings_reference()),
        ("docs/metrics.md", metric_table.metrics_reference()),
    ],
)
def test_the_file_is_what_tools_write_docs_writes(name: str, text: str) -> None:
    """Run tools/write_docs after a change of a key."""
    assert (ROOT / name).read_text("utf-8") == text


@pytest.mark.parametrize("text", [dev_text(), production_text()])
def test_every_key_stands_in_the_file_with_its_sentence_above_it(text: str) -> None:
    """Each once; a secret as a commented file name."""
    lines = text.splitlines()
    section = ""
    seen = []
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("["):
            section = line.strip("[]") + "."
        name = line.removeprefix("# ").partition(" = ")[0]
        key = section + name if section + name in KEYS else (section + name).removesuffix("_file")
        if " = " in line and key in KEYS:
            seen.append(key)
            assert above == f"# {KEYS[key].option.help_text}"
    assert set(KEYS) - set(seen) == (set() if text == dev_text() else {"capture.listen", "capture.dir"})
    assert len(seen) == len(set(seen))


def test_the_reference_names_every_key_and_variable() -> None:
    """With its default."""
    reference = settings_reference()
    for key in KEYS.values():
        name = key.dotted.rpartition(".")[2]
        assert any(f"| `{each}`" in reference for each in (name, f"{name}, {name}_file"))
        assert key.option.help_text in reference


def test_the_dev_file_can_be_run_as_it_is() -> None:
    """On its own Valkey and catcher."""
    settings = read_settings(ROOT / "conf" / "dev.toml", {})
    assert isinstance(settings, Settings)
    assert settings.capture.listen == f"{settings.smtp.host}:{settings.smtp.port}"
    assert settings.redis.url.startswith("embedded:")


def test_the_production_file_is_whole() -> None:
    """It is TOML, is accepted with one's own values in it, and neither catches mail nor starts a server."""
    settings = read_settings(ROOT / "conf" / "production.toml", OWN_VALUES)
    assert isinstance(settings, Settings)
    assert settings.profile == "production"
    assert settings.capture.listen == ""
    assert tomllib.loads(production_text())["number_workers"] == 20
