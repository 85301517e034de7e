"""Pure. Header lines and MIME bodies: text in, octets out, with no line that a relay could refuse or misread.

Line ends of the caller are not trusted: a header is checked for control characters before it is written, and all line
ends of a body become CRLF (RFC 5321, 2.3.8) before it is encoded.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
import time
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote as percent_encoded

from trio_worker.jobs.address import Mailbox, quote
from trio_worker.jobs.attachment import Attachment, MediaType
from trio_worker.jobs.header import MAX_LINE_OCTETS, HeaderKind, kind_of_header, mailboxes_of
from trio_worker.records import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CRLF = "\r\n"

# RFC 5322, 2.1.1: lines should have at most 78 characters and must have at most 998. A line that holds an encoded-word
# has at most 76, the word itself 75 (RFC 2047, 2).
_LINE_CHARACTERS = 78
_ENCODED_LINE_CHARACTERS = 76
_WORD_CHARACTERS = 75
# Of the first encoded-word, which stands on the line with the header's name ("Reply-To: " is our longest).
_FIRST_WORD_CHARACTERS = 64
# A shorter first word is not worth its overhead: the text begins on the next line.
_MIN_FIRST_WORD_CHARACTERS = 30
# The beginning of an encoded-word (RFC 2047, 2): a charset, and q or b.
_ENCODED_WORD_BEGINS = re.compile(r"=\?[^?]*\?[BbQq]\?")
_WORD_OVERHEAD = len("=?utf-8?q??=")
# A longer word is encoded, so that it can be split: with the header's name it could have more than 998 octets.
_MAX_PLAIN_WORD = 900
_MAX_PLAIN_NAME = 60

_SPACED_WORD = re.compile(r" *[^ ]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # RFC 5322, 3.2.3
_Q_LETTERS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # RFC 2047, 5 (3)
_Q = ["_" if octet == ord(" ") else chr(octet) if octet in _Q_LETTERS else f"={octet:02X}" for octet in range(256)]
_Q_CHARACTERS = bytes(map(len, _Q))  # of each octet
_ODD_CONTROLS = bytes(octet for octet in (*range(0x20), 0x7F) if octet not in b"\t\n\r")
# A whole number of lines of base64 (RFC 2045, 6.8: 57 octets in each), about a megabyte.
_SLICE_OCTETS = 57 * 18_000
_PLAIN_FILE_NAME = re.compile(r"[A-Za-z0-9._+-]+(?: [A-Za-z0-9._+-]+)*")
_MAX_PLAIN_FILE_NAME = 60

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@frozen
class Encoded:
    """An encoded body: its Content-Transfer-Encoding, and octets that end with CRLF."""

    encoding: str
    octets: bytes


@frozen
class Base64File:
    """A file that is encoded in slices while it is written: in memory are the file and one encoded copy of it."""

    content: bytes

    def __iter__(self) -> Iterator[bytes]:
        view = memoryview(self.content)
        for start in range(0, len(view), _SLICE_OCTETS):
            yield base64.encodebytes(view[start : start + _SLICE_OCTETS]).replace(b"\n", b"\r\n")


@frozen
class Entity:
    """A MIME entity (RFC 2045, 2.4): Content-* header lines with the empty line after them, and octets in pieces.

    ``is_eight_bit``: whether it has octets above 127. If so, every multipart around it must say so (RFC 2045, 6.4).
    """

    head: bytes
    pieces: tuple[bytes | Base64File, ...]
    is_eight_bit: bool = False

    def as_bytes(self, before: bytes = b"") -> bytes:
        """Return ``before``, the head and the octets, joined in one step."""
        plain = [piece for piece in self.pieces if isinstance(piece, bytes)]
        if len(plain) == len(self.pieces):
            return b"".join((before, self.head, *plain))
        whole = BytesIO()
        whole.write(before)
        whole.write(self.head)
        for piece in self.pieces:
            if isinstance(piece, bytes):
                whole.write(piece)
            else:
                whole.writelines(piece)
        return whole.getvalue()


def message_header(name: str, text: str) -> str:
    """Return a header that a producer set, encoded where its kind allows it, folded, ending with CRLF.

    The text has passed `fault_of_header`: only free text is not ASCII, or addresses whose names are not.
    """
    match kind_of_header(name):
        case HeaderKind.FREE_TEXT:
            return unstructured_header(name, text)
        case HeaderKind.ADDRESSES if not text.isascii() and isinstance(mailboxes := mailboxes_of(text), tuple):
            return address_header(name, mailboxes)
        case _:
            return _folded(name, _SPACED_WORD.findall(f" {text}"))


def unstructured_header(name: str, text: str) -> str:
    """Return a header of free text (Subject, X-...), folded, encoded by RFC 2047 if needed, ending with CRLF.

    ASCII that looks like an encoded-word is encoded too: otherwise readers would decode it.
    """
    if text.isascii() and len(name) + 2 + len(text) <= _LINE_CHARACTERS and "=?" not in text:
        return f"{name}: {text}{CRLF}"
    if (
        not text.isascii()
        or _looks_encoded(text)
        or any(len(word) > _MAX_PLAIN_WORD for word in _SPACED_WORD.findall(text))
    ):
        words = encoded_words(text, _room_beside(name))
        return _folded(name, [f" {word}" for word in words], _ENCODED_LINE_CHARACTERS)
    return _folded(name, _SPACED_WORD.findall(f" {text}"))


def address_header(name: str, mailboxes: Sequence[Mailbox], *, ascii_only: bool = False) -> str:
    """Return a header of mailboxes (RFC 5322, 3.6.3), folded between them and inside long names, ending with CRLF.

    Addresses that are not ASCII stay as they are, for SMTPUTF8 (RFC 6532). With ``ascii_only`` each is shown as an
    empty group whose name is the address (RFC 6857, 3.1.4), for the other recipients of the mail.
    """
    if len(mailboxes) == 1 and not mailboxes[0].name and not ascii_only:
        return f"{name}: {mailboxes[0].address}{CRLF}"
    words: list[str] = []
    for mailbox in mailboxes:
        words.extend(_mailbox_words(mailbox, _WORD_CHARACTERS if words else _room_beside(name), ascii_only=ascii_only))
        words[-1] += ","
    words[-1] = words[-1][:-1]
    return _folded(name, [f" {word}" for word in words], _ENCODED_LINE_CHARACTERS)


def _mailbox_words(mailbox: Mailbox, first_characters: int, *, ascii_only: bool) -> list[str]:
    """Return a mailbox as words, between which a line may be folded; the first encoded-word has this size."""
    name = mailbox.name
    if ascii_only and mailbox.needs_smtputf8:
        *words, last = encoded_words(f"{name} {mailbox.address}".strip(" "), first_characters)
        return [*words, f"{last}:;"]
    if not name:
        return [mailbox.address]
    if not name.isascii() or "=?" in name or len(name) > _MAX_PLAIN_NAME:
        return [*encoded_words(name, first_characters), f"<{mailbox.address}>"]
    return [*(name.split(" ") if _ATOMS.fullmatch(name) else [quote(name)]), f"<{mailbox.address}>"]


def _looks_encoded(text: str) -> bool:
    """Whether a reader, even a generous one, could take a part of the text for an encoded-word."""
    begins = _ENCODED_WORD_BEGINS.search(text)
    return begins is not None and text.find("?=", begins.end()) >= 0


def _room_beside(name: str) -> int:
    """Return how long the first encoded-word of a header may be; beside a long name there is no room for one."""
    room = _ENCODED_LINE_CHARACTERS - len(name) - len(": ")
    return room if room >= _MIN_FIRST_WORD_CHARACTERS else _WORD_CHARACTERS


def _folded(name: str, words: Iterable[str], max_characters: int = _LINE_CHARACTERS) -> str:
    """Join words, each with its leading spaces, to a header that is folded (RFC 5322, 2.2.3) before spaces.

    A long first word stays beside the name if it is a plain one and the line is legal: some readers expect it there.
    """
    lines = [f"{name}:"]
    first_limit = MAX_LINE_OCTETS if max_characters == _LINE_CHARACTERS else max_characters
    for place, word in enumerate(words):
        if len(lines[-1]) + len(word) > (max_characters if place else first_limit):
            lines.append(word)
        else:
            lines[-1] += word
    return CRLF.join(lines) + CRLF


def encoded_words(text: str, first_characters: int = _FIRST_WORD_CHARACTERS) -> list[str]:
    """Return the text as encoded-words (RFC 2047) in UTF-8, in Q or B, whichever is shorter; no character is split.

    The first word has at most ``first_characters``, which leaves room for the header's name before it.
    """
    octets = text.encode()
    as_q = sum(octets.translate(_Q_CHARACTERS)) <= len(octets) * 4 // 3
    words = []
    start, room = 0, _room(first_characters, as_q=as_q)
    for place, letter in enumerate(text):
        # A header may have thousands of letters.
        if letter < "\x80":
            cost = _Q_CHARACTERS[ord(letter)] if as_q else 1
        else:
            cost = (2 if letter < "\u0800" else 3 if letter < "\U00010000" else 4) * (3 if as_q else 1)
        if cost > room and place > start:
            words.append(_encoded_word(text[start:place], as_q=as_q))
            start, room = place, _room(_WORD_CHARACTERS, as_q=as_q)
        room -= cost
    words.append(_encoded_word(text[start:], as_q=as_q))
    return words


def _room(characters: int, *, as_q: bool) -> int:
    """Return the capacity of an encoded-word of ``characters``: in characters for Q, in octets for B."""
    return characters - _WORD_OVERHEAD if as_q else (characters - _WORD_OVERHEAD) // 4 * 3


def _encoded_word(text: str, *, as_q: bool) -> str:
    octets = text.encode()
    if as_q:
        return f"=?utf-8?q?{''.join(_Q[octet] for octet in octets)}?="
    return f"=?utf-8?b?{base64.b64encode(octets).decode('ascii')}?="


@lru_cache(maxsize=16)
def date_header(second: int) -> str:
    """Return the Date header (RFC 5322, 3.3) of a time in epoch seconds, in UTC, ending with CRLF."""
    at = time.gmtime(second)
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04}"
    return f"Date: {day} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000{CRLF}"


def canonical(text: str) -> bytes:
    """Return a text as UTF-8 in which every line, the last one too, ends with CRLF; lone surrogates become '?'."""
    if "\r" in text:
        text = text.replace(CRLF, "\n").replace("\r", "\n")
    if not text.endswith("\n"):
        text += "\n"
    return text.replace("\n", CRLF).encode("utf-8", "replace")


def encode_body(octets: bytes, *, eight_bit: bool, is_plain: bool = False) -> Encoded:
    """Encode canonical octets as 7bit if possible, else as 8bit if the relay allows it, else as quoted-printable.

    ``is_plain``: they are known to have no odd control characters and no line that is too long.
    """
    is_ascii = octets.isascii()
    if (eight_bit or is_ascii) and (is_plain or not (has_odd_control(octets) or _has_long_line(octets))):
        return Encoded("7bit" if is_ascii else "8bit", octets)
    # b2a_qp writes soft line breaks like the first line end of its input: CRLF, because the input is canonical.
    return Encoded("quoted-printable", binascii.b2a_qp(octets, quotetabs=False, istext=True))


def has_odd_control(octets: bytes) -> bool:
    """Whether octets have a control character other than tab, CR and LF."""
    return len(octets.translate(None, _ODD_CONTROLS)) != len(octets)


def _has_long_line(octets: bytes) -> bool:
    """Whether a line is too long. Searches backwards from the longest line's end: a tenth of the cost of splitting."""
    start = 0
    while len(octets) - start > MAX_LINE_OCTETS + 2:
        end = octets.rfind(b"\r\n", start, start + MAX_LINE_OCTETS + 2)
        if end < 0:
            return True
        start = end + 2
    return False


