"""Suggestions for a misspelled word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.settings.spelling import nearest


@pytest.mark.parametrize(
    ("word", "meant"),
    [("statsu", "status"), ("stat", "stats"), ("statuss", "status"), ("enqeue", "enqueue"), ("frobnicate", "")],
)
def test_letters_that_changed_places_are_one_slip(word: str, meant: str) -> None:
    """They come before a letter too many; what is like none is none."""
    assert nearest(word, ["enqueue", "status", "stats", "", "top"]) == meant


@given(st.text(), st.lists(st.text()))
def test_it_is_one_of_the_known_words_or_none(word: str, known: list[str]) -> None:
    """And a known word is itself."""
    assert nearest(word, known) in {*known, ""}
    if word:
        assert nearest(word, [*known, word]) == word
