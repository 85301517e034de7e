"""Edge. Text in terminal cells: its width, cut to fit, and without control characters; no I/O, awaits nothing.

Apart from `cells`, because a run without a terminal needs it and must not load the rest of rich: the widths of
characters cost little to import.
"""

from __future__ import annotations

import re
import unicodedata

from rich.cells import get_character_cell_size

from trio_worker.printing import is_seen

CUT_MARK = "…"
# For terminals or fonts without these characters; * for the ellipsis, as in masked addresses.
_ASCII = str.maketrans("…─●■▲▼▁▂▃▄▅▆▇█", "*-*#^v_.:-=+*#")

# The rest of a word that was cut, but not the comma after a whole one.
_GOES_ON = re.compile(r"[.,:/%-]?\w")

# rich reads the widths from a file at the first character that is not ASCII; later there may be no file descriptor.
get_character_cell_size(CUT_MARK)


def printable_cells(text: str) -> str:
    """Return text in which every character is one or two cells wide and none is a control character.

    Combining marks are dropped: terminals differ in the width of the result.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe(character) for character in unicodedata.normalize("NFC", text))


def _safe(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character).startswith("M"):
        return ""
    # Two regional indicators are a flag, which has two cells in some terminals and four in others.
    if not is_seen(ord(character)) or "\U0001f1e6" <= character <= "\U0001f1ff":
        return "?"
    return character if get_character_cell_size(character) else ""


def width_of(text: str) -> int:
    """Return the width of a printable text in cells."""
    return len(text) if text.isascii() else sum(map(get_character_cell_size, text))


def cut(text: str, width: int) -> str:
    """Return printable text of at most ``width`` cells; longer text is cut and ends with an ellipsis.

    A number after other words is left out rather than cut: the half of a time is another time.
    """
    clean = printable_cells(text)
    if width_of(clean) <= width:
        return clean
    if width <= 0:
        return ""
    kept, room = "", width - 1
    for character in clean:
        room -= get_character_cell_size(character)
        if room < 0:
            break
        kept += character
    before, blank, begun = kept.rpartition(" ")
    if blank and begun.lstrip("~+(")[:1].isdigit() and _GOES_ON.match(clean, len(kept)):
        kept = before
    return kept + CUT_MARK


def in_ascii(text: str) -> str:
    """Return text of the same width, with ASCII characters only."""
    if text.isascii():
        return text
    replaced = text.translate(_ASCII)
    return "".join(c if c.isascii() else "?" * get_character_cell_size(c) for c in replaced)
