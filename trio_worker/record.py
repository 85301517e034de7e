"""Pure. What is remembered of a job between its attempts, beside its original bytes."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict, evolve, field, frozen

# How many attempts a record names one by one; older ones are only counted. 40 lines fill a screen.
TIMELINE_LIMIT = 40


@frozen
class Cause:
    """Why a job is where it is: one word to group by, and what the relay or the decoder said.

    ``text`` may hold the relay's words, which may name an address; whoever shows it masks it.
    """

    word: str
    codes: str = ""
    stage: str = ""
    text: str = ""

    def __str__(self) -> str:
        place = f" at {self.stage.upper()}" if self.stage else ""
        return f"{self.word}: {self.codes}{place} {self.text}".replace(":  ", ": ").rstrip(": ")


@frozen
class Failed:
    """One recipient that will not be tried again, with the codes that said so."""

    recipient: str
    codes: str
    text: str = ""


@frozen
class Attempt:
    """One line of a job's timeline; ``at`` is Redis' clock in epoch seconds."""

    at: float
    what: str
    codes: str = ""
    stage: str = ""


@frozen
class Record:
    """The small record of one job; times are epoch seconds of Redis' clock.

    ``born`` begins the job's age: when the producer says it was pushed, else when it was first claimed, and anew at
    ``dead retry``. ``due`` is None while all recipients are due, else those that still are; ``delivered`` counts those
    that have the mail.
    """

    born: float
    email_type: str = ""
    attempts: int = 0
    losses: int = 0  # connections lost after the relay had taken this mail's sender
    uncertain: int = 0  # attempts that may have delivered
    due: tuple[str, ...] | None = None
    delivered: int = 0
    failed: tuple[Failed, ...] = ()
    cause: Cause | None = None
    timeline: tuple[Attempt, ...] = field(default=())

    def noting(self, attempt: Attempt) -> Record:
        """Return the record with one more line in its timeline, the oldest dropped beyond the limit."""
        return evolve(self, timeline=(*self.timeline, attempt)[-TIMELINE_LIMIT:])

    def reborn(self, at: float) -> Record:
        """Return the record with new attempts and a new age, as ``dead retry`` gives them.

        Recipients that have the mail stay left out; those that were refused for good are due again.
        """
        due = None if self.due is None else (*self.due, *(failed.recipient for failed in self.failed))
        return evolve(self, born=at, attempts=0, losses=0, due=due, failed=(), cause=None)


def write_record(record: Record) -> str:
    """Turn a record into the text kept in Redis: JSON without what is at its default."""
    fields = asdict(record)
    blank = asdict(Record(born=0))
    kept = {key: value for key, value in fields.items() if key == "born" or value != blank[key]}
    if record.due is not None:
        kept["delivered"] = record.delivered
    # A relay's words may hold a lone surrogate after decoding; ASCII escapes carry it safely.
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=True)


def read_record(wire: bytes | str, born: float) -> Record:
    """Read a record back; empty or unreadable bytes give a fresh one that is ``born`` now.

    A record that another version wrote keeps what is understood of it: the job's own bytes are elsewhere, and no
    record may keep them from being tried.
    """
    if not wire:
        return Record(born)
    try:
        fields = json.loads(wire)
    except ValueError:
        return Record(born)
    if not isinstance(fields, dict):
        return Record(born)
    try:
        return _record(fields, born)
    except (TypeError, ValueError, KeyError, AttributeError):
        return Record(born)


def _record(fields: dict[str, Any], born: float) -> Record:
    due, cause = fields.get("due"), fields.get("cause")
    return Record(
        born=float(fields.get("born", born)),
        email_type=str(fields.get("email_type", "")),
        attempts=int(fields.get("attempts", 0)),
        losses=int(fields.get("losses", 0)),
        uncertain=int(fields.get("uncertain", 0)),
        due=None if due is None else tuple(map(str, due)),
        # A version that did not count them may have delivered to some.
        delivered=int(fields.get("delivered", 0 if due is None else 1)),
        failed=tuple(Failed(**failed) for failed in fields.get("failed", ())),
        cause=None if cause is None else Cause(**cause),
        timeline=tuple(Attempt(**attempt) for attempt in fields.get("timeline", ())),
    )
