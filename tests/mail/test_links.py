"""The base of links: in ASCII whatever is written, because it also stands in a header."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.jobs.domain import DomainFault
from trio_worker.mail.links import MAX_BASE_CHARACTERS, parse_base_url


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("http://localhost:8081/", "http://localhost:8081"),
        ("http://[::1]:8081/app//", "http://[::1]:8081/app"),
        ("https://exämple.org", "https://xn--exmple-cua.org"),
        ("https://EXÄMPLE.org:8443/ü?q=%20#ä", "https://xn--exmple-cua.org:8443/%C3%BC?q=%20#%C3%A4"),
        ("https://example.org/ü", "https://example.org/%C3%BC"),
        ("https://stage:pw@exämple.org", "https://stage:pw@xn--exmple-cua.org"),
    ],
)
def test_a_base_is_ascii(text: str, base: str) -> None:
    """A host beyond ASCII becomes A-labels, and a path is percent-encoded; what is encoded already stays."""
    assert parse_base_url(text) == base


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("localhost", "must be a URL"),
        ("ftp://example.com", "must be a URL"),
        ("http://", "must be a URL"),
        ("http://[", "must be a URL"),
        ("http://example.com:0", "must be a URL"),
        ("http://example.com:99999", "must be a URL"),
        ('http://a"b', "must be a URL"),
        ("http://a b", "must be a URL"),
        ("http://a.example/\udcff", "must be a URL"),
        ("http://a\r\nX: y", "must be a URL"),
        ("http://☃.example", "has a domain that is not valid"),
        ("http://example.com/" + "a" * 500, f"longer than {MAX_BASE_CHARACTERS}"),
        ("http://example.com/" + "ü" * 100, f"longer than {MAX_BASE_CHARACTERS}"),
    ],
)
def test_what_is_no_base_is_refused(text: str, reason: str) -> None:
    """Each with the reason."""
    fault = parse_base_url(text)

    assert isinstance(fault, DomainFault)
    assert reason in fault.reason


@given(
    st.text(max_size=40).map(lambda rest: f"https://{rest}") | st.from_regex(r"https?://[a-zäß中.:\[\]@/?#%-]{1,30}")
)
def test_any_text_is_a_base_or_a_fault(text: str) -> None:
    """Nothing raises, and what is taken is a URL with a host that a header can carry."""
    base = parse_base_url(text)
    if isinstance(base, DomainFault):
        return
    assert base.isascii()
    assert base.isprintable()
    assert not set(' <>"\\') & set(base)
    assert urlsplit(base).hostname
    assert parse_base_url(base) == base
