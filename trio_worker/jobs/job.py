"""Pure. Decodes the bytes of a job into a `Job`, or into all the faults that they have."""

from __future__ import annotations

import re
from collections.abc import Mapping  # attrs resolves the annotations of a record at run time
from typing import TYPE_CHECKING, Annotated, Any, assert_never

from attrs import evolve, field

from trio_worker.jobs.address import AddressFault, Mailbox, parse_mailbox
from trio_worker.jobs.attachment import Attachment
from trio_worker.jobs.email_type import MESSAGE, FieldSpec, TypeSpec, fault_of_value, is_plain_line
from trio_worker.jobs.fault import Fault, Malformed, Reason, malformed, safe_name, step
from trio_worker.jobs.message import Message, decode_message
from trio_worker.jobs.strict_json import Json, read_json
from trio_worker.jobs.structure import DateTime, OneLine, register, register_record, structure, text_of
from trio_worker.records import frozen
from trio_worker.typed_frozen import typed_frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Attachment",
    "Fault",
    "FieldSpec",
    "Job",
    "Json",
    "Malformed",
    "Message",
    "Reason",
    "Templated",
    "TypeSpec",
    "decode",
    "sample_job",
    "sample_jobs",
]

TASK_TYPE = "Email"

TraceParent = Annotated[str, "traceparent"]

# https://www.w3.org/TR/trace-context-1/#traceparent-header: a value that cannot be parsed must be ignored.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


@typed_frozen
class Templated:
    """The content of a job whose text comes from templates.

    ``fields`` has exactly the fields that the type declares; an optional field that the job does not have is None.
    The recipient's field has the bare address, with a domain beyond ASCII in its own letters.
    """

    recipient: Mailbox
    fields: Mapping[str, Json] = field(repr=False)


@typed_frozen
class Job:
    """One mail to make. All times are epoch seconds; None where the producer gave no value."""

    email_type: str
    content: Templated | Message
    producer_id: str | None = None
    enqueued_at: float | None = None
    not_before: float | None = None
    expires_at: float | None = None
    traceparent: str | None = None


@frozen
class JobHeader:
    """The optional keys of a job beside its ``task_type`` and ``data``."""

    id: OneLine | None = None
    enqueued_at: DateTime | None = None
    not_before: DateTime | None = None
    expires_at: DateTime | None = None
    traceparent: TraceParent | None = None


_REQUIRED = frozenset({"task_type", "data"})
_EMPTY_HEADER = JobHeader()
_NO_OBJECT = malformed("not_a_job", [Fault("$", "must be an object")])


def decode(raw: bytes, types: Mapping[str, TypeSpec]) -> Job | Malformed:
    """Decode one job strictly; never raises, whatever the bytes.

    Unknown keys are ignored everywhere, so that producers may be newer than workers. No fault repeats a value of the
    payload.
    """
    document = read_json(raw)
    if not isinstance(document, dict):
        return document if isinstance(document, Malformed) else _NO_OBJECT

    header = _read_header(document)
    task = _read_task(document)
    if isinstance(task, Malformed):
        return _with_faults_of_header(task, header)
    email_type, payload = task
    content = _read_content(email_type, payload, types)
    if isinstance(content, Malformed):
        return _with_faults_of_header(content, header)
    if not isinstance(header, JobHeader):
        return malformed("bad_field", header)
    return Job(
        email_type,
        content,
        header.id,
        header.enqueued_at,
        header.not_before,
        header.expires_at,
        header.traceparent or None,
    )


def sample_jobs(spec: TypeSpec) -> tuple[Job, Job]:
    """Make a job of this type from the samples of all its fields, and one from those of only the required fields."""
    fields = tuple(each if each.required else evolve(each, sample=None) for each in spec.fields)
    return sample_job(spec), sample_job(evolve(spec, fields=fields))


def sample_job(spec: TypeSpec) -> Job:
    """Make a job of this type from the samples of its fields, for previews and for testing the templates."""
    content = _read_fields(spec, {declared.name: declared.sample for declared in spec.fields})
    match content:
        case Templated():
            return Job(spec.email_type, content)
        case Malformed():
            raise ValueError(f"the samples of {spec.email_type} do not fit: {content}")
        case _:
            assert_never(content)


