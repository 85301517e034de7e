"""Unfinished messages: their sum is bounded, large ones wait on the disk, and nothing of them changes."""

from __future__ import annotations

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.capture.actions import CaughtMail, Keep, Send
from trio_worker.capture.chaos import Chaos, InjectedFaults, parse_faults
from trio_worker.capture.server_profile import ServerProfile
from trio_worker.capture.session import ServerSession
from trio_worker.capture.spool import SPOOLED_FROM_BYTES, HeldOctets, Spool
from trio_worker.capture.store import MaildirStore, MemoryStore

START = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
LARGE = b"Subject: x\r\n\r\n" + b"".join(b"%070d\r\n" % number for number in range(4000))


def session_of(spool: Spool) -> ServerSession:
    none = parse_faults("")
    assert isinstance(none, InjectedFaults)
    session = ServerSession(ServerProfile(), Chaos(lambda: 0.0, none), spool=spool)
    session.open()
    session.receive(b"EHLO client.example\r\n")
    session.receive(START)
    return session


def said(session: ServerSession, received: bytes) -> tuple[list[CaughtMail], bytes]:
    actions = session.receive(received)
    mails = [action.mail for action in actions if isinstance(action, Keep)]
    return mails, b"".join(action.payload for action in actions if isinstance(action, Send))


@given(st.lists(st.binary(max_size=100_000), max_size=6), st.integers(0, 300_000))
def test_what_is_appended_is_taken(parts: list[bytes], limit: int) -> None:
    """Whatever the sizes, in memory or in a file; over the limit of the sum nothing stays."""
    held = HeldOctets(limit)
    spool = Spool(held, tempfile.TemporaryFile)
    whole = b""
    for part in parts:
        whole = whole + part if spool.append(part) else b""
        assert len(spool) == held.count == len(whole)

    assert spool.take() == whole
    assert (len(spool), held.count, spool.is_large) == (0, 0, False)


@pytest.mark.parametrize("piece", [1000, 65_536, len(LARGE)])
@pytest.mark.parametrize("uses_bdat", [False, True])
def test_a_large_message_is_kept_exactly(piece: int, *, uses_bdat: bool) -> None:
    """By DATA and by BDAT, in pieces of any size; its file is closed when it is whole."""
    opened: list[IO[bytes]] = []

    def open_file() -> IO[bytes]:
        opened.append(BytesIO())
        return opened[-1]

    spool = Spool(open_file=open_file)
    session = session_of(spool)
    if uses_bdat:
        wire = b"BDAT %d LAST\r\n" % len(LARGE) + LARGE
    else:
        session.receive(b"DATA\r\n")
        wire = LARGE + b".\r\n"
    mails: list[CaughtMail] = []
    for at in range(0, len(wire), piece):
        mails += said(session, wire[at : at + piece])[0]

    assert [mail.content for mail in mails] == [LARGE]
    assert len(session._buffer.octets) == len(spool) == spool.held.count == 0
    assert opened or (piece > SPOOLED_FROM_BYTES and not uses_bdat)
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("uses_bdat", [False, True])
def test_many_unfinished_messages_hold_no_more_than_they_may(*, uses_bdat: bool) -> None:
    """Who comes too late is told so with 452 (RFC 5321, 4.2.3) and goes on; the others are not touched."""
    held = HeldOctets(limit_bytes=1_000_000)
    sessions = [session_of(Spool(held, tempfile.TemporaryFile)) for _ in range(40)]
    for session in sessions:
        session.receive(b"BDAT %d LAST\r\n" % len(LARGE) if uses_bdat else b"DATA\r\n")
        for at in range(0, len(LARGE) - 5, 50_000):
            session.receive(LARGE[at : min(at + 50_000, len(LARGE) - 5)])
            assert held.count <= held.limit_bytes
            assert len(session._buffer.octets) <= 2 * SPOOLED_FROM_BYTES
    ends = [said(session, LARGE[-5:] + (b"" if uses_bdat else b".\r\n")) for session in sessions]

    kept = [mails[0].content for mails, _ in ends if mails]
    assert kept == [LARGE] * 3
    assert all(reply.startswith(b"250" if mails else b"452 4.3.1") for mails, reply in ends)
    assert held.count == 0
    _, reply = said(sessions[-1], b"RSET\r\n" + START + b"DATA\r\n")
    assert reply.endswith(b"354 Go ahead, end with a dot on a line by itself\r\n")


def test_a_full_disk_refuses_the_message() -> None:
    """As if there were no room in the sum."""

    def open_file() -> IO[bytes]:
        raise OSError(28, os.strerror(28))

    spool = Spool(open_file=open_file)

    assert spool.append(b"x")
    assert not spool.append(b"x" * SPOOLED_FROM_BYTES)
    assert len(spool) == spool.held.count == 0


def test_the_newest_mails_in_memory_have_a_size(tmp_path: Path) -> None:
    """Those of a Maildir are there to be read; 500 of ten megabytes would fill a machine."""
    store = MemoryStore(max_mails=3, max_bytes=10)
    for size in (2, 3, 4, 5, 11, 1):
        store.keep_nowait([CaughtMail("", (), b"x" * size)])
    assert [len(mail.content) for mail in store.mails] == [1]
    assert store.total == 6

    with MaildirStore(tmp_path).open_file() as file:
        file.write(b"x")
    assert list((tmp_path / "tmp").iterdir()) == []
