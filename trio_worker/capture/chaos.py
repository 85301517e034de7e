"""Pure. Faults that the catcher injects on purpose, and the syntax in which they are written.

A fault is ``stage=action`` with optional qualifiers; faults are separated by spaces or commas::

    rcpt=451:20%   data=drop   final=stall   mail=421:after5   auth=535:first3   every=delay-50ms

Stages, in the order of a session: ``connect`` (the greeting), ``ehlo`` (HELO too), ``starttls``, ``auth`` (the final
reply to a login), ``mail``, ``rcpt``, ``data`` (DATA or BDAT itself), ``body`` (the first octets of the content),
``final`` (after the dot or BDAT LAST), ``rset``, ``quit``; ``every`` is every reply.

Actions: a reply code from 400 to 599, optionally with an enhanced code and a text (``550-5.1.1-No_such_user``). After
421 the connection is closed, and also after a refusal at ``body``, which is sent while the client is still writing.
``drop`` resets the connection without a reply, ``accept-drop`` (``final`` only) keeps the mail first. ``stall`` never
replies again; at ``body`` it stops reading too. ``delay-50ms`` or ``delay-2s`` replies late; a group of commands that
were read together is late once.

Qualifiers: ``20%`` is a probability; ``every5`` is every fifth time and ``first3`` the first three times, counted over
all connections since the faults were set; ``after5`` is from the sixth time on one connection. A fault applies if all
its qualifiers do. Of several faults at one stage the first that applies is injected; delays are added to it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from attrs import field

from trio_worker.capture.server_profile import ServerReply
from trio_worker.records import define, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

FaultStage: TypeAlias = Literal[
    "connect",
    "ehlo",
    "starttls",
    "auth",
    "mail",
    "rcpt",
    "data",
    "body",
    "final",
    "rset",
    "quit",
    "every",
]
FAULT_STAGES: tuple[FaultStage, ...] = get_args(FaultStage)


@frozen
class Refuse:
    """Send this reply instead of the normal one."""

    reply: ServerReply


@frozen
class DropNow:
    """Reset the connection without a reply."""


@frozen
class AcceptThenDrop:
    """Keep the mail, then reset the connection before its reply."""


@frozen
class StallNow:
    """Never reply again."""


@frozen
class Delayed:
    """Reply ``seconds`` later."""

    seconds: float


FaultAction: TypeAlias = Refuse | DropNow | AcceptThenDrop | StallNow | Delayed


@frozen
class InjectedFault:
    """One fault: stage, action and qualifiers. 0 in ``every``, ``first`` and ``after``: no such qualifier."""

    stage: FaultStage
    action: FaultAction
    percent: float = 100.0
    every: int = 0
    first: int = 0
    after: int = 0


@frozen
class InjectedFaults:
    """The faults in force, in the order in which they were written."""

    faults: tuple[InjectedFault, ...] = ()


@frozen
class FaultSyntax:
    """Why a text cannot be parsed as faults; ``place`` is the offset of the wrong word."""

    problem: str
    place: int


NO_FAULTS = InjectedFaults()

# The enhanced codes for codes written without one (RFC 3463); all others get n.0.0.
_ENHANCED = {
    421: "4.3.2",
    432: "4.3.2",
    450: "4.2.0",
    451: "4.3.0",
    452: "4.3.1",
    454: "4.7.0",
    530: "5.7.0",
    535: "5.7.8",
    550: "5.1.1",
    552: "5.2.2",
    554: "5.7.1",
}
_CODE = re.compile(
    r"(?P<code>[45][0-9][0-9])(?:-(?P<enhanced>[0-9]\.[0-9]{1,3}\.[0-9]{1,3}))?(?:-(?P<text>[!-+.-9;-~-]+))?"
)
_DELAY = re.compile(r"delay-([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s)")
_COUNT = re.compile(r"(every|first|after)([1-9][0-9]{0,8})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_SCRIPTED = re.compile(r"(rcpt|data|body|final)-([^+@]+)(?:\+[^@]*)?@.*", re.DOTALL)
_DEFAULT_TEXT = "Refused on purpose"


def parse_faults(text: str) -> InjectedFaults | FaultSyntax:
    """Parse faults in the syntax that the head of this module describes; an empty text has no faults."""
    faults = []
    for word in re.finditer(r"[^\s,]+", text):
        fault = _parse_fault(word[0])
        if isinstance(fault, str):
            return FaultSyntax(fault, word.start())
        faults.append(fault)
    return InjectedFaults(tuple(faults))


def scripted_fault(address: str) -> InjectedFault | None:
    """Return the fault that a recipient's local part requests: ``rcpt-451@...``, ``final-550-5.7.1+tag@...``."""
    found = _SCRIPTED.fullmatch(address)
    if found is None:
        return None
    fault = _parse_fault(f"{found[1]}={found[2]}")
    return None if isinstance(fault, str) else fault


