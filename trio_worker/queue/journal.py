"""Trio. The journal: a local file of settlements that Redis did not take, which outlives the worker.

Each process has a file, locked (flock) while the process lives. It begins with a header that names the queue and its
Redis; each further line is a settlement. A line is ``<CRC-32 as 8 hex digits> <JSON>``, and it counts when its newline
is on disk: a crash can leave half a line, which was never reported as kept. If the process has ended, the next worker
on the same queue takes the file over, sends its settlements to Redis, and deletes it. Sending them twice changes
nothing: every settlement is fenced by its claim's token.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio
from attrs import field

from trio_worker.own_files import UntrustedPathError, make_own_folder, open_own_file
from trio_worker.queue.settlement import SettlementRecord
from trio_worker.records import define, frozen

# The version of the format; a worker does not touch a file of another version.
FORMAT = 1
SUFFIX = ".journal"
_NUMBERS = frozenset({"delay_ms", "uncertain"})


class JournalUnusableError(ValueError):
    """The journal cannot be written or read; the message names the file, and for a bad line the line and what to do."""


@frozen
class Owner:
    """The queue and the Redis whose settlements a file holds."""

    queue: str
    redis: str


@define(eq=False)
class Journal:
    """The file of this process, and the settlements taken over from other files. Made by `open_journal`.

    `append` and `clear` wait for the disk in a thread.
    """

    path: Path
    orphaned: tuple[SettlementRecord, ...]
    _file: int
    _header_bytes: int
    _good_bytes: int
    _orphans: list[Path]
    _writing: trio.Lock = field(factory=trio.Lock)

    @property
    def is_empty(self) -> bool:
        """Whether no settlement of this process waits in its file."""
        return self._good_bytes == self._header_bytes

    async def append(self, entries: Iterable[SettlementRecord]) -> str:
        """Append settlements and wait until they are on disk; return why that failed, or "".

        All of them count or none: the rest of a failed write is cut off.
        """
        lines = b"".join(_line(attrs.asdict(entry)) for entry in entries)
        async with self._writing:
            return await trio.to_thread.run_sync(self._append, lines, abandon_on_cancel=True)

    async def clear(self) -> None:
        """Remove the settlements of this process: Redis has them all. Not synced to disk, as repeats are harmless."""
        async with self._writing:
            self._cut(self._header_bytes)

    def drop_orphaned(self) -> None:
        """Delete the files that were taken over: Redis has their settlements."""
        self.orphaned = ()
        for path in self._orphans:
            path.unlink(missing_ok=True)
        self._orphans.clear()

    def _append(self, lines: bytes) -> str:
        try:
            _write_all(self._file, lines, self._good_bytes)
        except OSError as error:
            self._cut(self._good_bytes)
            return error.strerror or type(error).__name__
        self._good_bytes += len(lines)
        return ""

    def _cut(self, size: int) -> None:
        # If this fails too, the next write begins at the same offset.
        with suppress(OSError):
            os.ftruncate(self._file, size)
        self._good_bytes = size


@contextmanager
def open_journal(folder: Path, owner: Owner) -> Iterator[Journal]:
    """Open the journal of this process in ``folder``, and take over the files of processes that have ended.

    At the end of the block the file is deleted if it is empty, else left to the next worker. Blocks while the disk
    works. Raises `JournalUnusableError` if a file cannot be written, read or understood.
    """
    with ExitStack() as stack:
        try:
            make_own_folder(folder)
            orphans = list(_take_over(folder, owner, stack))
            path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
            file, header_bytes = _create(path, owner, stack)
        except UntrustedPathError as error:
            raise JournalUnusableError(str(error.strerror)) from error
        except OSError as error:
            raise JournalUnusableError(f"{error.filename or folder}: {error.strerror}") from error
        entries = tuple(entry for _, entries in orphans for entry in entries)
        journal = Journal(path, entries, file, header_bytes, header_bytes, [path for path, _ in orphans])
        try:
            yield journal
        finally:
            if journal.is_empty:
                path.unlink(missing_ok=True)


def read_journal(content: bytes, path: Path) -> tuple[Owner, tuple[SettlementRecord, ...]]:
    """Return the owner and the settlements of a journal; a last line without a newline is left out.

    Raises `JournalUnusableError` for any other fault.
    """
    lines = content.split(b"\n")[:-1]
    documents = [_read_line(line, number, path) for number, line in enumerate(lines, start=1)]
    header = documents[0] if documents else {}
    if header.get("format") != FORMAT:
        raise JournalUnusableError(f"{path}:1: is not a journal of format {FORMAT}: {_WAY_OUT}")
    entries = tuple(_read_entry(document, number, path) for number, document in enumerate(documents[1:], start=2))
    return Owner(str(header.get("queue")), str(header.get("redis"))), entries


_WAY_OUT = "move it away to go on without it; the mails it tells of may then be sent again"


def _take_over(folder: Path, owner: Owner, stack: ExitStack) -> Iterator[tuple[Path, tuple[SettlementRecord, ...]]]:
    """Lock and read the files of processes that have ended; leave those of other queues unchanged."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with ExitStack() as trying:
            try:
                file = open_own_file(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # its process has just ended, with an empty journal
            trying.callback(os.close, file)
            if not _try_lock(file):
                continue
            whose, entries = read_journal(_read_all(file), path)
            if whose == owner and not entries:
                path.unlink(missing_ok=True)  # else each killed process would leave a file behind
            elif whose == owner:
                stack.push(trying.pop_all())
                yield path, entries


def _create(path: Path, owner: Owner, stack: ExitStack) -> tuple[int, int]:
    """Create a file under another name, lock it, write its header, then rename it; return it and the header's size.

    So no other process can see it without lock or header.
    """
    unseen = path.with_suffix(".new")
    file = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        header = _line({"format": FORMAT, **attrs.asdict(owner)})
        _write_all(file, header, 0)
        unseen.rename(path)
    except OSError:
        unseen.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return file, len(header)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that the name of a new file survives a power failure."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_all(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _write_all(file: int, content: bytes, at: int) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:], at + written)
    os.fsync(file)


def _line(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_line(line: bytes, number: int, path: Path) -> dict[str, Any]:
    digits, _, text = line.partition(b" ")
    if digits != b"%08x" % zlib.crc32(text):
        raise JournalUnusableError(f"{path}:{number}: is damaged: {_WAY_OUT}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise JournalUnusableError(f"{path}:{number}: is no JSON: {_WAY_OUT}") from None
    if not isinstance(document, dict):
        raise JournalUnusableError(f"{path}:{number}: is no settlement: {_WAY_OUT}")
    return document


def _read_entry(document: dict[str, Any], number: int, path: Path) -> SettlementRecord:
    kinds = {each.name: int if each.name in _NUMBERS else str for each in attrs.fields(SettlementRecord)}
    if document.keys() != kinds.keys() or not all(type(document[name]) is kind for name, kind in kinds.items()):
        raise JournalUnusableError(f"{path}:{number}: is no settlement: {_WAY_OUT}")
    return SettlementRecord(**document)
