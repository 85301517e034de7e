"""The JSON Schema of jobs: what is accepted fits it, and what lacks a part does not."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given

from tests.support.documents import DOCUMENT, TYPES, WELCOME, envelope
from trio_worker.jobs.job import Job, decode
from trio_worker.jobs.json_schema import job_schema

SCHEMA = job_schema(TYPES)


@given(DOCUMENT)
def test_what_is_accepted_fits_the_schema(document: Any) -> None:
    """A producer that validates against the schema is never stricter than the worker."""
    if isinstance(decode(json.dumps(document).encode(), TYPES), Job):
        jsonschema.validate(document, SCHEMA)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {**WELCOME, "count": "1"},
        {**WELCOME, "token": ""},
        {**WELCOME, "username": 7},
        {"email": "a@b", "username": "a"},
    ],
)
def test_the_schema_refuses_what_lacks_its_fields(payload: object) -> None:
    """The schema is no empty promise: structural faults fail it too."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(envelope("Welcome", payload)), SCHEMA)


@pytest.mark.parametrize(
    "payload",
    [{}, {"subject": "s", "to": "a@b"}, {"subject": "s", "text": "t"}, {"subject": 1, "text": "t", "to": "a@b"}],
)
def test_the_schema_refuses_half_a_message(payload: object) -> None:
    """Recipients, a subject and a text are part of the schema."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(envelope("Message", payload)), SCHEMA)


def test_the_schema_is_a_schema() -> None:
    """The schema is valid by the rules of its draft, and a whole message passes it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    content = base64.b64encode(b"hi").decode()
    attachment = {"name": "a", "type": "text/plain", "base64": content}
    payload = {"to": ["a@b"], "subject": "s", "html": "<p>", "headers": {"X": "y"}, "attachments": [attachment]}

    jsonschema.validate(json.loads(envelope("Message", payload, id="1")), SCHEMA)
