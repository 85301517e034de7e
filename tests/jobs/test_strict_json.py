"""JSON read strictly: bytes that two readers could read differently are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import TYPES
from trio_worker.jobs import strict_json
from trio_worker.jobs.job import Malformed, decode
from trio_worker.jobs.strict_json import MAX_VALUES, Json, read_json


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


def _count(value: Json) -> int:
    """How many values there are in a value, with itself."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


@given(
    document=st.recursive(
        st.none() | st.integers(0, 99) | st.text('",[{\\:é ', max_size=6),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('",[{\\:', max_size=4), inner, max_size=4),
        max_leaves=20,
    ),
    is_ascii=st.booleans(),
    indent=st.none() | st.integers(0, 2),
)
def test_a_text_has_too_many_values_if_its_value_has(document: Json, *, is_ascii: bool, indent: int | None) -> None:
    """Commas, brackets, quotes and backslashes in strings and names do not count, nor does white space."""
    raw = json.dumps(document, ensure_ascii=is_ascii, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "MAX_VALUES", 8)
        patch.setattr(strict_json, "_FEW_OCTETS", 16)
        read = read_json(raw)

    if _count(document) > 8:
        assert str(read) == "not_json: $: has more than 25,000 values"
    else:
        assert read == document


@pytest.mark.parametrize(
    ("most", "more"),
    [
        (b"[%b1]" % (b"1," * (MAX_VALUES - 2)), b"[%b1]" % (b"1," * (MAX_VALUES - 1))),
        (b"[%b1]" % (b"[ ]," * (MAX_VALUES - 2)), b"[%b1]" % (b"{}," * (MAX_VALUES - 1))),
        (b'{"text":"%b"}' % (b'a, [b], {\\"c\\"},\\\\' * 50_000), b'{"":[%b0]}' % (b'"\\\\","",' * 100_000)),
    ],
)
def test_a_text_of_too_many_values_is_not_parsed(most: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call to the parser would stop all else for its time; a long text with as many commas is read."""
    assert not isinstance(read_json(most), Malformed)

    monkeypatch.setattr(strict_json, "_read_quickly", None)
    assert str(read_json(more)) == "not_json: $: has more than 25,000 values"


@pytest.mark.parametrize(
    ("number", "is_refused"),
    [("9" * 18, False), ("9" * 19, False), ("9" * 20, True), ("1e3", False), ("1E999", True), ("1.5e999", True)],
)
@pytest.mark.parametrize("text", ["", "1" * 17 + "x", "12e"])
def test_numbers_out_of_range_are_found_in_large_texts_too(number: str, text: str, *, is_refused: bool) -> None:
    """Where only some texts are read with a check of each number."""
    raw = b'{"a":"%b","b":[%b]}' % (text.encode() * 1000, number.encode())

    assert isinstance(read_json(raw), Malformed) is is_refused
