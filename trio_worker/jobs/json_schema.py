"""Pure. JSON Schema of a job for producers, made from the same records and specs that decode it."""

from __future__ import annotations

from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import attrs

from trio_worker.jobs.address import Mailbox
from trio_worker.jobs.attachment import (
    MAX_ATTACHMENTS,
    Attachment,
    Attachments,
    Base64,
    ContentId,
    FileName,
    MediaType,
)
from trio_worker.jobs.email_type import MAX_LINE_CHARACTERS, MESSAGE, FieldKind, FieldSpec, TypeSpec
from trio_worker.jobs.header import MAX_HEADER_CHARACTERS
from trio_worker.jobs.job import TASK_TYPE, JobHeader, TraceParent
from trio_worker.jobs.message import (
    MAX_HEADERS,
    MAX_RECIPIENTS,
    Headers,
    Message,
    Recipients,
)
from trio_worker.jobs.structure import JSON_NAME, DateTime, OneLine, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonSchema: TypeAlias = dict[str, Any]

_LINE: JsonSchema = {"type": "string", "maxLength": MAX_LINE_CHARACTERS, "pattern": "^[^\\u0000-\\u001f\\u007f]*$"}
_MAILBOX: JsonSchema = {"type": "string", "description": "One mailbox: addr or Name <addr>.", "minLength": 3}

_KINDS: dict[FieldKind, JsonSchema] = {
    "recipient": {**_MAILBOX, "description": "The mailbox that the mail goes to: addr or Name <addr>."},
    "line": _LINE,
    "text": {"type": "string"},
    "token": {**_LINE, "minLength": 1},
    "number": {"type": "number"},
    "object": {"type": "object"},
}


def job_schema(types: Mapping[str, TypeSpec]) -> JsonSchema:
    """Return the schema (draft 2020-12) of the jobs that a worker with these types accepts.

    It describes the structure. What a schema cannot express (a text is one mailbox, a time exists) only the worker
    checks: it may refuse a job that passes here, but it accepts no job that fails here.
    """
    contents = {name: _templated(spec) for name, spec in types.items()} | {MESSAGE: _message()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job for trio-worker",
        "type": "object",
        "required": ["task_type", "data"],
        "properties": {
            "task_type": {"const": TASK_TYPE},
            "data": {
                "type": "object",
                "required": ["email_type", "data"],
                "oneOf": [
                    {"properties": {"email_type": {"const": name}, "data": content}}
                    for name, content in contents.items()
                ],
            },
            **_record(JobHeader)["properties"],
        },
    }


def _templated(spec: TypeSpec) -> JsonSchema:
    schema: JsonSchema = {
        "type": "object",
        "required": [declared.name for declared in spec.fields if declared.required],
        "properties": {declared.name: _field(declared) for declared in spec.fields},
    }
    return {**schema, "description": spec.says} if spec.says else schema


def _field(declared: FieldSpec) -> JsonSchema:
    shape = _KINDS[declared.kind]
    return shape if declared.required else _or_null(shape)


def _message() -> JsonSchema:
    recipients = [
        {"required": [name], "properties": {name: {"type": ["string", "array"]}}} for name in ("to", "cc", "bcc")
    ]
    texts = [{"required": [name], "properties": {name: {"type": "string"}}} for name in ("text", "html")]
    return {**_record(Message), "description": "Any mail.", "allOf": [{"anyOf": recipients}, {"anyOf": texts}]}


def _record(record: type[attrs.AttrsInstance]) -> JsonSchema:
    """Return the schema of an attrs record of the payload; a field with a default may be absent or null."""
    attrs.resolve_types(record, include_extras=True)
    fields = attrs.fields(record)
    names = {declared.name: declared.metadata.get(JSON_NAME, declared.name) for declared in fields}
    return {
        "type": "object",
        "required": [names[declared.name] for declared in fields if declared.default is attrs.NOTHING],
        "properties": {
            names[declared.name]: _shape(declared.type)
            if declared.default is attrs.NOTHING
            else _or_null(_shape(declared.type))
            for declared in fields
        },
    }


def _or_null(shape: JsonSchema) -> JsonSchema:
    """Return a schema that also allows null; ``anyOf`` if the given one has several types."""
    if isinstance(shape.get("type"), str):
        return {**shape, "type": [shape["type"], "null"]}
    return {"anyOf": [shape, {"type": "null"}]}


def _shape(declared: Any) -> JsonSchema:
    """Return the schema of one field's type; a type without one is a bug (KeyError)."""
    shapes: dict[Any, JsonSchema] = {
        OneLine: _LINE,
        Text: {"type": "string"},
        Mailbox: _MAILBOX,
        DateTime: {"type": "string", "format": "date-time", "description": "RFC 3339, with a zone."},
        TraceParent: {"type": "string", "description": "W3C Trace Context; ignored where it cannot be read."},
        Recipients: {"anyOf": [_MAILBOX, {"type": "array", "items": _MAILBOX, "maxItems": MAX_RECIPIENTS}]},
        Headers: {
            "type": "object",
            "maxProperties": MAX_HEADERS,
            "additionalProperties": {**_LINE, "maxLength": MAX_HEADER_CHARACTERS},
        },
        FileName: {**_LINE, "minLength": 1, "description": "A file's name without a folder."},
        MediaType: {"type": "string", "pattern": "^[^/ ]+/[^/ ;]+", "description": "With parameters, or without."},
        Base64: {"type": "string", "contentEncoding": "base64"},
        ContentId: {**_LINE, "minLength": 1, "description": "The id by which html shows it: cid:ID."},
    }
    if declared == Attachments:
        return {"type": "array", "items": _record(Attachment), "maxItems": MAX_ATTACHMENTS}
    plain = next(
        (option for option in get_args(declared) if NoneType in get_args(declared) and option is not NoneType), None
    )
    return shapes[declared if plain is None else plain]
