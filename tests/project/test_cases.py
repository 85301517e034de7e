"""The table of fault cases and the tests that hold them, kept together."""

from __future__ import annotations

import ast
import re
from collections import Counter

from tests.support.paths import ROOT

ROW = re.compile(r"^\| (?P<case>[A-E]\d+) \| (?P<fault>[^|]+) \| (?P<state>[^|]+) \| (?P<what>[^|]+) \|$", re.MULTILINE)
COUNTS = {"A": 31, "B": 14, "C": 35, "D": 6, "E": 15}


def documented() -> dict[str, str]:
    rows = list(ROW.finditer((ROOT / "docs" / "reliability.md").read_text("utf-8")))
    assert Counter(row["case"] for row in rows) == dict.fromkeys((row["case"] for row in rows), 1)
    return {row["case"]: row["state"] for row in rows}


def marked() -> set[str]:
    """The cases that tests name in their marker."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="case"), args=args):
                    found |= {str(each.value) for each in args if isinstance(each, ast.Constant)}
                case _:
                    pass
    return found


def test_every_case_is_in_the_table() -> None:
    """101 of them, each once."""
    expected = {f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)}
    assert documented().keys() == expected


def test_every_case_that_is_held_has_a_test_and_no_other() -> None:
    """A case that cannot be run here has none."""
    runnable = {case for case, state in documented().items() if state in {"held", "changed"}}
    assert marked() == runnable
    assert set(documented().values()) == {"held", "changed", "not here"}
