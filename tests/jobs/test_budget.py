"""How large a job of each type may be: refused early where its type is seen, and never because of another type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.jobs import job_bytes
from trio_worker.jobs import budget
from trio_worker.jobs.budget import decode_within, named_type
from trio_worker.jobs.catalogue import read_catalogue
from trio_worker.jobs.email_type import Catalogue
from trio_worker.jobs.job import Job, Malformed, decode
from trio_worker.mail.options import MailOptions, TypeOptions

CATALOGUE = read_catalogue(())
assert isinstance(CATALOGUE, Catalogue)
TYPES = CATALOGUE.types
BUDGETS = {"Registration": 500}


def registration(**more: Any) -> dict[str, Any]:
    fields = {"email": "ann@example.com", "username": "ann", "token": "t"}
    return {"task_type": "Email", "data": {"email_type": "Registration", "data": fields}, **more}


def refusal(raw: bytes) -> str:
    refused = decode_within(raw, TYPES, BUDGETS)
    assert isinstance(refused, Malformed)
    assert refused.reason == "over_budget"
    return str(refused)


@pytest.mark.parametrize(
    "document",
    [
        registration(x="y" * 500),
        {"id": "A-1", "enqueued_at": "2030-01-31T12:00:00Z", **registration(x="y" * 500)},
        {"data": {"email_type": "Registration", "data": {"x": "y" * 500}}, "task_type": "Email"},
    ],
)
def test_a_large_job_that_names_its_type_first_is_not_parsed(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault names the setting, the limit and the size."""
    raw = json.dumps(document).encode()
    monkeypatch.setattr(budget, "decode", None)

    assert refusal(raw) == f"over_budget: $: has {len(raw)} bytes; mail.types.Registration.max_job_bytes is 500"


@pytest.mark.parametrize(
    "document",
    [
        {"task_type": "Email", "data": {"data": registration()["data"]["data"], "email_type": "Registration"}},
        {"x": ["y" * 500], **registration()},
        {"x": "\\", **registration()},
    ],
)
def test_a_large_job_that_does_not_is_refused_when_it_is_parsed(document: dict[str, Any]) -> None:
    """The order of keys is no way around."""
    document["y"] = "z" * 500

    assert "mail.types.Registration.max_job_bytes" in refusal(json.dumps(document).encode())


@pytest.mark.parametrize(
    "document",
    [
        registration(),
        {
            "x": {"data": {"email_type": "Registration"}},
            "task_type": "Email",
            "data": {"email_type": "Other", "data": {}},
        },
        {"task_type": "Email", "data": {"email_type": "Other", "data": {"email_type": "Registration", "x": "y" * 500}}},
        {"task_type": "Email", "data": {"x": '"email_type":"Registration"', "email_type": "Other", "data": {}}},
    ],
)
def test_a_job_of_another_type_or_size_is_decoded_as_ever(document: dict[str, Any]) -> None:
    """What a job holds beside its own type is no budget of its own."""
    document["y"] = "z" * (0 if document == registration() else 500)
    raw = json.dumps(document).encode()

    assert decode_within(raw, TYPES, BUDGETS) == decode(raw, TYPES)
    assert decode_within(raw, TYPES, {}) == decode(raw, TYPES)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["Registration", "Email", '"', "\\"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["data", "email_type", "task_type", "x"]), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_the_type_that_is_seen_is_the_one_that_is_parsed(document: object) -> None:
    """Whatever the JSON: where a type is seen at all, it is that of the job."""
    named = named_type(json.dumps(document).encode())

    if named:
        assert isinstance(document, dict)
        assert document["data"]["email_type"] == named


def test_shipped_types_have_a_budget_and_messages_have_none() -> None:
    """64 KiB for a job of a few fields; a Message may hold files."""
    assert set(MailOptions().budgets.values()) == {65_536}
    assert len(MailOptions().budgets) == 6
    assert MailOptions(types={"Own": TypeOptions()}).budgets == {}
    assert isinstance(decode_within(job_bytes(), TYPES, MailOptions().budgets), Job)
