"""Pure. Summary of a job for lists: its type, the domains of its recipients, when it was pushed."""

from __future__ import annotations

from trio_worker.jobs.date_time import enqueued_at_of
from trio_worker.jobs.domain import one_spelling
from trio_worker.jobs.strict_json import Json, read_json
from trio_worker.records import frozen


@frozen
class JobSummary:
    """A summary of one job; a field is empty or None where the job has no such value, or cannot be read."""

    email_type: str = ""
    recipients: tuple[str, ...] = ()
    producer_id: str = ""
    enqueued_at: float | None = None
    is_readable: bool = True

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of the recipients in one spelling, each once; they identify no person."""
        found = (one_spelling(recipient.rpartition("@")[2].rstrip("> ")) for recipient in self.recipients)
        return tuple(dict.fromkeys(domain for domain in found if domain))


def summarize(raw: bytes) -> JobSummary:
    """Summarize a job as far as it can be understood; never raises, whatever the bytes."""
    document = read_json(raw)
    if not isinstance(document, dict):
        return JobSummary(is_readable=False)
    delivery = document.get("data")
    delivery = delivery if isinstance(delivery, dict) else {}
    payload = delivery.get("data")
    payload = payload if isinstance(payload, dict) else {}
    return JobSummary(
        email_type=_text(delivery.get("email_type")),
        recipients=tuple(
            name for key in ("email", "to", "cc", "bcc") for name in _texts(payload.get(key)) if "@" in name
        ),
        producer_id=_text(document.get("id")),
        enqueued_at=enqueued_at_of(document),
    )


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Json) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
