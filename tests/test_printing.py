"""The door of every print: what a terminal would obey, or a reader cannot see, is shown as an escape."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile import HOSTILE, assert_tame
from trio_worker.printing import complain, print_values, say, say_octets, say_text, visible, visible_lines


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain, with ünïcödé and 漢字 and 🎉", "plain, with ünïcödé and 漢字 and 🎉"),
        ("\x1b[31mred\x1b[m", r"\u001b[31mred\u001b[m"),
        ("\x9b31m \x7f \x00", r"\u009b31m \u007f \u0000"),
        ("a\rb\nc\td", "a\\rb\\nc\td"),
        ("gnp.exe\u202e\u200b\u2066", r"gnp.exe\u202e\u200b\u2066"),
        ("tag\U000e0041 filler\u3164 joiner\u034f", r"tag\udb40\udc41 filler\u3164 joiner\u034f"),
        ("non\xa0breaking \u202f \u3000", "non\xa0breaking \u202f \u3000"),
        ("half \udc9b", r"half \udc9b"),
        ("heart ❤\ufe0f", "heart ❤\ufe0f"),
    ],
)
def test_what_is_seen_stays_and_the_rest_is_escaped(text: str, seen: str) -> None:
    """Letters, signs and spaces of all scripts are shown as they are."""
    assert visible(text) == seen


@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_passes_with_a_character_of_control(text: str) -> None:
    """Whatever the text: one line, and no character of control, format, or half of a pair."""
    seen = visible(text)

    assert_tame(seen)
    assert not {unicodedata.category(char) for char in seen.replace("\t", "")} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert visible(seen) == seen


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HOSTILE))
def test_json_that_is_printed_means_the_same(text: str) -> None:
    """The escapes are those of JSON: a program that reads the document gets the text unchanged."""
    assert json.loads(visible(json.dumps({text: [text]}, ensure_ascii=False))) == {text: [text]}


@given(st.lists(st.text(st.characters(exclude_categories=[])) | st.sampled_from([*HOSTILE, "a…n@example.org", "漢字"])))
def test_many_lines_are_made_visible_as_each_alone(lines: list[str]) -> None:
    """The quick way for a log is no other way."""
    assert visible_lines(lines) == "\n".join(map(visible, lines))


def test_a_line_break_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Each text that is said has one line."""
    say("one\ntwo", "three\r\nfour")
    complain("five\nsix")

    printed = capsys.readouterr()
    assert printed.out == "one\\ntwo\nthree\\r\\nfour\n"
    assert printed.err == "five\\nsix\n"


def test_a_text_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Bodies of mails and help have lines."""
    say_text("one\n\x1btwo\n")
    print_values("a\x1b", 2, b"\x1b")

    assert capsys.readouterr().out == "one\n\\u001btwo\n\na\\u001b 2 b'\\x1b'\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_octets_reach_a_file_unchanged_and_a_terminal_as_text(
    *, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mail that is redirected to a file is the mail; a terminal does not obey it."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
    monkeypatch.setattr(out, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", out)

    say_octets(b"Subject: \x1b[2J\xff\r\n\r\nbody\r\n")

    seen = b"Subject: \\u001b[2J\\xff\n\nbody\n" if is_terminal else b"Subject: \x1b[2J\xff\r\n\r\nbody\r\n"
    assert raw.getvalue() == seen
