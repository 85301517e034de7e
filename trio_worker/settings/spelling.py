"""Pure. Which known word somebody meant who wrote another."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return the known word that is written most alike, empty where none is.

    One of the same letters comes first: two that changed places are the commonest slip, and the ratio of difflib,
    which ``likeness`` bounds, counts them as two. The empty word is never meant.
    """
    words = [each for each in known if each]
    swapped = [each for each in words if sorted(each) == sorted(word)]
    close = difflib.get_close_matches(word, swapped or words, 1, likeness)
    return close[0] if close else ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``. Did you mean ...?`` with the nearest known word, or nothing."""
    close = nearest(word, known)
    return f". Did you mean {close}?" if close else ""
