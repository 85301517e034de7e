"""Domains: every spelling of one name gives the same A-labels, and what no relay could look up is refused."""

from __future__ import annotations

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.jobs.domain import DomainFault, one_spelling, parse_domain, readable_domain
from trio_worker.jobs.summary import summarize

NAMES = st.text(st.sampled_from("aäßπ中ب\u06f0\u0301\u200c.-_A\uff0e\u3002\uff11½ﬀ☃x n"), max_size=20) | st.text(
    max_size=30
)


@pytest.mark.parametrize(
    ("text", "sent", "read"),
    [
        ("mail.example.com", "mail.example.com", "mail.example.com"),
        ("[192.0.2.1]", "[192.0.2.1]", "[192.0.2.1]"),
        ("exämple.org", "xn--exmple-cua.org", "exämple.org"),
        ("EXÄMPLE.ORG", "xn--exmple-cua.org", "exämple.org"),
        ("exa\u0308mple.org", "xn--exmple-cua.org", "exämple.org"),
        ("\uff45xämple.org", "xn--exmple-cua.org", "exämple.org"),
        # Python's own codec, IDNA 2003, gives fass.example and xn--nxasmq6b: other people's domains.
        ("faß.example", "xn--fa-hia.example", "faß.example"),
        ("βόλος.example", "xn--nxasmm1c.example", "βόλος.example"),
        (
            "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example",
            "xn--mgba3gch31f060k.example",
            "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example",
        ),
    ],
)
def test_a_domain_has_one_form_for_relays_and_one_for_readers(text: str, sent: str, read: str) -> None:
    """Capitals, wide letters and decomposed ones make no other domain."""
    assert parse_domain(text) == sent
    assert parse_domain(sent) == sent
    assert readable_domain(sent) == read
    assert one_spelling(text) == one_spelling(sent) == sent.lower()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mail example", "has a domain that is not valid"),
        ("exämple..org", "has a domain that is not valid"),
        ("日本\u3002jp", "has a domain that is not valid"),
        ("\u2603.example", "has a domain that is not valid"),
        ("a\u200cb.example", "whose part 1 has a character that domains cannot have (IDNA 2008)"),
        ("mail.½.example", "whose part 2 has a character that domains cannot have (IDNA 2008)"),
        ("mail.aب.example", "whose part 2 is not valid (IDNA 2008)"),
        ("ä" * 60 + ".example", "whose part 1 is not valid (IDNA 2008)"),
        ("ab--ä.example", "whose part 1 is not valid (IDNA 2008)"),
        ("ä." * 200 + "example", "has a domain of more than 255 octets"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_part_at_fault(text: str, reason: str) -> None:
    """The reason names the part and repeats nothing of it."""
    fault = parse_domain(text)

    assert isinstance(fault, DomainFault)
    assert reason in fault.reason
    assert one_spelling(text) == text.lower()


@pytest.mark.parametrize("text", ["xn--zzzzzzzz.example", "xn--.example", "Example.COM"])
def test_a_text_without_other_letters_is_read_as_it_is(text: str) -> None:
    """A name that only looks like A-labels breaks nothing that shows it."""
    assert readable_domain(text) == text


@given(NAMES)
def test_what_is_taken_is_ascii_and_stays_the_same(text: str) -> None:
    """Any text gives a domain that a command can carry, or a fault; the library agrees with every name beyond ASCII."""
    parsed = parse_domain(text)
    if isinstance(parsed, DomainFault):
        return
    assert parsed.isascii()
    assert parse_domain(parsed) == parsed
    if not text.isascii():
        assert idna.encode(text, uts46=True).decode() == parsed


def test_both_spellings_count_as_one_domain() -> None:
    """Figures by domain do not split a domain, whatever its producer writes."""
    job = '{"data": {"data": {"to": ["Ann <ann@exämple.org>", "b@XN--EXMPLE-CUA.org", "c@EXÄMPLE.org"]}}}'

    assert summarize(job.encode()).domains == ("xn--exmple-cua.org",)
