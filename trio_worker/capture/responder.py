"""Pure. What a session says: replies, violations and faults become one list of actions for each input."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

from attrs import define, field

from trio_worker.capture.actions import Close, DelayReplies, Drop, Send, ServerAction, Stall, Violation
from trio_worker.capture.chaos import AcceptThenDrop, Chaos, Delayed, DropNow, FaultAction, FaultStage, Refuse, StallNow

if TYPE_CHECKING:
    from trio_worker.capture.server_profile import ServerReply

SERVICE_CLOSES = 421


@define
class Responder:
    """Collects the actions of one connection; replies that follow each other become one `Send`.

    ``has_ended`` says that nothing more will be answered: the connection closes, is dropped or stalls.
    """

    chaos: Chaos
    connection_id: int
    with_enhanced: bool = False
    has_ended: bool = False
    _actions: list[ServerAction] = field(factory=list, init=False)
    _unsent: bytearray = field(factory=bytearray, init=False)
    _late_seconds: float = field(default=0.0, init=False)
    _reached: Counter[FaultStage] = field(factory=Counter, init=False)

    def send(self, payload: bytes) -> None:
        """Send these octets."""
        self._unsent += payload

    def reply(self, reply: ServerReply) -> None:
        """Send one reply; a 421 also closes the connection (RFC 5321 section 3.8)."""
        self.send(reply.encode(with_enhanced=self.with_enhanced))
        if reply.code == SERVICE_CLOSES:
            self.end(Close())

    def record_violation(self, rule: str, what: str) -> None:
        """Record that the client broke a rule."""
        self.add(Violation(rule, what, self.connection_id))

    def refuse(self, reply: ServerReply, rule: str, what: str) -> None:
        """Record the broken rule, and answer."""
        self.record_violation(rule, what)
        self.reply(reply)

    def add(self, action: ServerAction) -> None:
        """Add one action after what was said before it."""
        if self._unsent:
            self._actions.append(Send(bytes(self._unsent)))
            self._unsent.clear()
        self._actions.append(action)

    def end(self, action: Close | Drop | Stall) -> None:
        """Add the last action."""
        self.add(action)
        self.has_ended = True

    def delay(self, seconds: float) -> None:
        """Make what follows late, counted from the reading of this input: the longest delay of a group counts alone."""
        if seconds > self._late_seconds:
            self._late_seconds = seconds
            self.add(DelayReplies(seconds))

    def next_fault(self, stage: FaultStage) -> tuple[float, FaultAction | None]:
        """Count that ``stage`` was reached; return the delay in seconds and the action that its faults decide."""
        self._reached[stage] += 1
        return self.chaos.decide(stage, self._reached[stage])

    def inject_fault_at(self, stage: FaultStage) -> bool:
        """Commit the fault due at ``stage``; True where it takes the place of the normal reply."""
        late_seconds, action = self.next_fault(stage)
        self.delay(late_seconds)
        return action is not None and self.apply_fault(action)

    def apply_fault(self, action: FaultAction) -> bool:
        """Commit one fault; True where it takes the place of the normal reply."""
        match action:
            case Refuse(reply):
                self.reply(reply)
            case DropNow() | AcceptThenDrop():
                self.end(Drop())
            case StallNow():
                self.end(Stall())
            case Delayed(seconds):
                self.delay(seconds)
                return False
            case _:
                assert_never(action)
        return True

    def take(self) -> list[ServerAction]:
        """Return the actions collected since the last time, and forget them and their delays."""
        if self._unsent:
            self._actions.append(Send(bytes(self._unsent)))
            self._unsent.clear()
        actions, self._actions = self._actions, []
        self._late_seconds = 0.0
        return actions