def text_entity(subtype: str, octets: bytes, *, eight_bit: bool, is_plain: bool = False) -> Entity:
    """Return canonical octets as ``text/<subtype>`` in UTF-8; ``is_plain`` as in `encode_body`."""
    encoded = encode_body(octets, eight_bit=eight_bit, is_plain=is_plain)
    return Entity(_text_head(subtype, encoded.encoding), (encoded.octets,), encoded.encoding == "8bit")


@lru_cache
def _text_head(subtype: str, encoding: str) -> bytes:
    head = f"Content-Type: text/{subtype}; charset=utf-8{CRLF}Content-Transfer-Encoding: {encoding}{CRLF}{CRLF}"
    return head.encode("ascii")


def attachment_entity(attachment: Attachment) -> Entity:
    """Return an attached file in base64, or an inline one if it has a ``cid`` (RFC 2183, 2.1; RFC 2392).

    Its name is encoded by RFC 2231 if it cannot be a plain quoted string.
    """
    name, cid = attachment.name, attachment.cid
    if _PLAIN_FILE_NAME.fullmatch(name) and len(name) <= _MAX_PLAIN_FILE_NAME:
        parameter = f'filename="{name}"'
    else:
        parameter = f"filename*=utf-8''{percent_encoded(name, safe='')}"
    header = (
        f"{_content_type(attachment.type)}"
        f"Content-Disposition: {'attachment' if cid is None else 'inline'};{CRLF} {parameter}{CRLF}"
        f"{'' if cid is None else f'Content-ID: <{cid}>{CRLF}'}"
        f"Content-Transfer-Encoding: base64{CRLF}{CRLF}"
    )
    return Entity(header.encode("ascii"), (Base64File(attachment.content),))


