"""The Maildir of the mail catcher: what was caught comes back octet for octet."""

from __future__ import annotations

import mailbox
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.capture import maildir
from trio_worker.capture.actions import CaughtMail
from trio_worker.capture.maildir import clear_caught, count_caught, list_caught, make_maildir, read_caught, write_mails
from trio_worker.capture.store import MaildirStore, MemoryStore

CONTENT = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHello\r\n"
MAIL = CaughtMail(
    "a@example.com", ("b@example.com", "jörg@example.com"), CONTENT, {"SIZE": "50", "SMTPUTF8": ""}, "ann"
)


@given(st.lists(st.binary(max_size=200) | st.just(b"X-Capture-Octets: 3\r\n\r\nabc"), min_size=1, max_size=3))
def test_every_content_comes_back_octet_for_octet(contents: list[bytes]) -> None:
    """Any content is read back as it was caught, in the order of catching."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_maildir(folder)
        write_mails(folder, [CaughtMail("", ("b@x",), content) for content in contents])

        summaries = list_caught(folder)

        assert [read_caught(folder, summary.key) for summary in summaries] == contents
        assert [summary.size_bytes for summary in summaries] == [len(content) for content in contents]


async def test_a_store_keeps_the_envelope_and_the_subject(tmp_path: Path) -> None:
    """The list of caught mails has sender, recipients, decoded subject and size; the store counts."""
    store = MaildirStore(tmp_path / "capture")
    with trio.fail_after(60):
        await store.keep([MAIL, MAIL])

    summaries = list_caught(tmp_path / "capture")

    assert store.total == 2
    assert store.mails == (MAIL, MAIL)
    assert [(s.sender, s.recipients, s.subject, s.size_bytes) for s in summaries] == [
        ("a@example.com", ("b@example.com", "jörg@example.com"), "Grüße", len(CONTENT)),
    ] * 2


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    """The folder is a Maildir: the standard library finds the mail, its envelope and its subject."""
    make_maildir(tmp_path)
    write_mails(tmp_path, [MAIL])

    ((key, message),) = mailbox.Maildir(tmp_path, factory=None, create=False).items()

    assert key == list_caught(tmp_path)[0].key
    assert message["X-Envelope-From"] == "<a@example.com>"
    assert message["Subject"] == "=?utf-8?q?Gr=C3=BC=C3=9Fe?="


def test_a_flagged_mail_keeps_its_key(tmp_path: Path) -> None:
    """Moving a mail from new to cur, with flags, changes neither its key nor its octets."""
    make_maildir(tmp_path)
    write_mails(tmp_path, [MAIL])
    (summary,) = list_caught(tmp_path)
    (tmp_path / "new" / summary.key).rename(tmp_path / "cur" / f"{summary.key}:2,S")

    assert list_caught(tmp_path) == [summary]
    assert read_caught(tmp_path, summary.key) == CONTENT


def test_the_newest_are_listed_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among ten thousands of mails the newest is there at once: older files are counted, and not opened."""
    make_maildir(tmp_path)
    write_mails(tmp_path, [MAIL] * 3)
    everything = list_caught(tmp_path)
    opened: list[str] = []
    peek = maildir._peek

    def noted_peek(path: Path) -> tuple[bytes, int, datetime]:
        opened.append(path.name)
        return peek(path)

    monkeypatch.setattr(maildir, "_peek", noted_peek)

    assert list_caught(tmp_path, 2) == everything[1:]
    assert list_caught(tmp_path, 0) == []
    assert count_caught(tmp_path) == 3
    assert opened == [mail.key for mail in everything[1:]]


def test_clearing_removes_all_and_says_how_many(tmp_path: Path) -> None:
    """clear_caught empties the folder; nothing is left to list or read."""
    make_maildir(tmp_path)
    write_mails(tmp_path, [MAIL] * 3)
    key = list_caught(tmp_path)[0].key

    assert clear_caught(tmp_path) == 3
    assert list_caught(tmp_path) == []
    assert read_caught(tmp_path, key) is None


def test_a_folder_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """Nothing was caught where no catcher ever was, and looking makes no folder."""
    missing = tmp_path / "missing"

    assert list_caught(missing) == []
    assert read_caught(missing, "x") is None
    assert clear_caught(missing) == 0
    assert not missing.exists()


def test_a_foreign_file_is_shown_as_it_is(tmp_path: Path) -> None:
    """A mail that another program put there is listed without an envelope, and read whole."""
    make_maildir(tmp_path)
    (tmp_path / "new" / "foreign").write_bytes(CONTENT)

    (summary,) = list_caught(tmp_path)

    assert (summary.sender, summary.recipients, summary.subject) == ("", (), "Grüße")
    assert read_caught(tmp_path, "foreign") == CONTENT


def test_a_key_is_no_path(tmp_path: Path) -> None:
    """A key that looks like a path finds nothing."""
    make_maildir(tmp_path)
    (tmp_path / "secret").write_bytes(b"x")

    assert read_caught(tmp_path, "../secret") is None


@given(st.binary(max_size=80) | st.text(st.sampled_from('=?utf-8qb_ \r\n\t:;,<>@"()é')).map(str.encode))
def test_any_headers_can_be_listed(subject: bytes) -> None:
    """A mail with malformed headers is in the list too, with a subject that can be printed."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_maildir(folder)
        write_mails(folder, [CaughtMail("", ("b@x",), b"Subject: " + subject)])

        (summary,) = list_caught(folder)

        assert summary.subject.isprintable()


@pytest.mark.parametrize("subject", [b"a\x1b[31mb", b"=?utf-8?q?a=1B[31mb?="])
def test_a_subject_cannot_command_the_terminal(tmp_path: Path, subject: bytes) -> None:
    """Control characters of a subject are shown as spaces."""
    make_maildir(tmp_path)
    write_mails(tmp_path, [CaughtMail("", ("b@x",), b"Subject: " + subject + b"\r\n\r\n")])

    assert list_caught(tmp_path)[0].subject.isprintable()


def test_the_folder_is_private(tmp_path: Path) -> None:
    """Only the owner may read what was caught."""
    make_maildir(tmp_path / "capture")

    assert (tmp_path / "capture").stat().st_mode & 0o077 == 0


async def test_memory_keeps_the_newest_and_counts_all() -> None:
    """A full memory store forgets its oldest mails, never the count."""
    store = MemoryStore(max_mails=2)
    mails = [CaughtMail(str(number), ("b@x",), b"") for number in range(3)]

    await store.keep(mails)

    assert store.mails == tuple(mails[1:])
    assert store.total == 3


def test_a_folder_or_a_link_among_the_mails_is_none(tmp_path: Path) -> None:
    """It is not listed, read, counted or removed; the newest mail is the newest file."""
    make_maildir(tmp_path)
    write_mails(tmp_path, [CaughtMail("a@example.com", ("b@example.com",), b"Subject: x\r\n\r\nbody\r\n")])
    (tmp_path / "new" / "9999999999.folder").mkdir()
    (tmp_path / "new" / "9999999998.link").symlink_to("/etc/passwd")

    (mail,) = list_caught(tmp_path, 1)
    assert count_caught(tmp_path) == 1
    assert read_caught(tmp_path, mail.key) is not None
    assert read_caught(tmp_path, "9999999999.folder") is read_caught(tmp_path, "9999999998.link") is None
    assert clear_caught(tmp_path) == 1
    assert len(list((tmp_path / "new").iterdir())) == 2
