"""Edge. The octets of an unfinished message: few in memory, many in a file; those of all connections are bounded."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import IO

from attrs import field

from trio_worker.records import define

# Of all connections together: 50 messages of twice the largest size that is announced by default.
HELD_LIMIT_BYTES = 1024 * 1024 * 1024
# From this size on the octets are in a file; most mails are smaller.
SPOOLED_FROM_BYTES = 64 * 1024


@define
class HeldOctets:
    """How many octets all spools of one server hold, and how many they may."""

    limit_bytes: int = HELD_LIMIT_BYTES
    count: int = 0


@define(eq=False)
class Spool:
    """Octets that wait for the rest of their message; if they are many, in the file that ``open_file`` opens.

    `clear` closes the file; call it before the spool is forgotten.
    """

    held: HeldOctets = field(factory=HeldOctets)
    open_file: Callable[[], IO[bytes]] = BytesIO
    _memory: bytearray = field(factory=bytearray)
    _file: IO[bytes] | None = None
    _size: int = 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_large(self) -> bool:
        """Whether it has a file."""
        return self._file is not None

    def append(self, octets: bytes | bytearray) -> bool:
        """Add octets; False if there is no room for them, in the sum or on the disk, and then the spool is empty."""
        if self.held.count + len(octets) > self.held.limit_bytes:
            self.clear()
            return False
        try:
            self._write(octets)
        except OSError:
            self.clear()
            return False
        self._size += len(octets)
        self.held.count += len(octets)
        return True

    def take(self) -> bytes:
        """Return all octets, and forget them. Raises OSError if the file cannot be read."""
        try:
            return bytes(self._memory) if self._file is None else self._read(self._file)
        finally:
            self.clear()

    def clear(self) -> None:
        """Forget all octets."""
        self.held.count -= self._size
        self._size = 0
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, octets: bytes | bytearray) -> None:
        if self._file is None:
            self._memory += octets
            if len(self._memory) < SPOOLED_FROM_BYTES:
                return
            octets, self._memory = self._memory, bytearray()
            self._file = self.open_file()
        self._file.write(octets)

    def _read(self, file: IO[bytes]) -> bytes:
        file.seek(0)
        return file.read()