def _parse_fault(word: str) -> InjectedFault | str:
    stage, equals, rest = word.partition("=")
    if not equals:
        return f"{word!r} is not of the form stage=action"
    if stage not in FAULT_STAGES:
        return f"no stage {stage!r}; there are {', '.join(FAULT_STAGES)}"
    action_text, *qualifiers = rest.split(":")
    action = _parse_action(action_text)
    if isinstance(action, str):
        return action
    if isinstance(action, AcceptThenDrop) and stage != "final":
        return "accept-drop is only for final, where there is a mail to accept"
    found: dict[str, float] = {}
    for qualifier in qualifiers:
        known = _parse_qualifier(qualifier)
        if known is None or known[0] in found:
            return f"qualifier {qualifier!r} is repeated or unknown; there are 20%, every5, first3, after5"
        found[known[0]] = known[1]
    return InjectedFault(
        stage,
        action,
        found.get("percent", 100.0),
        int(found.get("every", 0)),
        int(found.get("first", 0)),
        int(found.get("after", 0)),
    )


def _parse_action(action_text: str) -> FaultAction | str:
    plain: dict[str, FaultAction] = {"drop": DropNow(), "accept-drop": AcceptThenDrop(), "stall": StallNow()}
    if action_text in plain:
        return plain[action_text]
    if late := _DELAY.fullmatch(action_text):
        return Delayed(round(float(late[1]) / (1 if late[2] == "s" else 1000), 6))
    found = _CODE.fullmatch(action_text)
    if found is None:
        return f"action {action_text!r} is unknown; there are 400 to 599, drop, accept-drop, stall, delay-50ms"
    code = int(found["code"])
    enhanced = found["enhanced"] or _ENHANCED.get(code, f"{code // 100}.0.0")
    if enhanced[0] != found["code"][0]:
        return f"enhanced code {enhanced} contradicts {code}: their first digits must be the same"
    return Refuse(ServerReply(code, enhanced, (found["text"] or _DEFAULT_TEXT).replace("_", " ")))


def _parse_qualifier(qualifier: str) -> tuple[str, float] | None:
    if count := _COUNT.fullmatch(qualifier):
        return count[1], int(count[2])
    percent = _PERCENT.fullmatch(qualifier)
    if percent is None or float(percent[1]) > 100:
        return None
    return "percent", float(percent[1])


@define
class SeededDice:
    """Random numbers in [0, 1) that are the same for the same ``seed``, on every Python version."""

    seed: int
    rolled: int = 0

    def roll(self) -> float:
        """Return the next number."""
        self.rolled += 1
        digest = hashlib.blake2b(f"{self.seed} {self.rolled}".encode(), digest_size=6).digest()
        return int.from_bytes(digest, "big") / 2**48


@define
class Chaos:
    """The faults in force on all connections of one catcher; ``roll`` returns random numbers in [0, 1)."""

    roll: Callable[[], float]
    faults: InjectedFaults = NO_FAULTS
    counts: Counter[FaultStage] = field(factory=Counter)

    def put_in_force(self, faults: InjectedFaults) -> None:
        """Replace the faults; their counts over all connections start again."""
        self.faults = faults
        self.counts.clear()

    def decide(self, stage: FaultStage, nth_here: int) -> tuple[float, FaultAction | None]:
        """Return the delay in seconds and the action due at ``stage``, reached ``nth_here`` times on a connection."""
        self.counts[stage] += 1
        delay_seconds = 0.0
        due: FaultAction | None = None
        for fault in self.faults.faults:
            if fault.stage != stage or not self._applies(fault, self.counts[stage], nth_here):
                continue
            if isinstance(fault.action, Delayed):
                delay_seconds = max(delay_seconds, fault.action.seconds)
            elif due is None:
                due = fault.action
        return delay_seconds, due

    def _applies(self, fault: InjectedFault, nth: int, nth_here: int) -> bool:
        if fault.every and nth % fault.every:
            return False
        if fault.first and nth > fault.first:
            return False
        if nth_here <= fault.after:
            return False
        return fault.percent >= 100 or self.roll() * 100 < fault.percent
