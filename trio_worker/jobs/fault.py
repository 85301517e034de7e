"""Pure. What is wrong with a job: faults with their paths, in words that repeat nothing the producer sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

Reason = Literal[
    "not_utf8",  # the bytes are no UTF-8
    "not_json",  # no JSON, or JSON that two readers may understand differently (RFC 7493)
    "not_a_job",  # JSON, but not the shape of a job
    "unknown_type",  # a task_type or an email_type that this worker does not have
    "bad_field",  # a field of the job is missing or wrong
    "template",  # a template failed on this job
    "bad_header",  # a header or an address would carry a forbidden character
]

MOST_FAULTS = 20
"""How many faults a job may report: enough to mend a producer, too few to flood a screen."""

NOT_A_NAME = "(not a name)"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@frozen
class Fault:
    """One thing that is wrong: ``path`` says where (``$.data.data.to[0]``), ``what`` completes the sentence."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@frozen
class Malformed:
    """A job that no mail can be made of; it goes to the dead letters with every fault."""

    reason: Reason
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"{self.reason}: " + "; ".join(map(str, self.faults))


def malformed(reason: Reason, faults: Iterable[Fault]) -> Malformed:
    """Collect faults into one `Malformed`; past `MOST_FAULTS` they are only counted."""
    found = tuple(faults)
    if len(found) <= MOST_FAULTS:
        return Malformed(reason, found)
    more = Fault("$", f"and {len(found) - MOST_FAULTS} more")
    return Malformed(reason, (*found[:MOST_FAULTS], more))


def safe_name(name: str) -> str:
    """Return a name from a payload if it looks like a name, else a placeholder: it might be a token or an address."""
    return name if _NAME.fullmatch(name) else NOT_A_NAME


def step(path: str, key: object) -> str:
    """Return the path of one member (a string key) or element (a number) of the value at ``path``."""
    return f"{path}.{safe_name(key)}" if isinstance(key, str) else f"{path}[{key}]"
