"""Edge. The door of every print: nothing that a terminal would obey, or that a reader cannot see, passes it.

Apart from `cli`, because a probe prints too and must not load the command line. The log has the same escapes.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from types import TracebackType

# Characters that have no width and count as letters or marks: fillers of Hangul, the grapheme joiner, vowels of Khmer
# without a sign, and selectors of variants but the two for emoji (Unicode's Default_Ignorable_Code_Point).
_FILLERS_AND_MARKS = (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, 0xFFA0)
_UNSEEN = frozenset(map(chr, [*_FILLERS_AND_MARKS, *range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0)]))
_VISIBLE_OCTETS = bytes([*range(0x20, 0x7F), 0x0A])
_ELLIPSIS = "…".encode()
# Those without an image that only take room, such as the space that does not break (category Zs).
_SPACES = frozenset([0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000])


class _Escapes(dict[int, int | str]):
    """What `str.translate` puts for a character: itself if it is seen, else its escape in JSON (RFC 8259, 7)."""

    def __missing__(self, code: int) -> int | str:
        # Not kept: a million different characters from a stranger must not fill the memory.
        return code if is_seen(code) else "".join(f"\\u{unit:04x}" for unit in _utf16_units(code))


_ESCAPES = _Escapes({ord("\t"): "\t", ord("\n"): "\\n", ord("\r"): "\\r"})


def visible(text: str) -> str:
    r"""Return text on one line without control, bidi and zero-width characters: each is escaped, as ``\u001b``.

    The escapes are those of JSON, so a JSON document stays one with the same values. Tabs and visible spaces stay.
    """
    if text.isprintable() and (text.isascii() or _UNSEEN.isdisjoint(text)):
        return text
    return text.translate(_ESCAPES)


def visible_lines(lines: Sequence[str]) -> str:
    """Return lines that are each made `visible`, joined by line breaks; for a log, in a tenth of the time."""
    joined = "\n".join(lines)
    octets = joined.encode("utf-8", "surrogatepass")
    # Most lines have ASCII only, and the ellipsis of a masked address.
    is_visible = not octets.translate(None, _VISIBLE_OCTETS).replace(_ELLIPSIS, b"")
    if is_visible and joined.count("\n") == len(lines) - 1:
        return joined
    return "\n".join(map(visible, lines))


def visible_text(text: str) -> str:
    """Return text of several lines with each line made `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def say(*lines: str, flush: bool = False) -> None:
    """Print each text on a line of its own; a line break in one is escaped, so that no text can forge a line."""
    for line in lines:
        print(visible(line), flush=flush)


def say_text(text: str, *, end: str = "\n") -> None:
    """Print a text of several lines, such as the body of a mail."""
    print(visible_text(text), end=end)


def say_drawn(frame: str) -> None:
    """Print a frame that rich drew: its colours pass, its texts were made visible when they became cells."""
    print(frame)


def say_octets(octets: bytes) -> None:
    """Write octets unchanged to a file or a pipe; a terminal gets them as visible text."""
    if sys.stdout.isatty():
        say_text(octets.decode("utf-8", "backslashreplace").replace("\r\n", "\n"), end="")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(octets)


def complain(*lines: str) -> None:
    """Print lines on standard error, as `say` does on standard output."""
    for line in lines:
        print(visible(line), file=sys.stderr)


def complain_text(text: str) -> None:
    """Print a text of several lines on standard error, and no line break behind it."""
    sys.stderr.write(visible_text(text))


def show_crash(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print a traceback, whose last line may repeat what a stranger wrote (a `sys.excepthook`)."""
    import traceback  # noqa: PLC0415  nearly no run needs it

    complain_text("".join(traceback.format_exception(kind, error, where)))


def print_values(*values: object, sep: str = " ", end: str = "\n", file: io.TextIOBase | None = None) -> None:
    """Print values as Python's ``print`` does, but visibly: it is ``print`` in the shell."""
    print(sep.join(visible_text(str(value)) for value in values), end=end, file=file)


def read_answer(question: str) -> str:
    """Ask at the terminal; return the line that was typed."""
    return input(visible(question))


def is_seen(code: int) -> bool:
    """Return whether the character with this code point is a space or leaves a mark on a screen."""
    return code in _SPACES or (chr(code).isprintable() and chr(code) not in _UNSEEN)


def _utf16_units(code: int) -> list[int]:
    if code < 0x10000:
        return [code]
    code -= 0x10000
    return [0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)]
