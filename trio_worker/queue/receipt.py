"""Pure. Receipts: what is kept in Redis of a mail that was sent, for the question whether it was.

No receipt has an address: it has marks, each the first half of an HMAC-SHA256 (RFC 2104) of one. Who has the key can
ask for an address, and nobody can read one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from trio_worker.privacy import mask_text
from trio_worker.queue.options import HistoryOptions
from trio_worker.records import define, frozen

_DAY_MS = 86_400_000
_MARK_DIGITS = 32
_BLOCK_BYTES = 64  # of SHA-256
_REPLY_CHARACTERS = 120
# A Message may have hundreds of recipients; a receipt is not to be larger than the job was.
_MAX_MARKS = 1000


@define(eq=False)
class ReceiptWriter:
    """Writes the receipts of one worker; ``relay`` is the name of its relay."""

    options: HistoryOptions
    relay: str

    def receipt(
        self, job_id: str, recipients: Sequence[str], reply: str, producer_id: str = "", mail_id: str = ""
    ) -> str:
        """Return the receipt of one mail as the script ``settle`` takes it: its limits, then the receipt.

        ``mail_id`` is the left side of the Message-ID, if it is not the job's id.
        """
        head = f"{self._limits}{job_id}\t{self.relay}\t{_cleaned(reply)}"
        return f"{head}\t{self._marks(recipients)}\t{mail_id}\t{producer_id}"

    def _marks(self, recipients: Sequence[str]) -> str:
        mark = self._marker.mark
        return ",".join([mark(recipient) for recipient in recipients[:_MAX_MARKS]])

    @cached_property
    def _marker(self) -> _Marker:
        return _Marker(self.options.key)

    @cached_property
    def _limits(self) -> str:
        return f"{self.options.max_entries} {round(self.options.days * _DAY_MS)} "


@frozen
class Receipt:
    """A mail that a relay took at a time (epoch seconds of Redis' clock)."""

    at: float
    job_id: str
    relay: str
    reply: str
    marks: tuple[str, ...]
    mail_id: str  # the left side of the Message-ID; empty if it is the job's id
    producer_id: str


def read_receipt(at_ms: int, wire: str) -> Receipt | None:
    """Read a receipt; None if another version wrote something else."""
    parts = wire.split("\t", 5)
    if len(parts) != 6:
        return None
    job_id, relay, reply, marks, mail_id, producer_id = parts
    return Receipt(at_ms / 1000, job_id, relay, reply, tuple(marks.split(",")), mail_id, producer_id)


def mark_of(address: str, key: str) -> str:
    """Return the mark of an address; capitals make no difference."""
    return _Marker(key).mark(address)


class _Marker:
    """HMAC-SHA256 with one key (RFC 2104, 2 and 4): both hashes begin with the key, and are kept as they are after it.

    There is a mark for each mail: the library's HMAC, which begins anew each time, takes four times as long.
    """

    def __init__(self, key: str) -> None:
        given = key.encode()
        block = (hashlib.sha256(given).digest() if len(given) > _BLOCK_BYTES else given).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in block))
        self._outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in block))

    def mark(self, address: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(address.casefold().encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.hexdigest()[:_MARK_DIGITS]


def _cleaned(reply: str) -> str:
    """Return the start of a reply without addresses and links; most replies have none."""
    short = reply[:_REPLY_CHARACTERS]
    if "@" in short or "://" in short:
        short = mask_text(reply)[:_REPLY_CHARACTERS]
    return short.replace("\t", " ") if "\t" in short else short
