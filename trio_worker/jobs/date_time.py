"""Pure. Times in jobs: RFC 3339, with a zone; and the time at which a producer says that it pushed a job."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from trio_worker.jobs.strict_json import Json, read_json
from trio_worker.records import frozen

# RFC 3339, 5.6, in ASCII digits. A zone is required: without one a time is ambiguous.
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))",
)
_MAX_FRACTION_CHARACTERS = 10  # a dot and nanoseconds: a float has less precision
_LEAP_SECOND = 60
# The years 1 to 9999 in UTC, as in Python's calendar: a zone may move a time out of them.
_FIRST_SECOND, _LAST_SECOND = -62135596800.0, 253402300800.0
_MAX_ZONE_HOURS, _MAX_ZONE_MINUTES = 23, 59


@frozen
class DateTimeFault:
    """Why a text is no time; ``reason`` completes a sentence and never repeats the text."""

    reason: str


def parse_date_time(text: str) -> float | DateTimeFault:
    """Return the epoch seconds of a time in the form of RFC 3339, with a zone."""
    read = _RFC_3339.fullmatch(text)
    if read is None:
        return DateTimeFault("must be a time with a zone, such as 2030-01-31T12:00:00Z (RFC 3339)")
    day, clock, seconds, fraction, sign, zone_hours, zone_minutes = read.groups()
    offset = 0
    if sign:
        hours, minutes = int(zone_hours), int(zone_minutes)
        if hours > _MAX_ZONE_HOURS or minutes > _MAX_ZONE_MINUTES:
            return DateTimeFault("has a zone that does not exist")
        offset = (hours * 3600 + minutes * 60) * (-1 if sign == "-" else 1)
    if int(seconds) > _LEAP_SECOND:
        return DateTimeFault("is a time that does not exist")
    try:
        minute = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    except ValueError:
        return DateTimeFault("is a time that does not exist")
    part = float(fraction[:_MAX_FRACTION_CHARACTERS]) if fraction and len(fraction) > 1 else 0.0
    second = minute.timestamp() + int(seconds) + part - offset
    if not _FIRST_SECOND <= second < _LAST_SECOND:
        return DateTimeFault("is a time that does not exist")
    return second


def read_enqueued_at(raw: bytes) -> float | None:
    """Return the ``enqueued_at`` of a job, or None if it has none; never raises, whatever the bytes."""
    document = read_json(raw)
    return enqueued_at_of(document) if isinstance(document, dict) else None


def enqueued_at_of(document: dict[str, Json]) -> float | None:
    """Return the ``enqueued_at`` of a job that is read already."""
    said = document.get("enqueued_at")
    at = parse_date_time(said) if isinstance(said, str) else None
    return None if isinstance(at, DateTimeFault) else at
