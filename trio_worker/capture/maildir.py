"""Edge. The Maildir of the catcher, whose files begin with the envelope; any process may write and read it.

Nothing here awaits. A file is written in ``tmp`` and renamed into ``new``, so a reader never sees half of it. Its first
lines are headers of ours; the last of them has the size of the original message, which follows unchanged.
"""

from __future__ import annotations

import itertools
import os
import time
from datetime import UTC, datetime
from email.errors import MessageError
from email.parser import BytesHeaderParser
from email.policy import default as modern_policy
from typing import TYPE_CHECKING

from trio_worker.own_files import make_own_folder, open_own_file
from trio_worker.records import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio_worker.capture.actions import CaughtMail

_FROM = b"X-Envelope-From: "
_TO = b"X-Envelope-To: "
_OCTETS = b"X-Capture-Octets: "
_FOLDERS = ("new", "cur")
_MARK_OF_FLAGS = ":2,"
# Enough for an envelope with a thousand recipients and the headers; a summary must not read whole attachments.
HEADERS_READ_BYTES = 512 * 1024

_numbers = itertools.count(1)


@frozen
class CaughtSummary:
    """One line in the list of caught mails. ``at`` is in UTC, ``size_bytes`` the size of the original message."""

    key: str
    at: datetime
    sender: str
    recipients: tuple[str, ...]
    subject: str
    size_bytes: int


def make_maildir(folder: Path) -> None:
    """Make the folders of a Maildir if they are missing, readable by their owner only; raises OSError."""
    for name in ("", "tmp", "new", "cur"):
        make_own_folder(folder / name)


def write_mails(folder: Path, mails: Sequence[CaughtMail]) -> None:
    """Write mails in order; blocks on the disk, raises OSError."""
    for mail in mails:
        at_ns = time.time_ns()
        key = f"{at_ns // 10**9}.M{at_ns // 1000 % 10**6:06}P{os.getpid()}Q{next(_numbers):06}"
        unfinished = folder / "tmp" / key
        with os.fdopen(open_own_file(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(_head(mail) + mail.content)
        unfinished.rename(folder / "new" / key)


def list_caught(folder: Path, newest: int | None = None) -> list[CaughtSummary]:
    """Return caught mails, oldest first: all, or only the ``newest`` ones, and then the others are not read.

    A missing folder has none. Blocks on the disk.
    """
    paths = sorted(_paths(folder), key=_key)
    summaries = map(_summary, paths if newest is None else paths[max(0, len(paths) - newest) :])
    return [summary for summary in summaries if summary is not None]


def count_caught(folder: Path) -> int:
    """Return how many mails were caught. Blocks on the disk."""
    return len(_paths(folder))


def read_caught(folder: Path, key: str) -> bytes | None:
    """Return the original octets of one mail, or None if no mail has this key. Blocks on the disk."""
    for path in _paths(folder):
        if _key(path) == key:
            return _original(path.read_bytes())
    return None


def clear_caught(folder: Path) -> int:
    """Remove all caught mails; return how many. Blocks on the disk."""
    removed = 0
    for path in _paths(folder):
        path.unlink(missing_ok=True)
        removed += 1
    return removed


def _head(mail: CaughtMail) -> bytes:
    parameters = " ".join(f"{key}={value}" if value else key for key, value in mail.parameters.items())
    way = ["BDAT" if mail.used_bdat else "DATA", "TLS" if mail.tls else "in clear", f"connection {mail.connection_id}"]
    lines = [
        _FROM + f"<{mail.sender}>".encode(),
        *(_TO + f"<{recipient}>".encode() for recipient in mail.recipients),
        b"X-Capture-Way: " + ", ".join(way).encode(),
        *([f"X-Capture-Parameters: {parameters}".encode()] if parameters else []),
        *([b"X-Capture-User: " + ascii(mail.user).encode()] if mail.user is not None else []),
        _OCTETS + str(len(mail.content)).encode(),
    ]
    return b"".join(line + b"\r\n" for line in lines)


def _paths(folder: Path) -> list[Path]:
    """Return the files; folders and links, which the catcher has not made, are no mails."""
    return [
        folder / name / entry.name
        for name in _FOLDERS
        if (folder / name).is_dir()
        for entry in os.scandir(folder / name)
        if entry.is_file(follow_symlinks=False)
    ]


def _key(path: Path) -> str:
    """Return the file name without the flags that a mail program adds when it moves a mail to ``cur``."""
    return path.name.partition(_MARK_OF_FLAGS)[0]


def _split(stored: bytes) -> tuple[list[bytes], int] | None:
    """Return our header lines and the offset of the original; None for a file that the catcher has not written."""
    end = stored.find(b"\r\n" + _OCTETS)
    if not stored.startswith(_FROM) or end < 0:
        return None
    begin = stored.find(b"\r\n", end + 2) + 2
    return stored[: begin - 2].split(b"\r\n"), begin


def _original(stored: bytes) -> bytes:
    found = _split(stored)
    return stored if found is None else stored[found[1] :]


def _summary(path: Path) -> CaughtSummary | None:
    try:
        stored, size_bytes, at = _peek(path)
    except OSError:
        return None  # it was cleared, or moved by a mail program, after the folder was listed
    lines, begin = _split(stored) or ([], 0)
    return CaughtSummary(
        key=_key(path),
        at=at,
        sender=_addresses(lines, _FROM)[0] if lines else "",
        recipients=_addresses(lines, _TO),
        subject=_subject(stored[begin:]),
        size_bytes=size_bytes - begin,
    )


def _peek(path: Path) -> tuple[bytes, int, datetime]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        return file.read(HEADERS_READ_BYTES), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC)


def _addresses(lines: list[bytes], name: bytes) -> tuple[str, ...]:
    found = (line.removeprefix(name) for line in lines if line.startswith(name))
    return tuple(address[1:-1].decode("utf-8", "replace") for address in found)


def _subject(message: bytes) -> str:
    """Return the decoded subject, with spaces for control characters."""
    headers = message.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        subject = str(BytesHeaderParser(policy=modern_policy).parsebytes(headers)["Subject"] or "")
    except (MessageError, ValueError, IndexError):  # the library's parser gives up on some malformed headers
        return ""
    return "".join(character if character.isprintable() else " " for character in subject)
