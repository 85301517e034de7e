"""Pure. The mail transactions of a connection, one after another: MAIL, RCPT, DATA or BDAT, and the final reply.

After a refused BDAT the old sender remains, as on some servers (RFC 3030 section 2 calls the state indeterminate): if
the client does not send RSET, its next MAIL is refused. The end of DATA ends the transaction whatever the reply is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field

from trio_worker.capture.actions import CaughtMail, Close, Drop, Keep, Stall
from trio_worker.capture.arguments import RefusedArgument, read_mail, read_rcpt
from trio_worker.capture.chaos import AcceptThenDrop, FaultAction, FaultStage, Refuse, StallNow, scripted_fault
from trio_worker.capture.content import Flaw, content_flaws
from trio_worker.capture.responder import SERVICE_CLOSES
from trio_worker.capture.server_profile import ServerReply
from trio_worker.capture.spool import Spool
from trio_worker.records import define

if TYPE_CHECKING:
    from trio_worker.capture.responder import Responder
    from trio_worker.capture.server_profile import ServerProfile

# RFC 5321 section 4.5.3.1.8 demands at least 100; common servers take this many.
MAX_RECIPIENTS_CAUGHT = 1000

_MAIL_FIRST = ServerReply(503, "5.5.1", "MAIL first")
_RSET_FIRST = ServerReply(503, "5.5.1", "RSET first")
_NO_RECIPIENTS = ServerReply(554, "5.5.1", "No valid recipients")
TOO_BIG = ServerReply(552, "5.3.4", "Message too big")
NO_ROOM = ServerReply(452, "4.3.1", "Too many unfinished messages")


@define
class Chunk:
    """One BDAT whose octets are being received; ``refusal``: the reply if it was refused (the octets are dropped)."""

    octets_due: int
    is_last: bool
    refusal: ServerReply | None = None
    late_seconds: float = 0.0


@define
class MailTransaction:
    """The current transaction of a connection; ``sender`` is None if there is none."""

    responder: Responder
    profile: ServerProfile
    offered: frozenset[str] = frozenset()
    user: str | None = None
    tls: bool = False
    kept: int = 0
    sender: str | None = None
    parameters: dict[str, str] = field(factory=dict)
    recipients: list[str] = field(factory=list)
    chunks: Spool = field(factory=Spool)
    scripted: dict[FaultStage, FaultAction] = field(factory=dict)
    mail_was_tried: bool = False
    rcpt_was_tried: bool = False
    bdat_was_seen: bool = False
    last_was_refused: bool = False
    chunk_was_refused: bool = False
    body_has_begun: bool = False

    @property
    def size_limit_bytes(self) -> int:
        """The announced limit of a message; 0 for no limit."""
        return self.profile.size_limit_bytes if "SIZE" in self.offered else 0

    def reset(self) -> None:
        """Forget the transaction."""
        self._forget_recipients()
        self.sender = None
        self.parameters = {}
        self.mail_was_tried = self.rcpt_was_tried = self.last_was_refused = False

    def mail(self, argument: bytes) -> None:
        """Handle MAIL."""
        if self.chunk_was_refused:
            self.responder.refuse(_RSET_FIRST, "RFC 3030 2", "MAIL after a refused BDAT, without RSET")
            return
        if self.sender is not None:
            nested = ServerReply(503, "5.5.1", "Nested MAIL")
            self.responder.refuse(nested, "RFC 5321 4.1.4", "MAIL during a transaction")
            return
        self.mail_was_tried, self.rcpt_was_tried = True, False
        arguments = read_mail(argument, self.offered)
        if isinstance(arguments, RefusedArgument):
            self.responder.refuse(arguments.reply, arguments.rule, arguments.reason)
            return
        if self._is_over_limit(int(arguments.parameters.get("SIZE", 0))):
            self.responder.refuse(TOO_BIG, "RFC 1870 6.1", "MAIL with a SIZE over the announced limit")
            return
        if self.profile.require_auth and self.user is None:
            self.responder.reply(ServerReply(530, "5.7.0", "Authentication required"))
            return
        if self.responder.inject_fault_at("mail"):
            return
        self.sender, self.parameters = arguments.address, arguments.parameters
        self.responder.reply(ServerReply(250, "2.1.0", "Sender ok"))

    def rcpt(self, argument: bytes) -> None:
        """Handle RCPT."""
        if self.sender is None:
            self._refuse_unless_pipelined(
                _MAIL_FIRST, "RFC 5321 4.1.4", "RCPT before MAIL", excused=self.mail_was_tried
            )
            return
        if self.bdat_was_seen:
            self.responder.refuse(_RSET_FIRST, "RFC 3030 2", "RCPT after BDAT, in the same transaction")
            return
        self.rcpt_was_tried = True
        arguments = read_rcpt(argument, utf8="SMTPUTF8" in self.parameters)
        if isinstance(arguments, RefusedArgument):
            self.responder.refuse(arguments.reply, arguments.rule, arguments.reason)
            return
        if len(self.recipients) >= MAX_RECIPIENTS_CAUGHT:
            self.responder.reply(ServerReply(452, "4.5.3", "Too many recipients"))
            return
        scripted = scripted_fault(arguments.address)
        if scripted is not None and scripted.stage == "rcpt" and self.responder.apply_fault(scripted.action):
            return
        if self.responder.inject_fault_at("rcpt"):
            return
        if scripted is not None:
            self.scripted[scripted.stage] = scripted.action
        self.recipients.append(arguments.address)
        self.last_was_refused = False
        self.responder.reply(ServerReply(250, "2.1.5", "Recipient ok"))

    def data(self) -> bool:
        """Handle DATA; return whether content follows."""
        if self.sender is None:
            self._refuse_unless_pipelined(
                _MAIL_FIRST, "RFC 5321 4.1.4", "DATA before MAIL", excused=self.mail_was_tried
            )
            return False
        if self.bdat_was_seen:
            self.responder.refuse(_RSET_FIRST, "RFC 3030 2", "DATA after BDAT, in the same transaction")
            return False
        if not self.recipients and not (self.profile.accepts_data_without_recipients and self.rcpt_was_tried):
            what = "DATA without an accepted RCPT"
            self._refuse_unless_pipelined(_NO_RECIPIENTS, "RFC 5321 4.1.1.4", what, excused=self.rcpt_was_tried)
            return False
        late_seconds, action = self._next_fault("data")
        self.responder.delay(late_seconds)
        if action is not None and self.responder.apply_fault(action):
            return False
        self.responder.reply(ServerReply(354, "", "Go ahead, end with a dot on a line by itself"))
        return True

    def begin_chunk(self, octets: int, *, is_last: bool) -> Chunk:
        """Handle BDAT; its reply is due after its octets, unless the responder has ended."""
        chunk = Chunk(octets, is_last, self._chunk_refusal(octets))
        self.bdat_was_seen = True
        if chunk.refusal is not None:
            return chunk
        chunk.late_seconds, action = self._next_fault("data")
        match action:
            case None:
                pass
            case Refuse(reply) if reply.code != SERVICE_CLOSES:
                chunk.refusal = reply
            case _:
                self.responder.apply_fault(action)
        return chunk

    def begin_body(self) -> None:
        """Handle the first octets of the content: faults of the stage ``body``, which may end the responder."""
        if self.body_has_begun:
            return
        self.body_has_begun = True
        late_seconds, action = self._next_fault("body")
        self.responder.delay(late_seconds)
        match action:
            case None:
                pass
            case Refuse(reply):
                self.responder.reply(reply)
                if not self.responder.has_ended:
                    self.responder.end(Close())
            case StallNow():
                self.responder.end(Stall(reads=False))
            case _:
                self.responder.apply_fault(action)

    def end_chunk(self, chunk: Chunk, *, is_answered: bool) -> None:
        """Reply to a BDAT whose octets have all come, unless a fault has replied already (``is_answered``)."""
        self.responder.delay(chunk.late_seconds)
        if chunk.refusal is None and not is_answered:
            self._accept_chunk(chunk)
            return
        if chunk.refusal is not None and not is_answered:
            self.responder.reply(chunk.refusal)
        self.chunk_was_refused = True
        if chunk.is_last:
            self._forget_after_refused_last()

    def _accept_chunk(self, chunk: Chunk) -> None:
        if chunk.is_last:
            self.finish(self.chunks.take(), [], used_bdat=True)
        else:
            self.responder.reply(ServerReply(250, "2.0.0", "Chunk ok"))

    def finish(self, content: bytes, flaws: list[Flaw], *, used_bdat: bool) -> None:
        """Check a whole message and send the final reply; ``flaws`` are those found in its transfer."""
        refusal = self._content_refusal(content, flaws)
        late_seconds, action = (0.0, None) if refusal is not None else self._next_fault("final")
        self.responder.delay(late_seconds)
        if isinstance(action, Refuse):
            refusal = action.reply
        elif isinstance(action, AcceptThenDrop):
            self._keep(content, used_bdat=used_bdat)
            self.responder.end(Drop())
            return
        elif action is not None and self.responder.apply_fault(action):
            return
        if refusal is None:
            self._keep(content, used_bdat=used_bdat)
            self.responder.reply(ServerReply(250, "2.0.0", f"Kept as {self.responder.connection_id}-{self.kept}"))
        else:
            self.responder.reply(refusal)
        if used_bdat and refusal is not None:
            self._forget_after_refused_last()
        else:
            self.reset()

    def _keep(self, content: bytes, *, used_bdat: bool) -> None:
        self.kept += 1
        mail = CaughtMail(
            sender=self.sender or "",
            recipients=tuple(self.recipients),
            content=content,
            parameters=self.parameters,
            user=self.user,
            tls=self.tls,
            connection_id=self.responder.connection_id,
            used_bdat=used_bdat,
        )
        self.responder.add(Keep(mail))

    def _chunk_refusal(self, octets: int) -> ServerReply | None:
        if self.sender is None:
            what = "BDAT without a transaction, or after LAST"
            self._record_violation_unless_pipelined("RFC 3030 2", what, excused=self.mail_was_tried)
            return _MAIL_FIRST
        if self.last_was_refused:
            self.responder.record_violation("RFC 3030 2", "BDAT after LAST, without a new transaction")
            return _RSET_FIRST
        if self.chunk_was_refused:
            what = "BDAT after a refused BDAT, without RSET"
            self._record_violation_unless_pipelined("RFC 3030 2", what, excused=True)
            return _RSET_FIRST
        if not self.recipients:
            what = "BDAT without an accepted RCPT"
            self._record_violation_unless_pipelined("RFC 3030 2", what, excused=self.rcpt_was_tried)
            return ServerReply(503, "5.5.1", "No valid recipients")
        if self._is_over_limit(len(self.chunks) + octets):
            self.responder.record_violation("RFC 1870 6.1", "content over the announced limit")
            return TOO_BIG
        return None

    def _content_refusal(self, content: bytes, flaws: list[Flaw]) -> ServerReply | None:
        if self._is_over_limit(len(content)):
            self.responder.record_violation("RFC 1870 6.1", "content over the announced limit")
            return TOO_BIG
        if not self.recipients:
            return _NO_RECIPIENTS
        if "SIZE" in self.parameters and len(content) > int(self.parameters["SIZE"]):
            self.responder.record_violation("RFC 1870 6.3", "content over the SIZE that MAIL declared")
            return TOO_BIG
        eight_bit = self.parameters.get("BODY", "").upper() == "8BITMIME"
        flaws = flaws + content_flaws(content, eight_bit=eight_bit, utf8="SMTPUTF8" in self.parameters)
        for flaw in flaws:
            self.responder.record_violation(flaw.rule, flaw.reason)
        return ServerReply(554, "5.6.0", f"Refused: {flaws[0].reason}") if flaws else None

    def _next_fault(self, stage: FaultStage) -> tuple[float, FaultAction | None]:
        """Return the delay and the fault of a stage; a fault that a recipient requested comes first."""
        late_seconds, action = self.responder.next_fault(stage)
        return late_seconds, self.scripted.get(stage, action)

    def _is_over_limit(self, octets: int) -> bool:
        return 0 < self.size_limit_bytes < octets

    def _refuse_unless_pipelined(self, reply: ServerReply, rule: str, what: str, *, excused: bool) -> None:
        self._record_violation_unless_pipelined(rule, what, excused=excused)
        self.responder.reply(reply)

    def _record_violation_unless_pipelined(self, rule: str, what: str, *, excused: bool) -> None:
        """Record a violation, unless the client could not know better: it pipelined the command before in one group."""
        if not (excused and "PIPELINING" in self.offered):
            self.responder.record_violation(rule, what)

    def _forget_after_refused_last(self) -> None:
        self._forget_recipients()
        self.last_was_refused = True

    def _forget_recipients(self) -> None:
        self.recipients = []
        self.scripted = {}
        self.chunks.clear()
        self.bdat_was_seen = self.chunk_was_refused = self.body_has_begun = False
