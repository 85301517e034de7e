"""Pure. The record of a job: its attempts so far and the recipients still due, kept in Redis next to its bytes."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict, evolve, field

from trio_worker.records import frozen

# Attempts in the timeline of a record; older ones are only counted. 40 lines fill a screen.
TIMELINE_LIMIT = 40
# Of the last 5 attempts a record keeps the relay's text, cut to 120 characters: a few hundred bytes of Redis for a job
# that fails, none for a job that is sent.
SAID_LIMIT = 5
SAID_CHARACTERS = 120


@frozen
class Cause:
    """Why a job is in its state: one word to group by, and the text of the relay or the decoder.

    The relay's text may contain an address: mask ``text`` wherever it is shown.
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
    """A recipient that is not tried again, with the codes of the refusal."""

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
    """Details of the attempt in the timeline that has the same ``at``.

    ``text`` is what was said and may contain an address, as in `Cause`; ``connection`` is the worker's number of the
    connection, ``seconds`` the time from MAIL to the deciding reply. Both are None if no connection had the mail.
    """

    at: float
    text: str = ""
    connection: int | None = None
    seconds: float | None = None


@frozen
class Record:
    """The record of one job; times are epoch seconds of Redis' clock.

    The job's age counts from ``born``: the push time that the producer wrote, else the first claim; ``dead retry``
    resets it. ``pushed_at`` is never reset: the push time, known or estimated (None in records of older versions, and
    where nothing dates the push). ``mail_id`` is the left side of the Message-ID; empty: the job's id. ``due`` has the
    recipients still due, None if all are; ``delivered`` counts those that have the mail.
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
    said: tuple[Said, ...] = ()  # of the last attempts; a separate key, because older versions ignore unknown keys
    pushed_at: float | None = None
    mail_id: str = ""

    @property
    def may_have_gone(self) -> bool:
        """Whether the mail, or a part of it, may have reached somebody."""
        return bool(self.attempts or self.losses or self.uncertain or self.delivered)

    def noting(self, attempt: Attempt, text: str = "") -> Record:
        """Return the record with one more attempt in its timeline; beyond the limits the oldest is dropped."""
        said = Said(attempt.at, text[:SAID_CHARACTERS])
        return evolve(self, timeline=(*self.timeline, attempt)[-TIMELINE_LIMIT:], said=(*self.said, said)[-SAID_LIMIT:])

    def tried_on(self, at: float, connection: int | None, seconds: float | None) -> Record:
        """Return the record with the connection added to its last attempt, if that is the one noted at ``at``."""
        if connection is None or not self.said or self.said[-1].at != at:
            return self
        last = evolve(self.said[-1], connection=connection, seconds=None if seconds is None else round(seconds, 3))
        return evolve(self, said=(*self.said[:-1], last))

    def reborn(self, at: float) -> Record:
        """Return the record with new attempts and a new age, as after ``dead retry``.

        Recipients that have the mail stay left out; those that the relay refused are due again.
        """
        due = None if self.due is None else (*self.due, *(failed.recipient for failed in self.failed))
        return evolve(self, born=at, attempts=0, losses=0, due=due, failed=(), cause=None)


def write_record(record: Record) -> str:
    """Return the record as kept in Redis: JSON without the fields that have their default values."""
    fields = asdict(record)
    blank = asdict(Record(born=0))
    kept = {key: value for key, value in fields.items() if key == "born" or value != blank[key]}
    if record.due is not None:
        kept["delivered"] = record.delivered
    # The relay's text may have a lone surrogate after decoding; only an ASCII escape can carry it.
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=True)


def read_record(wire: bytes | str, born: float) -> Record:
    """Read a record; empty or unreadable bytes give a new one with this ``born``.

    Of a record that another version wrote, the known fields are read: no record may prevent an attempt, as the job's
    bytes are stored separately.
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
        # A version that did not count them may have delivered the mail to some.
        delivered=int(fields.get("delivered", 0 if due is None else 1)),
        failed=tuple(Failed(**failed) for failed in fields.get("failed", ())),
        cause=None if cause is None else Cause(**cause),
        timeline=tuple(Attempt(**attempt) for attempt in fields.get("timeline", ())),
        said=tuple(Said(**said) for said in fields.get("said", ())),
        mail_id=str(fields.get("mail_id", "")),
        pushed_at=None if fields.get("pushed_at") is None else float(fields["pushed_at"]),
    )


# For a job whose record has no cause, for example after a retry.
UNKNOWN_CAUSE = Cause("unknown")


@frozen
class ShelvedJob:
    """A dead or held job; ``at`` is when it became so, ``body`` its bytes: empty if they were not read."""

    job_id: str
    at: float
    record: Record
    cause: Cause
    body: bytes
    body_bytes: int
