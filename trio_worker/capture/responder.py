"""Pure. Collects the server's actions for one input: replies, recorded violations, injected faults."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, assert_never

from attrs import field

from trio_worker.capture.actions import Close, DelayReplies, Drop, Send, ServerAction, Stall, Violation
from trio_worker.capture.chaos import AcceptThenDrop, Chaos, Delayed, DropNow, FaultAction, FaultStage, Refuse, StallNow
from trio_worker.records import define

if TYPE_CHECKING:
    from trio_worker.capture.server_profile import ServerReply

SERVICE_CLOSES = 421


@define
class Responder:
    """The actions of one connection; replies without another action between them become one `Send`.

    ``has_ended``: there are no more replies, because the connection closes, is dropped or stalls.
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
        """Record the violation and send the reply."""
        self.record_violation(rule, what)
        self.reply(reply)

    def add(self, action: ServerAction) -> None:
        """Add one action after the replies so far."""
        if self._unsent:
            self._actions.append(Send(bytes(self._unsent)))
            self._unsent.clear()
        self._actions.append(action)

    def end(self, action: Close | Drop | Stall) -> None:
        """Add the last action."""
        self.add(action)
        self.has_ended = True

    def delay(self, seconds: float) -> None:
        """Delay the following replies, counted from the read of the input; of a group only the longest delay counts."""
        if seconds > self._late_seconds:
            self._late_seconds = seconds
            self.add(DelayReplies(seconds))

    def next_fault(self, stage: FaultStage) -> tuple[float, FaultAction | None]:
        """Count that ``stage`` was reached; return the delay in seconds and the action of the faults due there."""
        self._reached[stage] += 1
        return self.chaos.decide(stage, self._reached[stage])

    def inject_fault_at(self, stage: FaultStage) -> bool:
        """Apply the fault that is due at ``stage``, if any; return whether it replaces the normal reply."""
        late_seconds, action = self.next_fault(stage)
        self.delay(late_seconds)
        return action is not None and self.apply_fault(action)

    def apply_fault(self, action: FaultAction) -> bool:
        """Apply one fault; return whether it replaces the normal reply."""
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
        """Return the actions collected since the last call, and start again without a delay."""
        if self._unsent:
            self._actions.append(Send(bytes(self._unsent)))
            self._unsent.clear()
        actions, self._actions = self._actions, []
        self._late_seconds = 0.0
        return actions
