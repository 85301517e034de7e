"""Pure. Suggestions for misspelled words: the known word with the most similar spelling.

A separate module, because the command line needs it for unknown commands, before it loads any settings.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return the known word with the most similar spelling, or an empty string.

    A word of the same letters comes first, because swapped letters are the most common mistake and difflib counts them
    as two. ``likeness`` is the minimum ratio of difflib. The empty word is never returned.
    """
    words = [each for each in known if each]
    swapped = [each for each in words if sorted(each) == sorted(word)]
    close = difflib.get_close_matches(word, swapped or words, 1, likeness)
    return close[0] if close else ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``. Did you mean ...?`` with the most similar known word, or an empty string."""
    close = nearest(word, known)
    return f". Did you mean {close}?" if close else ""