def invitation_entity(invitation: Attachment) -> Entity:
    """Return a calendar object as an alternative of the text, which mail programs show as an invitation (RFC 6047)."""
    header = f"{_content_type(invitation.type)}Content-Transfer-Encoding: base64{CRLF}{CRLF}"
    return Entity(header.encode("ascii"), (Base64File(invitation.content),))


def _content_type(media_type: MediaType) -> str:
    return f"Content-Type: {f';{CRLF} '.join((media_type.essence, *media_type.parameters))}{CRLF}"


def multipart_entity(subtype: str, seed: str, parts: Sequence[Entity], parameter: str = "") -> Entity:
    """Return ``multipart/<subtype>`` with these parts; the boundary is made of ``seed`` and occurs in none of them.

    ``parameter`` is a further one of the type, such as ``type="text/html"``.

    "=_" cannot occur in base64 or quoted-printable (RFC 2045, 6.7); parts in other encodings are searched for it.
    """
    boundary = f"=_{seed}".encode("ascii")
    for number in itertools.count(1):
        if not _occurs(boundary, parts):
            break
        boundary = f"=_{seed}{number}".encode("ascii")
    pieces: list[bytes | Base64File] = []
    for part in parts:
        pieces += [b"%b--%b\r\n%b" % (b"\r\n" if pieces else b"", boundary, part.head), *part.pieces]
    is_eight_bit = any(part.is_eight_bit for part in parts)
    eight_bit = b"Content-Transfer-Encoding: 8bit\r\n" if is_eight_bit else b""
    further = f"{parameter};{CRLF} " if parameter else ""
    head = b'Content-Type: multipart/%b;\r\n %bboundary="%b"\r\n%b\r\n' % (
        subtype.encode("ascii"),
        further.encode("ascii"),
        boundary,
        eight_bit,
    )
    return Entity(head, (*pieces, b"\r\n--%b--\r\n" % boundary), is_eight_bit)


def _occurs(boundary: bytes, parts: Sequence[Entity]) -> bool:
    for part in parts:
        for octets in part.pieces:
            if isinstance(octets, bytes) and boundary in octets:
                return True
        if boundary in part.head:
            return True
    return False
