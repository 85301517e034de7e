"""Pure. The time to wait that a relay names in the text of a reply."""

from __future__ import annotations

import re

# Words that come before a time to wait. Without them a number may be anything: "512 M of 500 M used".
_HINT = re.compile(
    r"\b(?:in|after|for|wait|within|retry|delay(?:ed)?|greylist(?:ed|ing)?|next)\b[^0-9]{0,20}"
    r"(?:(?P<clock>\d{1,3}(?::[0-5]\d){1,2})(?![\d:])"
    r"|(?P<number>\d{1,6}) ?(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b)",
    re.IGNORECASE,
)
_HINT_SECONDS = {"s": 1, "m": 60, "h": 3600}


def hinted_seconds(text: str) -> float | None:
    """Return the wait that a reply names: ``try again in 300 seconds``, ``come back in 00:04:58``."""
    found = _HINT.search(text)
    if found is None:
        return None
    if found["clock"] is None:
        return float(found["number"]) * _HINT_SECONDS[found["unit"][0].lower()]
    seconds = 0
    for part in found["clock"].split(":"):
        seconds = 60 * seconds + int(part)
    return float(seconds)
