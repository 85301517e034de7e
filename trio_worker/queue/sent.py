"""Trio. Searches the receipts of the mails that were sent in the last days."""

from __future__ import annotations

from trio_worker.queue.keys import keys_of
from trio_worker.queue.receipt import Receipt, read_receipt
from trio_worker.records import frozen
from trio_worker.redis.calls import RedisCalls, Unavailable

# Receipts that one call of the script reads: 1 to 2 ms of Redis' time.
_AT_ONCE = 500


@frozen
class SentSearch:
    """What to search for; an empty field matches all.

    ``mark`` is that of an address, ``mail_id`` the left side of a Message-ID.
    """

    mark: str = ""
    producer_id: str = ""
    mail_id: str = ""

    def takes(self, receipt: Receipt) -> bool:
        """Whether the receipt matches."""
        return (
            (not self.mark or self.mark in receipt.marks)
            and self.producer_id in ("", receipt.producer_id)
            and self.mail_id in ("", receipt.mail_id, receipt.job_id)
        )


async def find_sent(
    client: RedisCalls, name: str, search: SentSearch, since: float
) -> tuple[list[Receipt], int] | Unavailable:
    """Return the receipts after ``since`` (epoch seconds) that match, newest first; and how many were read."""
    needle = search.mark or search.mail_id or search.producer_id
    found: list[Receipt] = []
    looked_at, first = 0, "+"
    while True:
        answer = await client.run_script("sent", keys_of(name).of_jobs, first, _AT_ONCE, needle)
        if isinstance(answer, Unavailable):
            return answer
        last, count, matches = answer
        looked_at += count
        for entry_id, wire in zip(matches[::2], matches[1::2], strict=True):
            receipt = read_receipt(_milliseconds(entry_id), wire.decode("utf-8", "replace"))
            if receipt is not None and search.takes(receipt) and receipt.at >= since:
                found.append(receipt)
        if count < _AT_ONCE or _milliseconds(last) < since * 1000:
            return found, looked_at
        first = f"({last.decode()}"


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
