"""The tables [[replies]]: read from the file and the environment, refused with the line where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_worker.settings.digest import digest_of
from trio_worker.settings.reader import SettingFaults, Settings, read_settings
from trio_worker.settings.reload import changes_of
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule

RULES = """\
number_workers = 4

[[replies]]
code = 550
text = "come back tomorrow"
class = "standing"

[[replies]]  # the second one
code = "550 5.7.1"
class = "mail"

[smtp]
tls = "none"
"""


def read(path: Path, text: str) -> Settings | SettingFaults:
    path.write_text(text, "utf-8")
    return read_settings(path, {})


def test_rules_are_read_in_their_order(tmp_path: Path) -> None:
    """A code may be a number; the sections after the tables are those of the file."""
    found = read(tmp_path / "a.toml", RULES)

    assert isinstance(found, Settings)
    assert found.replies == (
        ReplyRule(ReplyClass.STANDING, "550", "come back tomorrow"),
        ReplyRule(ReplyClass.MAIL, "550 5.7.1"),
    )
    assert (found.number_workers, found.smtp.tls) == (4, "none")


def test_the_environment_replaces_all_rules(tmp_path: Path) -> None:
    """A list of objects in JSON."""
    path = tmp_path / "a.toml"
    path.write_text(RULES, "utf-8")
    found = read_settings(path, {"TRIO_WORKER__REPLIES": json.dumps([{"text": "no credits", "class": "standing"}])})

    assert isinstance(found, Settings)
    assert found.replies == (ReplyRule(ReplyClass.STANDING, text="no credits"),)


@pytest.mark.parametrize(
    ("table", "line", "reason"),
    [
        ('text = "("\nclass = "us"', 3, "replies.text: is not a regular expression"),
        ('text = ".*"\nclass = "us"', 3, "replies.text: is found in every text"),
        ('text = "[a-z#]"\nclass = "us"', 3, "replies.text: is found in every text"),
        ('text = "quota"\nclass = "standin"', 4, "replies.class: must be one of"),
        ('text = "quota"', 3, "replies: a rule needs a class"),
        ('class = "us"', 3, "replies: a rule without code and text would fit every reply"),
        ('code = 250\nclass = "us"', 3, "replies.code: must be a reply code from 400 to 599"),
        ('code = true\nclass = "us"', 3, "replies.code: must be a reply code"),
        ('code = "550 4.7.1"\nclass = "us"', 3, "replies.code: must be a reply code"),
        ('code = 550\nclas = "us"\nclass = "us"', 4, "replies: no such key clas"),
        ("text = 5\nclass = 3", 4, "replies.class: must be a string"),
        ("", 2, "replies: a rule needs a class"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(tmp_path: Path, table: str, line: int, reason: str) -> None:
    """Nothing is taken of a configuration with a fault."""
    path = tmp_path / "a.toml"
    found = read(path, f"# rules\n[[replies]]\n{table}\n")

    assert isinstance(found, SettingFaults)
    assert any(str(fault).startswith(f"{path}:{line}  {reason}") for fault in found.faults), found.faults


@pytest.mark.parametrize("value", ["nonsense", "5", '{"class": "us"}', '["us"]', "[{]"])
def test_a_wrong_list_in_the_environment_is_named(value: str) -> None:
    """By its variable."""
    found = read_settings(None, {"TRIO_WORKER__REPLIES": value})

    assert isinstance(found, SettingFaults)
    assert found.faults[0].place == "TRIO_WORKER__REPLIES"
    assert "list of objects in JSON" in found.faults[0].reason


def test_replies_that_are_no_tables_are_named(tmp_path: Path) -> None:
    """A table or a text in their place."""
    for text in ('replies = "550"\n', '[replies]\ncode = 550\nclass = "us"\n', "replies = [1]\n"):
        found = read(tmp_path / "a.toml", text)
        assert isinstance(found, SettingFaults)
        assert "[[replies]]" in found.faults[0].reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=20), max_size=3)))
def test_whatever_the_environment_has_is_read_or_named(tables: list[dict[str, object]]) -> None:
    """No list breaks the reader."""
    found = read_settings(None, {"TRIO_WORKER__REPLIES": json.dumps(tables)})
    assert isinstance(found, Settings) == (not tables)


def test_a_running_worker_takes_new_rules(tmp_path: Path) -> None:
    """Whoever is in trouble with a relay need not restart; another digest shows that they differ."""
    before, after = read(tmp_path / "a.toml", ""), read(tmp_path / "b.toml", RULES)
    assert isinstance(before, Settings)
    assert isinstance(after, Settings)
    change = changes_of(before, after)

    assert change.settings.replies == after.replies
    assert "2 rules in [[replies]]" in change.taken
    assert digest_of(before) != digest_of(after)
