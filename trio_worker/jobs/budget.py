"""Pure. The largest job of each email type; where a job names its type first, it is refused without being parsed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trio_worker.jobs.fault import Fault, Malformed
from trio_worker.jobs.job import Job, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_worker.jobs.email_type import TypeSpec

_MEMBER = rb'"[A-Za-z0-9_]{1,64}"\s{0,9}:\s{0,9}"[^"\\]{0,200}"\s{0,9},\s{0,9}'
# From the first octet of the job, with nothing but members of plain text before: no other reading is possible.
_NAMES_TYPE = re.compile(
    rb'\s{0,9}\{\s{0,9}(?:%b){0,9}"data"\s{0,9}:\s{0,9}\{\s{0,9}(?:%b){0,9}"email_type"\s{0,9}:\s{0,9}"([A-Za-z0-9_.-]{1,64})"'
    % (_MEMBER, _MEMBER)
)


def decode_within(raw: bytes, types: Mapping[str, TypeSpec], budgets: Mapping[str, int]) -> Job | Malformed:
    """Decode a job as `decode` does, unless it has more octets than its email type may have (``budgets``)."""
    octets = len(raw)
    if octets <= min(budgets.values(), default=octets):
        return decode(raw, types)
    if too_large := _too_large(named_type(raw), octets, budgets):
        return too_large
    job = decode(raw, types)
    return _too_large(job.email_type if isinstance(job, Job) else "", octets, budgets) or job


def named_type(raw: bytes) -> str:
    """Return the email type that a job names before its fields; empty where only parsing could tell."""
    named = _NAMES_TYPE.match(raw)
    return "" if named is None else named[1].decode("ascii")


def _too_large(email_type: str, octets: int, budgets: Mapping[str, int]) -> Malformed | None:
    budget = budgets.get(email_type)
    if budget is None or octets <= budget:
        return None
    reason = f"has {octets:,} bytes; mail.types.{email_type}.max_job_bytes is {budget:,}"
    return Malformed("over_budget", (Fault("$", reason),))
