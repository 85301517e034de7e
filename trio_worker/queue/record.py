"""Pure. What is remembered of a job between its attempts, beside its original bytes."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict, evolve, field, frozen

# How many attempts a record names one by one; older ones are only counted. 40 lines fill a screen.
TIMELINE_LIMIT = 40
# Of the last attempts a record keeps what was said, cut to so many characters: a few hundred bytes of Redis for a job
# that fails, and none for one that is sent.
SAID_LIMIT = 5
SAID_CHARACTERS = 120


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
class Said:
    """More of one attempt of the timeline, that of the same ``at``: what was said, and where.

    ``text`` may name an address, as that of a `Cause`; ``connection`` numbers those of the worker, ``seconds`` run from
    MAIL to the deciding reply. Both are None where no connection had the mail.
    """

    at: float
    text: str = ""
    connection: int | None = None
    seconds: float | None = None


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
    said: tuple[Said, ...] = ()  # of the last attempts; a key of its own, which an older version passes over

    def noting(self, attempt: Attempt, text: str = "") -> Record:
        """Return the record with one more line in its timeline, the oldest dropped beyond the limits."""
        said = Said(attempt.at, text[:SAID_CHARACTERS])
        return evolve(self, timeline=(*self.timeline, attempt)[-TIMELINE_LIMIT:], said=(*self.said, said)[-SAID_LIMIT:])

    def tried_on(self, at: float, connection: int | None, seconds: float | None) -> Record:
        """Return the record with the connection of the attempt that was noted at ``at``, if one was."""
        if connection is None or not self.said or self.said[-1].at != at:
            return self
        last = evolve(self.said[-1], connection=connection, seconds=None if seconds is None else round(seconds, 3))
        return evolve(self, said=(*self.said[:-1], last))

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
        said=tuple(Said(**said) for said in fields.get("said", ())),
    )


# Of a job that nobody said anything of, or that was put back.
UNKNOWN_CAUSE = Cause("unknown")


@frozen
class ShelvedJob:
    """One dead or held job; ``at`` is when it got there, ``body`` its original bytes, or nothing unless asked for."""

    job_id: str
    at: float
    record: Record
    cause: Cause
    body: bytes
    body_bytes: int
