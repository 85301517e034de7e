"""From a job's bytes to a job: what is understood, every fault with its path, and nothing that raises or leaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import DOCUMENT, JSON, TYPES, WELCOME, envelope
from trio_worker.jobs.address import Mailbox
from trio_worker.jobs.email_type import FieldSpec, TypeSpec
from trio_worker.jobs.job import Job, Malformed, Message, Templated, decode, sample_job

SECRET = "s3cr3t-ann@example.com-value"


def job_of(email_type: str, payload: object, **more: object) -> Job:
    job = decode(envelope(email_type, payload, **more), TYPES)
    assert isinstance(job, Job), str(job)
    return job


def faults_of(raw: bytes) -> dict[str, str]:
    refused = decode(raw, TYPES)
    assert isinstance(refused, Malformed)
    return {fault.path: fault.reason for fault in refused.faults}


def reason_of(raw: bytes) -> str:
    refused = decode(raw, TYPES)
    assert isinstance(refused, Malformed)
    return refused.reason


def test_a_templated_job_is_understood() -> None:
    """The recipient becomes a mailbox, declared fields are kept, optional ones that are absent are None."""
    job = job_of("Welcome", {**WELCOME, "email": "Ann <ann@example.com>", "newer": [1]})

    assert job.email_type == "Welcome"
    assert job.content == Templated(
        Mailbox("Ann", "ann", "example.com"),
        {"email": "ann@example.com", "username": "Ann", "token": "abc123", "note": None, "count": None, "stats": None},
    )


def test_the_optional_keys_of_the_envelope_are_understood() -> None:
    """Times become seconds since the epoch; unknown keys are ignored."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    job = job_of(
        "Welcome",
        WELCOME,
        id="order-7",
        enqueued_at="1970-01-01T01:00:00.5+01:00",
        not_before="1970-01-02T00:00:00Z",
        expires_at="1970-01-01t00:00:60z",
        traceparent=parent,
        colour="blue",
    )

    assert (job.producer_id, job.enqueued_at, job.not_before, job.expires_at) == ("order-7", 0.5, 86400.0, 60.0)
    assert job.traceparent == parent


def test_null_is_absent_where_a_key_is_optional() -> None:
    """Producers whose serialiser writes null for nothing are understood, and a trace that cannot be read is ignored."""
    job = job_of("Welcome", {**WELCOME, "note": None}, id=None, expires_at=None, traceparent="nonsense")

    assert (job.producer_id, job.expires_at, job.traceparent) == (None, None, None)


def test_a_message_is_understood() -> None:
    """A message takes a mailbox or a list of them, and brings its own text, headers and files."""
    job = job_of(
        "Message",
        {
            "to": "Ann <ann@example.com>",
            "cc": ["b@example.com", "c@example.com"],
            "reply_to": "help@example.com",
            "subject": "Hello",
            "text": "Hi",
            "headers": {"X-Campaign": "spring"},
            "attachments": [{"name": "a.txt", "type": "text/plain", "base64": "aGk="}],
        },
    )

    message = job.content
    assert isinstance(message, Message)
    assert [mailbox.address for mailbox in (*message.to, *message.cc)] == [
        "ann@example.com",
        "b@example.com",
        "c@example.com",
    ]
    assert message.attachments[0].content == b"hi"
    assert message.headers == {"X-Campaign": "spring"}


@pytest.mark.parametrize("number", [18446744073709551615, -9223372036854775808, 0, 1.5, -1e300])
def test_numbers_of_64_bits_are_kept(number: float) -> None:
    """Every signed and unsigned integer of 64 bits, and every finite decimal, arrives as it was."""
    job = job_of("Welcome", {**WELCOME, "count": number})

    assert isinstance(job.content, Templated)
    assert job.content.fields["count"] == number


def test_escaped_surrogate_pairs_are_letters() -> None:
    """An emoji that a producer escapes as a surrogate pair is that emoji."""
    job = job_of("Welcome", {**WELCOME, "username": "😀"})

    assert isinstance(job.content, Templated)
    assert job.content.fields["username"] == "😀"


