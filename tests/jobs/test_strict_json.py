"""JSON read strictly: bytes that two readers could read differently are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import TYPES
from trio_worker.jobs.job import Malformed, decode
from trio_worker.jobs.strict_json import read_json


@pytest.mark.parametrize(
    ("raw", "reason", "part"),
    [
        (b"", "not_json", "is not JSON"),
        (b"\xff\xfe{\x00}\x00", "not_utf8", "byte 0"),
        ('{"a": 1}'.encode("utf-16-le"), "not_utf8", "UTF-16"),
        (b"\xef\xbb\xbf{}", "not_json", "byte order mark"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8", "byte 6"),
        (b"{} trailing", "not_json", "is not JSON"),
        (b'{"a": "\x00"}', "not_json", "is not JSON"),
        (b"[1]", "not_a_job", "must be an object"),
        (b"null", "not_a_job", "must be an object"),
        (b"[" * 100_000, "not_json", "levels deep"),
        (b'{"a":' * 100_000, "not_json", "levels deep"),
        (b"[" * 100_000 + b"]" * 100_000, "not_json", "levels deep"),
        (b"[" * 65 + b"]" * 65, "not_json", "levels deep"),
        (b"9" * 10_000, "not_json", "more than 64 bits"),
        (b'{"a": NaN, "a": -Infinity}', "not_json", "$.a: occurs more than once"),
        (b'{"a": [NaN]}', "not_json", "$.a[0]: is NaN"),
        (b'{"a": NaN', "not_json", "is not JSON"),
        (b'{"a": {"b": 1e999}}', "not_json", "$.a.b: is a number that is too large"),
        (b'{"a": 18446744073709551616}', "not_json", "$.a: is an integer of more than 64 bits"),
        (b'{"a": -9223372036854775809}', "not_json", "$.a: is an integer of more than 64 bits"),
        (b'{"a": ["\\uD83d"]}', "not_json", "$.a[0]: contains a lone surrogate"),
        (b'{"\\udc00": 1}', "not_json", "(not a name): has a lone surrogate"),
    ],
)
def test_bytes_that_two_readers_could_read_differently_are_refused(raw: bytes, reason: str, part: str) -> None:
    """Only one understanding of the bytes is possible, or there is none, and the fault says where."""
    refused = decode(raw, TYPES)

    assert isinstance(refused, Malformed)
    assert refused.reason == reason
    assert part in str(refused)


@given(
    before=st.text(" \t\n\r", max_size=2),
    after=st.text(" \t\n\r\x0b\xa0,}x", max_size=2),
    text=st.sampled_from(["{}", '{"a":1}', '{"a":{"a":"}"}}', '{"a":', '"a"', "[{}]", "{} {}"]),
)
def test_white_space_of_json_may_stand_around(before: str, text: str, after: str) -> None:
    """The four characters of RFC 8259 and no others; the standard library says the same."""
    raw = f"{before}{text}{after}"
    read = read_json(raw.encode())
    try:
        expected = str(json.loads(raw))
    except json.JSONDecodeError as error:
        expected = f"not_json: $: is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"

    assert str(read) == expected
