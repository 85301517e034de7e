"""The journal: settlements that Redis did not take are on disk, and are sent later, by this worker or the next one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support.catcher import times_sent
from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.capture.catcher import Catcher
from trio_worker.cli.run import owner_of
from trio_worker.fleet.report import Reporter
from trio_worker.queue import journal as journal_module
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.journal import JournalUnusableError, Owner, open_journal, read_journal
from trio_worker.queue.settlement import SettlementRecord
from trio_worker.redis.client import RedisClient
from trio_worker.redis.options import RedisOptions
from trio_worker.settings.reader import Settings
from trio_worker.worker.events import JournalFailed, JournalReplayed, RedisFailed, SettlementsKept
from trio_worker.worker.options import ShutdownOptions
from trio_worker.worker.phase import Disposition

OWNER = Owner("jobs", "localhost:6379")
DONE = SettlementRecord("01abc", "r.1", "done", 0, "")
DELAY = SettlementRecord("01abd", "r.1", "delay", 60_000, '{"born":1.0,"attempts":1}')
entries = st.builds(
    SettlementRecord,
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1),
    st.text(max_size=20),
    st.sampled_from(["done", "delay", "hold", "bury"]),
    st.integers(0, 2**40),
    st.text(),
)


async def write(folder: Path, *batches: list[SettlementRecord]) -> Path:
    """Write a journal and leave it as a crash would: the lock is free and the file is there."""
    with open_journal(folder, OWNER) as journal:
        for batch in batches:
            assert await journal.append(batch) == ""
        return journal.path


def left_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@given(batches=st.lists(st.lists(entries, max_size=4), max_size=4))
def test_what_is_written_is_read_back(
    batches: list[list[SettlementRecord]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In its order, with any text."""
    folder = tmp_path_factory.mktemp("journal")
    path = trio.run(write, folder, *batches)
    wanted = tuple(entry for batch in batches for entry in batch)

    assert path.exists() == bool(wanted)
    if wanted:
        assert read_journal(path.read_bytes(), path) == (OWNER, wanted)


async def test_the_keys_of_a_line_stay(tmp_path: Path) -> None:
    """A journal may be replayed by another version: a key that is renamed there would be a settlement that is lost."""
    path = await write(tmp_path, [DELAY])
    head, line = (json.loads(each.partition(b" ")[2]) for each in path.read_bytes().splitlines())

    assert list(head) == ["format", "queue", "redis"]
    assert list(line) == ["job_id", "token", "what", "delay_ms", "record", "uncertain"]


async def test_what_a_crash_tore_off_does_not_count_and_spoils_nothing(tmp_path: Path) -> None:
    """Cut at any byte after the header, the whole lines before the cut are read."""
    path = await write(tmp_path, [DONE], [DELAY])
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]

    for cut in range(ends[0], len(content) + 1):
        _, read = read_journal(content[:cut], path)
        assert read == (DONE, DELAY)[: sum(end <= cut for end in ends) - 1]


