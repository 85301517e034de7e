"""Edge. Receipts of sent mails, as `job find` prints them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from trio_worker.cli.job_text import time_of_day
from trio_worker.cli.output import answer_or_exit
from trio_worker.cli.table import wrapped
from trio_worker.jobs.address import as_sent
from trio_worker.mail.message_id import message_id_of
from trio_worker.printing import complain
from trio_worker.queue.receipt import Receipt, mark_of
from trio_worker.queue.sent import SentSearch, find_sent
from trio_worker.redis.calls import RedisCalls
from trio_worker.settings.record import Settings
from trio_worker.telemetry.number_words import counted

_DAY_SECONDS = 86_400.0


async def search_receipts(
    client: RedisCalls, settings: Settings, address: str, producer_id: str, mail_id: str
) -> list[Receipt]:
    """Return the receipts of the mails that match; what was searched, or why not, goes to standard error.

    ``mail_id`` is the left side of a Message-ID.
    """
    options = settings.history
    if not (address or producer_id or mail_id):
        return []
    if not options.days:
        complain("mails that were sent are not searched: no receipts are kept (history.days)")
        return []
    search = SentSearch(mark_of(as_sent(address), options.key) if address else "", producer_id, mail_id)
    since = time.time() - options.days * _DAY_SECONDS
    found, looked_at = answer_or_exit(await find_sent(client, settings.queue.name, search, since), settings)
    complain(f"{len(found):,} sent; {counted(looked_at, 'receipt')} of the last {options.days:g} days read")
    return found


def receipt_documents(receipts: Sequence[Receipt], settings: Settings) -> list[dict[str, Any]]:
    """Return receipts for ``--json``."""
    return [
        {
            "at": time_of_day(each.at),
            "job_id": each.job_id,
            "producer_id": each.producer_id or None,
            "relay": each.relay,
            "reply": each.reply,
            "recipients": len(each.marks),
            "message_id": message_id_of(each.mail_id or each.job_id, settings.mail),
        }
        for each in receipts
    ]


def receipt_lines(receipts: Sequence[Receipt], settings: Settings) -> Iterator[str]:
    """Yield the lines of receipts: the time and the relay, its reply, the Message-ID."""
    for each in receipts:
        named = f", id {each.producer_id}" if each.producer_id else ""
        several = f" for {len(each.marks):,} recipients" if len(each.marks) > 1 else ""
        yield from wrapped(f"sent {time_of_day(each.at)} to {each.relay}{several}: job {each.job_id}{named}")
        yield from wrapped(each.reply, "  ")
        yield from wrapped(f"Message-ID {message_id_of(each.mail_id or each.job_id, settings.mail)}", "  ")
