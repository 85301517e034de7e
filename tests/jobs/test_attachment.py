"""Attachments of a message: base64 as encoders write it, media types with parameters, inline images."""

from __future__ import annotations

import base64
import json
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.jobs.attachment import Attachment, MediaType
from trio_worker.jobs.fault import Malformed
from trio_worker.jobs.job import decode
from trio_worker.jobs.message import Message

PATH = "$.data.data.attachments"


def decoded(**payload: Any) -> Message | dict[str, str]:
    """Return the message of a payload, or its faults by path."""
    whole = {"to": "a@b", "subject": "s", "text": "t", **payload}
    found = decode(json.dumps({"task_type": "Email", "data": {"email_type": "Message", "data": whole}}).encode(), {})
    if isinstance(found, Malformed):
        return {fault.path: fault.reason for fault in found.faults}
    assert isinstance(found.content, Message)
    return found.content


def attached(**fields: Any) -> Attachment | dict[str, str]:
    """Return one attachment with these fields, or the faults of its message."""
    found = decoded(attachments=[{"name": "a", "type": "text/plain", "base64": "aGk=", **fields}])
    return found.attachments[0] if isinstance(found, Message) else found


@given(st.binary(max_size=300), st.sampled_from([57, 45, 76, 1]), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_base64_may_have_line_ends(content: bytes, width: int, end: str, is_last_ended: bool) -> None:  # noqa: FBT001
    """As MIME encoders write it: Ruby after 60 characters, PHP and Java with CRLF, Python with one at the end."""
    lines = textwrap.wrap(base64.b64encode(content).decode(), width)
    found = attached(base64=end.join(lines) + end * is_last_ended)

    assert isinstance(found, Attachment)
    assert found.content == content


@pytest.mark.parametrize("text", ["aGk", "aGk=x", "a Gk=", "aGk=\t", "aGk\u2028=", "é", "=", "aGk=\0", "_-8="])
def test_what_is_not_base64_is_refused(text: str) -> None:
    """A missing end, other characters, and the alphabet of URLs: what is guessed could be another file."""
    assert attached(base64=text) == {f"{PATH}[0].base64": "is not base64"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("application/pdf", MediaType("application/pdf")),
        ("text/csv; charset=utf-8", MediaType("text/csv", ("charset=utf-8",))),
        (
            "text/calendar;method=REQUEST ;charset=UTF-8;",
            MediaType("text/calendar", ("method=REQUEST", "charset=UTF-8")),
        ),
        ('text/plain; name="a; b.txt"', MediaType("text/plain", ('name="a; b.txt"',))),
    ],
)
def test_a_media_type_may_have_parameters(text: str, expected: MediaType) -> None:
    """Tokens and quoted strings (RFC 2045, 5.1), with spaces around the semicolons or without."""
    found = attached(type=text)

    assert isinstance(found, Attachment)
    assert found.type == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("pdf", "must be a media type"),
        ("text/csv; charset", "must be a media type"),
        ("text/csv; charset=a b", "must be a media type"),
        ('text/csv; name="a\\"b"', "must be a media type"),
        ("text/csv; name=é", "must be a media type"),
        ("text/csv\r\nX-A: b", "must be a media type"),
        ('text/csv; name="a\r\nX-A: b"', "must be a media type"),
        ("text/csv; charset=utf-8; CHARSET=latin1", "has a parameter twice"),
        ("multipart/mixed; boundary=x", "cannot be a multipart"),
        ("Message/RFC822; charset=utf-8", "cannot be a multipart"),
        ("text/csv" + "; a=b" * 200, "is longer than 500"),
    ],
)
def test_a_media_type_is_read_strictly(text: str, part: str) -> None:
    """It becomes a line of the header: nothing goes into it that is not one."""
    found = attached(type=text)

    assert isinstance(found, dict)
    assert part in found[f"{PATH}[0].type"]


LOGO = {"name": "logo.png", "type": "image/png", "base64": "aGk=", "cid": "logo"}


@pytest.mark.parametrize(
    "html",
    [
        '<img src="cid:logo">',
        "<img src='cid:logo'>",
        "<IMG SRC=cid:logo>",
        '<td background="cid:%6Cogo">',
        '<p style="background: url(cid:logo)">',
        "<p>write src: or cid:other in a text as you like</p>",
    ],
)
def test_html_refers_to_an_inline_attachment(html: str) -> None:
    """By its cid, in each attribute that loads an image; a text about it is no reference."""
    found = decoded(html=html, attachments=[LOGO])

    assert isinstance(found, Message)
    assert found.attachments[0].cid == "logo"


def test_a_reference_to_no_attachment_is_a_fault() -> None:
    """The recipient would see a broken image. What is no id is not repeated: it may be anything."""
    named = decoded(html='<img src="cid:logo"><img src="cid:top">', attachments=[LOGO])
    unnamed = decoded(html='<img src="cid:ann@example.com">')

    assert named == {"$.data.data.html": "refers to cid:top, and no attachment has this cid"}
    assert unnamed == {"$.data.data.html": "refers to cid:(not a name), and no attachment has this cid"}


@pytest.mark.parametrize(
    ("payload", "path", "part"),
    [
        ({"html": "<p>", "attachments": [LOGO, LOGO]}, f"{PATH}[1].cid", "is given twice"),
        ({"attachments": [LOGO]}, f"{PATH}[0].cid", "needs html"),
        ({"html": "<p>", "attachments": [{**LOGO, "cid": "<logo>"}]}, f"{PATH}[0].cid", "without <>"),
        ({"html": "<p>", "attachments": [{**LOGO, "cid": "a\r\nX: b"}]}, f"{PATH}[0].cid", "must be an id"),
        ({"html": "<p>", "attachments": [{**LOGO, "cid": 7}]}, f"{PATH}[0].cid", "must be a string"),
    ],
)
def test_an_id_must_fit(payload: dict[str, Any], path: str, part: str) -> None:
    """It is a name in a header and in a URL, each once, and only HTML can show it."""
    found = decoded(**payload)

    assert isinstance(found, dict)
    assert part in found[path]


@pytest.mark.parametrize(
    "html", ["url(" + " " * 500_000, "src=" * 100_000, "src= '" * 50_000 + "cid", "src " * 100_000]
)
def test_references_are_found_in_one_pass(html: str) -> None:
    """In half a megabyte: a search that tried each space twice would not end."""
    assert isinstance(decoded(html=html), Message)
