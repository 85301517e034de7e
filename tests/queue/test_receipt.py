"""Receipts of sent mails: nobody can read an address in them, who has the key can ask for one; and their number."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import HistoryOptions, QueueOptions
from trio_worker.queue.receipt import Receipt, ReceiptWriter, mark_of, read_receipt
from trio_worker.queue.sent import SentSearch, find_sent
from trio_worker.queue.settlement import DONE, Settlement, SettleResult
from trio_worker.redis.client import RedisClient

KEY = "a random text"
OPTIONS = HistoryOptions(days=3, max_entries=1000, key=KEY)
WRITER = ReceiptWriter(OPTIONS, "mail.example:587")
ANN = "ann.secret@example.org"


def receipt(job_id: str, *recipients: str, reply: str = "250 2.0.0 queued as 7F", producer_id: str = "") -> str:
    return WRITER.receipt(job_id, recipients, reply, producer_id)


@given(st.text(max_size=40), st.lists(st.emails(), min_size=1, max_size=3), st.text(max_size=30))
def test_a_receipt_is_read_as_it_was_written(reply: str, recipients: list[str], producer_id: str) -> None:
    """Whatever a relay said and whatever id a producer gave; and no address is in it."""
    wire = receipt("01ab", *recipients, reply=reply, producer_id=producer_id)
    most, keep_ms, kept = wire.split(" ", 2)

    read = read_receipt(5000, kept)
    assert (most, keep_ms) == ("1000", "259200000")
    assert isinstance(read, Receipt)
    assert (read.at, read.job_id, read.relay, read.producer_id) == (5.0, "01ab", "mail.example:587", producer_id)
    assert read.marks == tuple(mark_of(each.upper().lower(), KEY) for each in recipients)


@given(st.text(max_size=200), st.text(max_size=100))
def test_a_mark_is_an_hmac(key: str, address: str) -> None:
    """As the library makes it, for keys shorter and longer than a block of the hash; cut to half."""
    key = key.encode("utf-8", "ignore").decode()
    whole = hmac.digest(key.encode(), address.casefold().encode("utf-8", "surrogatepass"), "sha256").hex()

    assert mark_of(address, key) == whole[:32]


def test_no_address_is_in_a_receipt() -> None:
    """Also not in what the relay said, where many repeat it; another key gives other marks."""
    kept = receipt("01ab", ANN, reply=f"250 <{ANN}> accepted")

    assert "ann.secret" not in kept
    assert mark_of(ANN.upper(), KEY) in kept
    assert mark_of(ANN, "another key") not in kept
    assert read_receipt(0, "another version") is None


async def send(client: RedisClient, *receipts: str) -> list[Settlement]:
    """Push, claim and settle a job for each receipt."""
    broker = Broker(client, QueueOptions())
    await client.command("RPUSH", "jobs", *[b"{}"] * len(receipts))
    claims = await broker.claim(len(receipts))
    assert isinstance(claims, Claims)
    done = [Settlement(job, DONE, receipt=each) for job, each in zip(claims.jobs, receipts, strict=True)]
    assert await broker.settle(done) == [SettleResult.SETTLED] * len(done)
    return done


async def found(client: RedisClient, since: float = 0.0, **wanted: Any) -> list[str]:
    answer = await find_sent(client, "jobs", SentSearch(**wanted), since)
    assert isinstance(answer, tuple)
    return [each.job_id for each in answer[0]]


async def test_receipts_are_found_by_address_and_by_id(redis: RedisClient) -> None:
    """The newest first; an id is no part of another one."""
    await send(
        redis,
        receipt("a", ANN, producer_id="ORDER-17"),
        receipt("b", "bob@example.org", producer_id="ORDER-170"),
        receipt("c", "bob@example.org", ANN, producer_id="ORDER-1"),
    )

    assert await found(redis, mark=mark_of(ANN, KEY)) == ["c", "a"]
    assert await found(redis, producer_id="ORDER-17") == ["a"]
    assert await found(redis, mail_id="b") == ["b"]
    assert await found(redis, mark=mark_of("nobody@example.org", KEY)) == []
    assert await found(redis, since=4e9, producer_id="ORDER-17") == []


async def test_a_repeated_settlement_leaves_one_receipt(redis: RedisClient) -> None:
    """Its answer may have been lost; and without receipts nothing is kept."""
    done = await send(redis, receipt("a", ANN))
    await Broker(redis, QueueOptions()).settle(done)
    await send(redis, "", "")

    assert await redis.command("XLEN", keys_of("jobs").history) == 1
    left_ms = await redis.command("PTTL", keys_of("jobs").history)
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= 259_200_000


async def test_receipts_are_bounded_in_number_and_age(real_redis: RedisClient) -> None:
    """Old ones go while new ones come; Redis trims by whole blocks of about a hundred."""
    history = keys_of("jobs").history
    writer = ReceiptWriter(HistoryOptions(days=1, max_entries=150, key=KEY), "relay:25")
    await real_redis.command("XADD", history, "1000-0", "receipt", "old\tr\t\t\t\t")
    for page in range(10):
        await send(real_redis, *(writer.receipt(f"{page}.{n}", [ANN], "250") for n in range(100)))

    kept = await real_redis.command("XLEN", history)
    assert isinstance(kept, int)
    assert 150 <= kept < 400
    assert await found(real_redis, mail_id="old") == []
    assert len(await found(real_redis, mark=mark_of(ANN, KEY))) < 400


@pytest.mark.parametrize("length", [499, 500, 1001])
async def test_every_receipt_is_searched(real_redis: RedisClient, length: int) -> None:
    """Page by page, none left out at an edge."""
    history = keys_of("jobs").history
    calls = [("XADD", history, f"{9_000_000 + n}-0", "receipt", f"j{n}\tr\t250\tm\t\t") for n in range(length)]
    await real_redis.pipeline(calls)

    assert await found(real_redis, mail_id="j0") == ["j0"]
    answer = await find_sent(real_redis, "jobs", SentSearch(mark="m"), 0.0)
    assert isinstance(answer, tuple)
    assert (len(answer[0]), answer[1]) == (length, length)
