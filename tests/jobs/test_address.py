"""One mailbox, read strictly: what is understood, what is refused, and that no refusal repeats the address."""

from __future__ import annotations

import email.headerregistry
import email.policy
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.jobs.address import (
    _CONTROL,
    _USUAL,
    AddressFault,
    Mailbox,
    _parse_address,
    as_sent,
    has_control_character,
    may_be_mailed,
    parse_mailbox,
)

LETTERS = st.text(st.sampled_from("ab1.@<>\"\\ ,;:()[]é中\r\n\0\u2028\ud800-_'="), max_size=30)


def what(text: str) -> str:
    fault = parse_mailbox(text)
    assert isinstance(fault, AddressFault)
    return fault.reason


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ann@example.com", "", "ann@example.com"),
        ("  ann@example.com ", "", "ann@example.com"),
        ("<ann@example.com>", "", "ann@example.com"),
        ("Ann <ann@example.com>", "Ann", "ann@example.com"),
        ("Ann B. Cee<ann@example.com>", "Ann B. Cee", "ann@example.com"),
        ('"Cee, Ann" <ann@example.com>', "Cee, Ann", "ann@example.com"),
        (r'"a \"b\" \\" <ann@example.com>', 'a "b" \\', "ann@example.com"),
        ('" Ann \u00a0 Cee " <ann@example.com>', "Ann Cee", "ann@example.com"),
        ("Änne <ann@example.com>", "Änne", "ann@example.com"),
        ('"<x@y>" <ann@example.com>', "<x@y>", "ann@example.com"),
        ('"ann"@example.com', "", "ann@example.com"),
        ('"a b"@example.com', "", '"a b"@example.com'),
        ('"a@b>"@example.com', "", '"a@b>"@example.com'),
        ('Ann <"a>b"@example.com>', "Ann", '"a>b"@example.com'),
        (r'"a\ b"@example.com', "", '"a b"@example.com'),
        ("o'neil+x=y@example.co.uk", "", "o'neil+x=y@example.co.uk"),
        ("ann@localhost", "", "ann@localhost"),
        ("ann@[192.0.2.1]", "", "ann@[192.0.2.1]"),
        ("ann@[IPv6:2001:db8::1]", "", "ann@[IPv6:2001:db8::1]"),
        ("änne@bücher.example", "", "änne@xn--bcher-kva.example"),
        ("ann@Bücher.Example", "", "ann@xn--bcher-kva.example"),
        ("ann@उदाहरण.परीक्षा", "", "ann@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g"),
    ],
)
def test_a_mailbox_is_understood(text: str, name: str, address: str) -> None:
    """Every way to write one mailbox gives its name, and its address as the envelope carries it."""
    mailbox = parse_mailbox(text)

    assert isinstance(mailbox, Mailbox)
    assert (mailbox.name, mailbox.address) == (name, address)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("ann", "has no @"),
        ("ann@example.com, bob@example.com", "is not one mailbox"),
        ("ann@example.com bob@example.com", "is not one mailbox"),
        ("Ann <ann@example.com>, Bob <bob@example.com>", "is not one mailbox"),
        ("Ann <ann@example.com> bob@example.com", "is not one mailbox"),
        ("group: ann@example.com;", "is not one mailbox"),
        ("ann(comment)@example.com", "before the @"),
        ("Ann (comment) <ann@example.com>", "is not one mailbox"),
        ("<@relay.example:ann@example.com>", "is not one mailbox"),
        ('"Ann" Cee <ann@example.com>', "is not one mailbox"),
        ("ann@example.com\r\nBcc: x@example.com", "control character"),
        ("ann\0@example.com", "control character"),
        ("ann\x85@example.com", "control character"),
        ("ann\u2028@example.com", "control character"),
        ("ann\ud800@example.com", "control character"),
        ("ann\u202e@example.com", "before the @"),
        ("an n@example.com", "is not one mailbox"),
        (".ann@example.com", "before the @"),
        ("ann..b@example.com", "before the @"),
        ('""@example.com', "before the @"),
        ("@example.com", "before the @"),
        ("ann@", "domain"),
        ("ann@.example.com", "domain"),
        ("ann@example.com.", "domain"),
        ("ann@-example.com", "domain"),
        ("ann@exam_ple.com", "domain"),
        ("ann@example\uff0ecom", "domain"),
        ("ann@" + "a" * 64 + ".com", "domain"),
        ("ann@[192.0.2.256]", "address literal"),
        ("ann@[IPv6:fe80::1%eth0]", "address literal"),
        ("ann@[x", "address literal"),
        ("a" * 65 + "@example.com", "64 octets"),
        ("é" * 33 + "@example.com", "64 octets"),
        ("ann@" + "a.ab" * 62 + ".com", "254 octets"),
        ("n" * 256 + " <ann@example.com>", "255 characters"),
        (" " * 20_000 + "x" * 2000 + ">", "998 characters"),
    ],
)
def test_anything_but_one_mailbox_is_refused(text: str, reason: str) -> None:
    """Lists, groups, comments, routes, control characters and impossible addresses are refused, each with a reason."""
    assert reason in what(text)


