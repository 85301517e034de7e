"""Edge. New ids of jobs, from the clock and random numbers."""

from __future__ import annotations

import secrets
import time

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # sorted by value; without the letters i, l, o and u (Crockford)
_ID_LETTERS = frozenset(_ID_ALPHABET)


def new_id_prefix() -> str:
    """Return the first 16 characters of new job ids: ten for the time, so that ids sort by age, and six at random."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 30 | secrets.randbits(30)
    return "".join([_ID_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5)])


def first_claimed_at(job_id: str) -> float | None:
    """Return when a job got its id, by the clock of the worker that claimed it first; None for an id of another form.

    In epoch seconds, see `new_id_prefix`.
    """
    if len(job_id) < 10 or not _ID_LETTERS.issuperset(job_id):
        return None
    milliseconds = 0
    for letter in job_id[:10]:
        milliseconds = milliseconds << 5 | _ID_ALPHABET.index(letter)
    return milliseconds / 1000