@given(place=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_a_damaged_journal_is_refused_with_its_place_and_a_way_out(place: int, mask: int) -> None:
    """No flipped bit turns one settlement into another."""
    path = Path("x.journal")
    header = journal_module._line({"format": 1, "queue": "jobs", "redis": "localhost:6379"})
    content = bytearray(
        header
        + journal_module._line(
            {"job_id": "a", "token": "t", "what": "done", "delay_ms": 0, "record": "", "uncertain": 0}
        )
    )
    whole = read_journal(bytes(content), path)
    content[place % len(content)] ^= mask
    is_last_newline = place % len(content) == len(content) - 1
    if is_last_newline:
        # Then the line was never finished.
        assert read_journal(bytes(content), path) == (whole[0], ())
        return
    with pytest.raises(JournalUnusableError, match=r"x\.journal.*move it away"):
        read_journal(bytes(content), path)


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\x00" * 100 + b"\n", b"00000000 {}\n"])
async def test_a_file_that_is_no_journal_keeps_a_worker_from_claiming(content: bytes, tmp_path: Path) -> None:
    """It is not deleted, not skipped, and named."""
    (tmp_path / "1-a.journal").write_bytes(content)

    with pytest.raises(JournalUnusableError, match=r"1-a\.journal"), open_journal(tmp_path, OWNER):
        pass
    assert [path.name for path in left_in(tmp_path)] == ["1-a.journal"]


async def test_a_journal_that_goes_away_while_it_is_looked_for_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ended after the file was listed and before it was opened."""
    monkeypatch.setattr(Path, "glob", lambda *_: [tmp_path / "1-a.journal"])

    with open_journal(tmp_path, OWNER) as journal:
        assert journal.orphaned == ()


async def test_an_unwritable_folder_is_refused_with_its_reason(tmp_path: Path) -> None:
    """At the start, before anything is claimed."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalUnusableError, match="file"), open_journal(tmp_path / "file" / "journal", OWNER):
        pass


async def test_the_journal_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Its own process sends it to Redis."""
    with open_journal(tmp_path, OWNER) as first:
        await first.append([DONE])
        with open_journal(tmp_path, OWNER) as second:
            assert second.orphaned == ()
        assert left_in(tmp_path) == [first.path]
    with open_journal(tmp_path, OWNER) as third:
        assert third.orphaned == (DONE,)


@pytest.mark.parametrize("owner", [Owner("other", "localhost:6379"), Owner("jobs", "elsewhere:6379")])
async def test_the_journal_of_another_queue_is_left_alone(owner: Owner, tmp_path: Path) -> None:
    """The same id may be another job there."""
    path = await write(tmp_path, [DONE])
    with open_journal(tmp_path, owner) as journal:
        assert journal.orphaned == ()
        journal.drop_orphaned()
    assert path.exists()


async def test_an_empty_journal_leaves_no_file(tmp_path: Path) -> None:
    """Also when it was written and cleared."""
    with open_journal(tmp_path, OWNER) as journal:
        await journal.append([DONE])
        await journal.clear()
        assert journal.is_empty
    assert left_in(tmp_path) == []


async def test_a_process_that_was_killed_with_nothing_to_tell_leaves_no_file_for_ever(tmp_path: Path) -> None:
    """The next one clears it away; that of another queue stays."""
    for name, owner in (("1-left", OWNER), ("2-other", Owner("other", "localhost:6379"))):
        with open_journal(tmp_path / "made", owner) as journal:
            (tmp_path / f"{name}{journal.path.suffix}").write_bytes(journal.path.read_bytes())
    (tmp_path / "made").rmdir()
    with open_journal(tmp_path, OWNER) as journal:
        assert journal.orphaned == ()
    assert [path.stem for path in left_in(tmp_path)] == ["2-other"]


async def test_a_write_that_fails_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is reported, and later entries are read back complete."""
    real = os.pwrite
    with open_journal(tmp_path, OWNER) as journal:
        await journal.append([DONE])

        def full(file: int, content: bytes, at: int) -> int:
            real(file, content[:5], at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        assert await journal.append([DELAY]) == "No space left on device"
        monkeypatch.setattr(os, "pwrite", real)
        assert await journal.append([DELAY]) == ""
        path = journal.path
    assert read_journal(path.read_bytes(), path)[1] == (DONE, DELAY)


@asynccontextmanager
async def refusing_writes(client: RedisClient) -> AsyncIterator[None]:
    """A Redis that has lost its replicas: it answers, and takes no write."""
    await client.command("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        yield
    finally:
        await client.command("CONFIG", "SET", "min-replicas-to-write", "0")


async def run(reporter: Reporter) -> int:
    with trio.fail_after(60):
        code = await reporter.run()
    assert reporter.board.ledger.balances
    return code


async def test_mails_whose_settlements_redis_did_not_take_are_settled_by_the_next_worker(
    workers: WorkerMaker, catcher: Catcher, tmp_path: Path
) -> None:
    """The first ends on time with them in its journal; the next settles them first, and no mail is sent twice."""
    catcher.faults = faults("final=delay-1s")
    await workers.push(*(job_bytes(number) for number in range(30)))
    options = workers.options(catcher.port, shutdown=ShutdownOptions(grace_seconds=1.0))
    with open_journal(tmp_path, OWNER) as journal:
        reporter = workers.make(options, is_burst=False, journal=journal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(60):
                await workers.wait_until(lambda: reporter.board.ledger.claimed == 10)
                async with refusing_writes(workers.client):
                    await catcher.wait_for_mails(10)
                    await workers.wait_until(
                        lambda: any(isinstance(event, SettlementsKept) for event in workers.events)
                    )
                    reporter.worker.drain("SIGTERM")
                    await workers.wait_until(lambda: reporter.board.ledger.balances)
        unsettled = reporter.board.ledger.settled[Disposition.UNSETTLED]
    assert unsettled == 10
    assert len(left_in(tmp_path)) == 1

    catcher.faults = faults("")
    with open_journal(tmp_path, OWNER) as journal:
        assert len(journal.orphaned) == 10
        await run(workers.make(options, journal=journal))
    assert set(times_sent(catcher).values()) == {1}
    assert catcher.total == 30
    assert [event for event in workers.events if isinstance(event, JournalReplayed)] == [JournalReplayed(10, 0)]
    assert left_in(tmp_path) == []


async def test_nothing_is_claimed_before_redis_knows_what_was_sent(
    workers: WorkerMaker, catcher: Catcher, tmp_path: Path
) -> None:
    """Leases that ran out while Redis refused are not claimed again by the worker that had sent their mails."""
    await workers.push(*(job_bytes(number) for number in range(40)))
    options = workers.options(catcher.port)
    with open_journal(tmp_path, OWNER) as journal:
        reporter = workers.make(options, is_burst=False, journal=journal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(60):
                await catcher.wait_for_mails(5)
                async with refusing_writes(workers.client):
                    await workers.wait_until(lambda: any(isinstance(event, RedisFailed) for event in workers.events))
                await catcher.wait_for_mails(40)
            reporter.worker.drain("all sent")
        assert journal.is_empty

    assert set(times_sent(catcher).values()) == {1}
    counted = await count_jobs(workers.client, "jobs")
    assert isinstance(counted, Counts)
    assert (counted.waiting, counted.known) == (0, 0)


@pytest.mark.case("A5")
async def test_nothing_is_sent_while_neither_redis_nor_the_journal_can_be_written(
    workers: WorkerMaker, catcher: Catcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs in flight wait; when Redis answers they are sent, and no attempt was counted."""
    catcher.faults = faults("final=delay-300ms")
    await workers.push(*(job_bytes(number) for number in range(20)))
    monkeypatch.setattr(journal_module, "_write_all", _refuse_after_header)
    with open_journal(tmp_path, OWNER) as journal:
        reporter = workers.make(workers.options(catcher.port, number_workers=20), is_burst=False, journal=journal)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, reporter)
            with trio.fail_after(60):
                await workers.wait_until(lambda: reporter.board.ledger.claimed == 20)
                async with refusing_writes(workers.client):
                    await workers.wait_until(lambda: any(isinstance(event, JournalFailed) for event in workers.events))
                    sent_by_then = catcher.total
                    assert reporter.snapshot().journal_trouble == "No space left on device"
                    # Those on their way arrive; the others, which would need no longer, must not be begun.
                    with trio.move_on_after(1.0):
                        await catcher.wait_for_mails(20)
                    assert sent_by_then <= catcher.total < 20
                await catcher.wait_for_mails(20)
            reporter.worker.drain("all sent")

    assert set(times_sent(catcher).values()) == {1}
    assert reporter.snapshot().journal_trouble == ""


def _refuse_after_header(file: int, content: bytes, at: int) -> None:
    if at:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.pwrite(file, content, at)


def test_one_embedded_server_is_one_owner(work_folder: Path) -> None:
    """With any spelling of its folder its journal is found again; another folder is another server."""
    (work_folder / "var").mkdir()
    owners = [
        owner_of(Settings(redis=RedisOptions(url=url)))
        for url in (
            "embedded:var/valkey",
            "embedded:./var/../var/valkey?port=7000",
            f"embedded:{work_folder}/var/valkey",
        )
    ]

    assert len(set(owners)) == 1
    assert owner_of(Settings(redis=RedisOptions(url="embedded:var/other"))) not in owners
    assert owner_of(Settings(redis=RedisOptions(url="redis://a:secret@h:1/0"))) == Owner("jobs", "h:1")
