"""Pure. Figures as text for people: counts, rates and durations.

Everywhere: ``-`` is unknown, ``0`` is zero, ``~`` marks an estimate, and no duration is negative.
"""

from __future__ import annotations

import time

UNKNOWN = "-"


# The longest duration that fits six characters; it is 273 years.
_LONGEST_SECONDS = 99_999 * 86_400.0


def count(number: int | None, room: int = 26) -> str:
    """Return a count with thousands separators; if longer than ``room``, in whole k, M, G or T."""
    if number is None:
        return UNKNOWN
    text = f"{number:,}"
    for unit in "kMGT":
        if len(text) <= room:
            return text
        number //= 1000
        text = f"{number:,}{unit}"
    return text


def counted(number: int, one: str, many: str = "") -> str:
    """Return a count with its noun: ``1 job``, ``2 jobs``; ``many`` is the plural if it is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def paused_words(reason: str, at: float, seconds_left: float | None) -> str:
    """Return why a queue is paused, by whom, and until when; ``at`` is the time of the poll in epoch seconds."""
    if seconds_left is None:
        return f"{reason}, until it is resumed"
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at + seconds_left))
    return f"{reason}, until {ends} ({duration(seconds_left)} more)"


def per_second(rate: float, room: int = 26) -> str:
    """Return a rate, with one decimal below ten, else as a whole number."""
    if round(rate, 1) < 10:
        return f"{max(0.0, rate):.1f}"
    return count(round(rate), room)


def duration(seconds: float | None, *, is_estimate: bool = False) -> str:
    """Return a duration in at most two units and six characters; seven with the ``~`` of an estimate."""
    if seconds is None:
        return UNKNOWN
    return ("~" if is_estimate else "") + _duration(min(max(0.0, seconds), _LONGEST_SECONDS))


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "0s"
    milliseconds = seconds * 1000
    if round(milliseconds, 1) < 10:
        return f"{milliseconds:.1f}ms"
    if round(milliseconds) < 1000:
        return f"{milliseconds:.0f}ms"
    if round(seconds, 1) < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    days = whole // 86400
    return f"{days}d{whole % 86400 // 3600:02}h" if days < 100 else f"{days}d"


def ago(seconds: float) -> str:
    """Return the time since an event, in whole seconds: ``3s``, ``12m05s``."""
    return f"{max(0, int(seconds))}s" if seconds < 60 else duration(seconds)


def clock(epoch_seconds: float) -> str:
    """Return a time of day in UTC: ``12:04:31``."""
    return time.strftime("%H:%M:%S", time.gmtime(epoch_seconds))


def memory(size_bytes: int | None) -> str:
    """Return an amount of memory in whole megabytes."""
    return UNKNOWN if size_bytes is None else f"{size_bytes / 1e6:,.0f}MB"


def share(part: float | None) -> str:
    """Return a fraction in whole percent."""
    return UNKNOWN if part is None else f"{part:.0%}"


def busy_of(busy: int | None, consumers: int, room: int = 26) -> str:
    """Return the busy consumers and all consumers; older versions do not send the first."""
    return UNKNOWN if busy is None else f"{count(busy, room)}/{count(consumers, room)}"
