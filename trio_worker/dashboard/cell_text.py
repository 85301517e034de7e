"""Edge. Text as a terminal shows it: how many cells it takes, cut to fit, and nothing in it that is a command.

No I/O, awaits nothing. Of rich it needs the widths of characters, which cost little to import.
"""

from __future__ import annotations

import unicodedata

from rich.cells import get_character_cell_size

CUT_MARK = "…"
# For terminals or fonts without these; a star for the ellipsis, as it also stands for the hidden part of an address.
_ASCII = str.maketrans("…─●■▲▼▁▂▃▄▅▆▇█", "*-*#^v_.:-=+*#")

# rich reads the widths from a file with the first character beyond ASCII; later there may be no file descriptor left.
get_character_cell_size(CUT_MARK)


def printable_cells(text: str) -> str:
    """Return text in which every character is one or two cells wide and none commands the terminal.

    Marks that combine are dropped: terminals do not agree on the width of what they make.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_safe(character) for character in unicodedata.normalize("NFC", text))


def _safe(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character).startswith("M"):
        return ""
    # Two regional indicators make a flag of two cells in some terminals and of four in others.
    if not character.isprintable() or "\U0001f1e6" <= character <= "\U0001f1ff":
        return "?"
    return character if get_character_cell_size(character) else ""


def width_of(text: str) -> int:
    """Return how many cells a printable text takes."""
    return len(text) if text.isascii() else sum(map(get_character_cell_size, text))


def cut(text: str, width: int) -> str:
    """Return printable text of at most ``width`` cells; where it was longer it ends in an ellipsis."""
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
    return kept + CUT_MARK


def in_ascii(text: str) -> str:
    """Return text of the same width without a character beyond ASCII."""
    if text.isascii():
        return text
    told = text.translate(_ASCII)
    return "".join(c if c.isascii() else "?" * get_character_cell_size(c) for c in told)