@pytest.mark.case("D3")
def test_all_faults_come_at_once_each_with_its_path() -> None:
    """A producer sees everything that is wrong in one go."""
    faults = faults_of(
        envelope(
            "Message",
            {
                "to": ["ann@example.com", 7, "b@example.com, c@example.com"],
                "cc": True,
                "reply_to": [],
                "subject": "two\nlines",
                "headers": {"Subject": "x", "X-A": 1, "x-a": "2", "a:b": "x", "X-Y": "a\r\nb"},
                "attachments": [{"name": "../x", "type": "x", "base64": "a"}, 7, {"type": "message/rfc822"}],
            },
            expires_at="2030-01-01T00:00:00",
            id=True,
        )
    )

    assert faults.keys() == {
        "$.id",
        "$.expires_at",
        "$.data.data",
        "$.data.data.to[1]",
        "$.data.data.to[2]",
        "$.data.data.cc",
        "$.data.data.reply_to",
        "$.data.data.subject",
        "$.data.data.headers.Subject",
        "$.data.data.headers.X-A",
        "$.data.data.headers.x-a",
        "$.data.data.headers.(not a name)",
        "$.data.data.headers.X-Y",
        "$.data.data.attachments[0].name",
        "$.data.data.attachments[0].type",
        "$.data.data.attachments[0].base64",
        "$.data.data.attachments[1]",
        "$.data.data.attachments[2].name",
        "$.data.data.attachments[2].type",
        "$.data.data.attachments[2].base64",
    }


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("email", 7, "must be a string"),
        ("email", "nobody", "has no @"),
        ("username", True, "must be a string"),
        ("username", None, "must be a string"),
        ("username", "a\nb", "control character"),
        ("username", "a" * 999, "998"),
        ("token", "", "is empty"),
        ("note", "a\0b", "NUL"),
        ("count", True, "must be a number"),
        ("count", "1", "must be a number"),
        ("stats", [], "must be an object"),
    ],
)
def test_a_field_must_be_of_its_kind(field: str, value: object, part: str) -> None:
    """Nothing is converted: a value fits the kind of its field, or the fault names the field."""
    faults = faults_of(envelope("Welcome", {**WELCOME, field: value}))

    assert part in faults[f"$.data.data.{field}"]


def test_a_missing_field_is_named() -> None:
    """Each required field that is missing is a fault of its own."""
    faults = faults_of(envelope("Welcome", {"email": "a@b"}))

    assert faults == {"$.data.data.username": "is missing", "$.data.data.token": "is missing"}


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        ({"subject": "s", "text": "t"}, "has no recipient"),
        ({"subject": "s", "text": "t", "to": [], "cc": None}, "has no recipient"),
        ({"subject": "s", "to": "a@b"}, "has no text"),
        ({"subject": "s", "text": "t", "to": ["a@b"] * 60, "bcc": ["c@d"] * 41}, "more than 100 recipients"),
        ({"subject": "s", "text": "t", "to": {}}, "a string or a list"),
        ({"subject": "s", "text": "t", "to": "a@b", "headers": []}, "must be an object"),
        ({"subject": "s", "text": "t", "to": "a@b", "headers": {f"x{n}": "" for n in range(101)}}, "more than 100"),
        ({"subject": "s", "text": "t", "to": "a@b", "headers": {"X-A": "x" * 8193}}, "8192"),
        ({"subject": "s", "text": "t", "to": "a@b", "headers": {f"x{n}": "x" * 8000 for n in range(9)}}, "in total"),
        ({"subject": "s", "text": "t", "to": "a@b", "attachments": {}}, "must be a list"),
        ({"subject": "s", "text": "t", "to": "a@b", "attachments": [{}] * 101}, "more than 100"),
        ({"subject": "s", "text": "a\0b", "to": "a@b"}, "NUL"),
        ({"subject": "s", "text": 5, "to": "a@b"}, "must be a string"),
    ],
)
def test_a_message_must_be_whole(payload: object, part: str) -> None:
    """A message without recipients or text, or with far too much of anything, is refused."""
    assert any(part in what for what in faults_of(envelope("Message", payload)).values())


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\nb", "x" * 256])
def test_a_file_name_cannot_lead_elsewhere(name: str) -> None:
    """The name of an attachment is a name: no folder, no control character, not too long."""
    attachment = {"name": name, "type": "text/plain", "base64": ""}
    payload = {"to": "a@b", "subject": "s", "text": "t", "attachments": [attachment]}

    assert "$.data.data.attachments[0].name" in faults_of(envelope("Message", payload))


