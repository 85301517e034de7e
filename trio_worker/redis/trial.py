"""Pure. The trial of what our user may do in Redis: which commands are tried before a script, and what the answer says.

Redis does not roll back a script. One that is refused in its middle may leave a job in no state, so its commands are
tried first, on a key that is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from trio_worker.redis.calls import RedisAnswer, Unavailable
from trio_worker.redis.errors import denied_in_script, refused
from trio_worker.redis.scripts import Script

# Scripts of a worker that are tried together: a job must not be claimed that cannot be settled. The others are tried by
# themselves: who may not publish outcomes can still send its heartbeat.
_TOGETHER = (("claim", "settle", "renew"),)


def tried_with(name: str) -> tuple[str, ...]:
    """Return the scripts that are tried together with this one, itself included."""
    return next((group for group in _TOGETHER if name in group), (name,))


def commands_of(scripts: Mapping[str, Script], names: tuple[str, ...]) -> list[str]:
    """Return the commands that any of these scripts may run."""
    return sorted({command for name in names for command in scripts[name].commands})


def read_trial(answer: RedisAnswer) -> Unavailable | None:
    """Return why the commands of a trial cannot be run; None if all can. Refusals by permissions go first."""
    found = [
        (command.decode("ascii"), said.decode("utf-8", "replace"))
        for command, said in zip(answer[::2], answer[1::2], strict=True)
    ]
    denials = [denial for command, said in found if (denial := denied_in_script(command, said)) is not None]
    if denials:
        names = ", ".join(denial.denied for denial in denials if denial.denied)
        first = denials[0]
        # Nothing was done: the trial has taken away what it made.
        return evolve(
            first,
            reason=first.reason.replace(first.denied, names, 1) if first.denied else first.reason,
            denied=names,
            is_refusal=True,
        )
    return refused(found[0][1]) if found else None