def test_the_repr_shows_the_domain_only() -> None:
    """A mailbox in a log or a traceback shows neither its name nor its local part."""
    assert repr(Mailbox("Ann Cee", "ann", "example.com")) == "Mailbox(domain='example.com')"


@pytest.mark.parametrize(("text", "needs"), [("é@example.com", True), ("a@é.example", False), ("a@example.com", False)])
def test_what_is_before_the_at_decides_whether_smtputf8_is_needed(text: str, *, needs: bool) -> None:
    """A domain has A-labels, and a name can be encoded."""
    mailbox = parse_mailbox(f"É <{text}>")

    assert isinstance(mailbox, Mailbox)
    assert mailbox.needs_smtputf8 is needs
    assert mailbox.readable_address == text


def test_both_spellings_of_a_domain_are_one_address() -> None:
    """Whatever a producer writes, the envelope has one form; what is no mailbox stays as it is."""
    assert as_sent("Ann <ann@EXÄMPLE.org>") == as_sent("ann@xn--exmple-cua.org") == "ann@xn--exmple-cua.org"
    assert as_sent("nobody") == "nobody"


@pytest.mark.parametrize("only_to", [r".*@exämple\.org", r".*@xn--exmple-cua\.org"])
def test_only_to_may_have_either_spelling(only_to: str) -> None:
    """An expression for the letters of a domain takes its A-labels too, and nothing else."""
    assert may_be_mailed(only_to, [as_sent("ann@exämple.org")])
    assert not may_be_mailed(only_to, [as_sent("ann@example.org")])


@given(LETTERS | st.text(max_size=40))
def test_no_text_raises_and_what_is_read_is_clean(text: str) -> None:
    """Any text gives a mailbox or a fault; a mailbox has no control characters and reads back as itself."""
    match parse_mailbox(text):
        case AddressFault(reason):
            assert reason
        case mailbox:
            assert not has_control_character(mailbox.name + mailbox.address)
            assert len(mailbox.address.encode()) <= 254
            assert parse_mailbox(mailbox.address) == Mailbox("", mailbox.local, mailbox.domain)


@given(LETTERS.filter(str.isascii))
def test_the_standard_library_agrees_on_what_is_read(text: str) -> None:
    """An address that we accept is one single address, the same, to the parser of the standard library."""
    mailbox = parse_mailbox(text)
    if isinstance(mailbox, AddressFault):
        return
    header = email.policy.default.header_factory("To", mailbox.address)

    assert isinstance(header, email.headerregistry.UniqueAddressHeader)
    assert [found.addr_spec for found in header.addresses] == [mailbox.address]


@given(st.one_of(st.from_regex(_USUAL, fullmatch=True), st.emails()))
def test_the_short_way_reads_as_the_long_one(text: str) -> None:
    """A common address gives the same mailbox on both ways."""
    assert parse_mailbox(text) == _parse_address(text, name="")


def test_no_printable_character_is_a_control_character() -> None:
    """True for all characters, so a printable text needs no further check."""
    every = [chr(number) for number in range(sys.maxunicode + 1)]

    assert [letter for letter in every if has_control_character(letter)] == _CONTROL.findall("".join(every))
