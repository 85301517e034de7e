"""Pure. Faults of a job, each with its path; their texts repeat nothing that the producer sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from trio_worker.records import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

Reason = Literal[
    "not_utf8",  # the bytes are not UTF-8
    "not_json",  # not JSON, or JSON that two parsers may read differently (RFC 7493)
    "not_a_job",  # JSON, but not the shape of a job
    "unknown_type",  # a task_type or an email_type that this worker does not have
    "bad_field",  # a field of the job is missing or wrong
    "over_budget",  # larger than its email type may be
    "template",  # a template failed on this job
    "bad_header",  # a header or an address would carry a forbidden character
]

MAX_FAULTS = 20
"""The most faults that are reported of one job: enough to correct a producer, and they fit on a screen."""

NOT_A_NAME = "(not a name)"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@frozen
class Fault:
    """One fault: ``path`` says where (``$.data.data.to[0]``), ``reason`` completes the sentence."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@frozen
class Malformed:
    """Why no mail can be made of a job; it becomes a dead letter with all these faults."""

    reason: Reason
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return f"{self.reason}: " + "; ".join(map(str, self.faults))


def malformed(reason: Reason, faults: Iterable[Fault]) -> Malformed:
    """Make a `Malformed` of faults; those after the first `MAX_FAULTS` are only counted."""
    found = tuple(faults)
    if len(found) <= MAX_FAULTS:
        return Malformed(reason, found)
    more = Fault("$", f"and {len(found) - MAX_FAULTS} more")
    return Malformed(reason, (*found[:MAX_FAULTS], more))


def safe_name(name: str) -> str:
    """Return a name from a payload if it looks like a name; else `NOT_A_NAME`: it could be a token or an address."""
    return name if _NAME.fullmatch(name) else NOT_A_NAME


def step(path: str, key: object) -> str:
    """Return the path of a member (a string key) or an element (a number) of the value at ``path``."""
    return f"{path}.{safe_name(key)}" if isinstance(key, str) else f"{path}[{key}]"
