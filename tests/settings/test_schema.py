"""The schema of a configuration file: what an editor refuses, the program refuses too."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from tests.support.paths import ROOT
from trio_worker.cli.command_line import app
from trio_worker.settings.reader import KEYS, SettingFaults, read_settings
from trio_worker.settings.schema import SCHEMA_FILE, settings_schema
from trio_worker.settings.text import production_text

CONF = ROOT / "conf"
SCHEMA = settings_schema()
VALIDATOR = Draft4Validator(SCHEMA)
# Keywords of later drafts are passed over by readers of draft 4, and then check nothing.
DRAFT_4 = {"$schema", "title", "description", "type", "properties", "additionalProperties", "items", "enum", "default"}


def nested(dotted: str, value: object) -> Any:
    for name in reversed(dotted.split(".")):
        value = {name: value}
    return value


def shapes(schema: Any) -> list[dict[str, Any]]:
    """Every schema in a schema."""
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return [schema, *(found for each in inner if isinstance(each, dict) for found in shapes(each))]


def test_it_is_draft_4_and_uses_no_other_word() -> None:
    """Taplo reads draft 4 only."""
    Draft4Validator.check_schema(SCHEMA)

    assert SCHEMA["$schema"] == "http://json-schema.org/draft-04/schema#"
    assert {word for shape in shapes(SCHEMA) for word in shape} == DRAFT_4 | {"minimum", "maximum", "required"}
    assert all(shape.get("description") for shape in shapes(SCHEMA) if shape != {"type": "string"})


@pytest.mark.parametrize("name", ["dev.toml", "production.toml"])
def test_the_stock_files_fit_and_name_it(name: str) -> None:
    """In their first line, by a path from where they stand."""
    text = (CONF / name).read_text("utf-8")

    VALIDATOR.validate(tomllib.loads(text))
    assert text.splitlines()[0] == f"#:schema ./{SCHEMA_FILE}"
    assert (CONF / SCHEMA_FILE).is_file()


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """As the file that is kept."""
    assert app(["config", "schema"]) == 0
    assert capsys.readouterr().out == (CONF / SCHEMA_FILE).read_text("utf-8")
    assert json.loads((CONF / SCHEMA_FILE).read_text("utf-8")) == SCHEMA


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_is_in_it_with_its_sentence(key: str) -> None:
    """What `config explain` says is what an editor shows."""
    shape = SCHEMA
    for name in key.split("."):
        shape = shape["properties"][name]

    assert shape["description"] == KEYS[key].option.help_text


@pytest.mark.parametrize(
    "text",
    [
        "[queue]\nlease_second = 5\n",
        "[queues]\n",
        "number_workers = 0\n",
        "number_workers = 10001\n",
        "number_workers = 1.5\n",
        "number_workers = true\n",
        'profile = "test"\n',
        '[smtp]\nport = "25"\n',
        '[smtp]\nignore_ehlo = "CHUNKING"\n',
        "[smtp]\nignore_ehlo = [1]\n",
        "[smtp]\nallow_real_relay = 1\n",
        "[mail.types.Registration]\nmax_age = 1\n",
        "[mail.types.Own]\nmax_age_seconds = 0\n",
        '[mail.types.Own]\non_uncertain = "drop"\n',
        "smtp = 5\n",
    ],
)
def test_what_is_wrong_is_refused_by_editors_and_by_the_program(text: str, tmp_path: Path) -> None:
    """Unknown keys, wrong types, words and numbers."""
    (tmp_path / "c.toml").write_text(text.replace("Own", "Message"))

    assert not VALIDATOR.is_valid(tomllib.loads(text))
    assert isinstance(read_settings(tmp_path / "c.toml", {}), SettingFaults)


@given(
    st.sampled_from(sorted(KEYS)),
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.lists(st.text(), max_size=2),
)
def test_it_refuses_nothing_that_the_program_takes(key: str, value: object) -> None:
    """An editor that is stricter than the program would be switched off."""
    if not VALIDATOR.is_valid(nested(key, value)):
        assert isinstance(read_settings(None, {}, {key: value}), SettingFaults)


def test_init_names_the_schema_only_where_there_is_one(work_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that leads nowhere would be a fault in the editor."""
    assert app(["config", "init", "bare/mine.toml"]) == 0
    (work_folder / SCHEMA_FILE).write_text("{}")
    assert app(["config", "init", "mine.toml"]) == 0

    assert (work_folder / "bare" / "mine.toml").read_text("utf-8") == production_text(names_schema=False)
    assert (work_folder / "mine.toml").read_text("utf-8") == production_text()
