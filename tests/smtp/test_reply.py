"""Cutting a stream into replies, and what is kept of each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.smtp.reply import REPLY_LIMIT_BYTES, Garbled, RawReply, ReplyReader, Stage, reply_from
from trio_worker.smtp.reply_text import printable_line


def read(*parts: bytes) -> list[RawReply | Garbled]:
    reader = ReplyReader()
    return [found for part in parts for found in reader.feed(part)]


def test_several_lines_of_one_code_are_one_reply() -> None:
    """The hyphen says that the reply goes on (RFC 5321 4.2.1)."""
    assert read(b"250-one\r\n250-two\r\n250 three\r\n") == [RawReply(250, "one\ntwo\nthree")]


def test_a_line_may_end_with_a_bare_line_feed_and_have_no_text() -> None:
    """Such relays exist; what counts is the code."""
    assert read(b"250\n354 go\n") == [RawReply(250, ""), RawReply(354, "go")]


@pytest.mark.case("C7")
@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n",
        b"2_5 x\r\n",
        b"-12 x\r\n",
        b" 25 x\r\n",
        b"1yz\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"2500 x\r\n",
        b"\r\n",
    ],
)
def test_what_is_no_reply_garbles_the_stream_for_good(wire: bytes) -> None:
    """After it nothing is believed, not even a good reply."""
    (first, second) = read(wire, b"250 ok\r\n")

    assert isinstance(first, Garbled)
    assert second == first


def test_a_reply_of_several_codes_has_the_last_one() -> None:
    """RFC 5321 4.2.1 wants one code on all lines; clients that skip to the last line get that one."""
    found = read(b"250-one\r\n450-two\r\n550 three\r\n250 next\r\n")

    assert found == [RawReply(550, "one\ntwo\nthree"), RawReply(250, "next")]


@pytest.mark.case("C8")
@pytest.mark.parametrize("wire", [
    b"250-" + b"x" * 10_000,
    b"250 " + b"x" * 10_000 + b"\r\n",
    b"250-taken\r\n" * 50_000,
    b"250-taken\r\n250-" + b"x" * 10_000,
    b"250-taken\r\n" * 50_000 + b"250 taken\r\n",
])  # fmt: skip
def test_the_code_of_a_reply_that_is_too_long_counts(wire: bytes) -> None:
    """A mail that was accepted must not go again because the relay says too much; after it nothing is believed."""
    whole, pieces = read(wire), read(*(wire[start : start + 1000] for start in range(0, len(wire), 1000)))

    for found in (whole, pieces):
        assert isinstance(found[0], RawReply)
        assert found[0].code == 250
        assert len(found[0].text) <= REPLY_LIMIT_BYTES
        assert isinstance(found[1], Garbled)


@pytest.mark.case("C8")
@pytest.mark.parametrize("part", [b"2" * 100, b"250-x\r\n"])
def test_an_endless_reply_is_cut_off(part: bytes) -> None:
    """Memory stays bounded, by line and by reply."""
    reader = ReplyReader()
    found: list[RawReply | Garbled] = []
    for _ in range(10_000):
        found += reader.feed(part)
        if found:
            break

    assert isinstance(found[-1], Garbled)


@pytest.mark.case("C5")
@given(
    st.lists(
        st.tuples(st.integers(200, 599), st.text(st.characters(codec="ascii", exclude_characters="\r\n"))), max_size=5
    )
)
def test_a_stream_cut_at_every_byte_gives_the_same_replies(replies: list[tuple[int, str]]) -> None:
    """The split of the segments is not the relay's meaning."""
    stream = b"".join(f"{code} {text}\r\n".encode() for code, text in replies)

    assert read(*(stream[place : place + 1] for place in range(len(stream)))) == read(stream)
    assert [each.code for each in read(stream) if isinstance(each, RawReply)] == [code for code, _ in replies]


def test_a_refusal_behind_many_acceptances_is_found_at_once() -> None:
    """A mail to many, of whom the last is refused or not answered yet, must not hold up all others."""
    reader = ReplyReader()
    reader.put(b"250 ok\r\n" * 60 + b"550 no\r\n")

    assert reader.read_acceptances(61) is None
    assert reader.read_acceptances(60) == RawReply(250, "ok")
    assert reader.read() == RawReply(550, "no")


def test_the_enhanced_code_is_split_off_when_it_agrees() -> None:
    """Its class must be that of the code (RFC 2034)."""
    agreeing = reply_from(550, "5.1.1 no such user", Stage.RCPT)
    contradicting = reply_from(550, "2.1.1 all good", Stage.RCPT)

    assert (agreeing.codes, agreeing.text) == ("550 5.1.1", "no such user")
    assert (contradicting.codes, contradicting.text) == ("550", "2.1.1 all good")


@pytest.mark.case("C9")
@given(st.text())
def test_kept_words_are_printable_and_bounded(text: str) -> None:
    """No reply moves a terminal's cursor or fills a record."""
    kept = printable_line(text)

    assert kept.isprintable()
    assert len(kept) <= 500