@pytest.mark.parametrize(
    "text",
    [
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-02-30T00:00:00Z",
        "2030-01-01T00:00:61Z",
        "2030-01-01T24:00:00Z",
        "2030-01-01T00:00:00+24:00",
        "2030-01-01T00:00:00+0100",
        "\u0662030-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60-23:59",
        "",
    ],
)
def test_a_time_must_exist_and_have_a_zone(text: str) -> None:
    """A time that RFC 3339 does not know, or that leaves the zone to be guessed, is refused."""
    assert faults_of(envelope("Welcome", WELCOME, expires_at=text)).keys() == {"$.expires_at"}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({}, "not_a_job"),
        ({"task_type": "Email"}, "not_a_job"),
        ({"task_type": 1, "data": {}}, "not_a_job"),
        ({"task_type": "Email", "data": {"email_type": "Welcome"}}, "not_a_job"),
        ({"task_type": "Email", "data": {"email_type": "Welcome", "data": []}}, "not_a_job"),
        ({"task_type": "Sms", "data": {"email_type": "Welcome", "data": {}}}, "unknown_type"),
        ({"task_type": "Email", "data": {"email_type": "Other", "data": {}}}, "unknown_type"),
        ({"task_type": "Email", "data": {"email_type": "Welcome", "data": {}}}, "bad_field"),
    ],
)
def test_the_reason_is_one_word(document: object, reason: str) -> None:
    """Dead letters group by a closed set of words."""
    assert reason_of(json.dumps(document).encode()) == reason


def test_a_type_that_is_no_name_is_not_repeated() -> None:
    """A type that could be an address or a token is not shown; one that looks like a name is."""
    hidden = faults_of(envelope("ann@example.com", {}))
    named = faults_of(envelope("Invoice", {}))

    assert hidden == {"$.data.email_type": "(not a name) is not known here"}
    assert named == {"$.data.email_type": "Invoice is not known here"}


def test_faults_beyond_twenty_are_counted() -> None:
    """A hopeless job does not flood the screen."""
    refused = decode(envelope("Message", {"to": [0] * 100, "subject": "s", "text": "t"}), TYPES)

    assert isinstance(refused, Malformed)
    assert len(refused.faults) == 21
    assert refused.faults[-1].reason == "and 80 more"


def test_a_sample_job_is_made_of_the_samples() -> None:
    """Previews and the proof of the templates use the samples of the fields."""
    assert sample_job(TYPES["Welcome"]).content == Templated(
        Mailbox("", "ann", "example.com"),
        {"email": "ann@example.com", "username": "Ann", "token": "t", "note": None, "count": None, "stats": None},
    )
    with pytest.raises(ValueError, match="samples of Bad"):
        sample_job(TypeSpec("Bad", (FieldSpec("email", "recipient"),)))


@given(st.binary(max_size=200) | st.text(st.sampled_from('{}[]",:\\ud81ea0.NaN'), max_size=60).map(str.encode))
def test_no_bytes_raise(raw: bytes) -> None:
    """Any bytes give a job or a reason."""
    assert isinstance(decode(raw, TYPES), Job | Malformed)


@pytest.mark.case("D3")
@given(JSON | DOCUMENT)
def test_no_json_raises_and_every_fault_has_a_path(document: Any) -> None:
    """Any JSON gives a job, or faults whose paths begin at the root."""
    match decode(json.dumps(document).encode(), TYPES):
        case Malformed(_, faults):
            assert faults
            assert all(fault.path.startswith("$") and fault.reason for fault in faults)
        case job:
            assert job.email_type in {"Welcome", "Message"}


@given(st.sampled_from(["email", "username", "token", "note", "count", "stats", "to", "subject", "headers", "id"]))
def test_no_fault_repeats_a_value(key: str) -> None:
    """Wrong values of any field, as value or as the name of a member, do not appear in the faults."""
    bad: list[Any] = [SECRET + "\n", [SECRET], {SECRET: SECRET + "\n"}, {SECRET: {SECRET: 1}}]
    for value in bad:
        payload = {"to": "x", "attachments": [value], key: value}
        for email_type in ("Welcome", "Message", SECRET):
            refused = decode(envelope(email_type, payload, id=value), TYPES)

            assert isinstance(refused, Malformed)
            assert SECRET not in str(refused)