def _read_header(document: Mapping[str, Json]) -> JobHeader | tuple[Fault, ...]:
    """Return the optional keys of a job; most jobs have none."""
    return _EMPTY_HEADER if document.keys() <= _REQUIRED else structure(document, JobHeader, "$")


def _with_faults_of_header(found: Malformed, header: JobHeader | tuple[Fault, ...]) -> Malformed:
    return found if isinstance(header, JobHeader) else malformed(found.reason, (*found.faults, *header))


def _read_task(document: Mapping[str, Json]) -> tuple[str, Mapping[str, Json]] | Malformed:
    """Return the email type and its payload from a job's two required keys."""
    delivery = document.get("data")
    if document.get("task_type") == TASK_TYPE and isinstance(delivery, dict):
        usual_type, usual_payload = delivery.get("email_type"), delivery.get("data")
        if isinstance(usual_type, str) and isinstance(usual_payload, dict):
            return usual_type, usual_payload
    faults = [*_faults_of_word(document, "task_type", "$")]
    if isinstance(delivery, dict):
        faults.extend(_faults_of_word(delivery, "email_type", "$.data"))
    else:
        delivery = {}
        faults.append(Fault("$.data", "must be an object" if "data" in document else "is missing"))
    payload = delivery.get("data")
    if delivery and not isinstance(payload, dict):
        faults.append(Fault("$.data.data", "must be an object" if "data" in delivery else "is missing"))
    task_type, email_type = document.get("task_type"), delivery.get("email_type")
    if faults or not isinstance(task_type, str) or not isinstance(email_type, str) or not isinstance(payload, dict):
        return malformed("not_a_job", faults)
    if task_type != TASK_TYPE:
        return malformed(
            "unknown_type", [Fault("$.task_type", f"{safe_name(task_type)} is not known; it must be {TASK_TYPE}")]
        )
    return email_type, payload


def _faults_of_word(holder: Mapping[str, Json], key: str, path: str) -> Iterator[Fault]:
    if key not in holder:
        yield Fault(step(path, key), "is missing")
    elif not isinstance(holder[key], str):
        yield Fault(step(path, key), "must be a string")


def _read_content(
    email_type: str, payload: Mapping[str, Json], types: Mapping[str, TypeSpec]
) -> Templated | Message | Malformed:
    if email_type == MESSAGE:
        message = decode_message(payload, "$.data.data")
        return message if isinstance(message, Message) else malformed("bad_field", message)
    spec = types.get(email_type)
    if spec is None:
        return malformed("unknown_type", [Fault("$.data.email_type", f"{safe_name(email_type)} is not known here")])
    return _read_fields(spec, payload)


def _read_fields(spec: TypeSpec, payload: Mapping[str, Json]) -> Templated | Malformed:
    fields: dict[str, Json] = {}
    faults = []
    recipient: Mailbox | None = None
    for declared in spec.fields:
        name = declared.name
        value = payload.get(name)
        if value is None and not (declared.required and name in payload):
            # Many serialisers write null for an optional value that is absent.
            if declared.required:
                faults.append(Fault(f"$.data.data.{name}", "is missing"))
            fields[name] = None
        elif declared.kind == "recipient" and isinstance(value, str):
            mailbox = parse_mailbox(value)
            if isinstance(mailbox, AddressFault):
                faults.append(Fault(f"$.data.data.{name}", mailbox.reason))
            else:
                recipient = mailbox
                fields[name] = mailbox.address if value.isascii() else mailbox.readable_address
        elif is_plain_line(declared.kind, value):
            fields[name] = value
        elif what := fault_of_value(declared.kind, value):
            faults.append(Fault(f"$.data.data.{name}", what))
        else:
            fields[name] = value
    if faults or recipient is None:
        return malformed("bad_field", faults)
    return Templated(recipient, fields)


def _traceparent(value: Any) -> str:
    return text_of(value) if _TRACEPARENT.fullmatch(text_of(value)) else ""


register(TraceParent, _traceparent)
register_record(JobHeader)
