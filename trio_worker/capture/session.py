"""Pure. One SMTP session on the server's side, strict: octets in, actions out.

The rules are those of RFC 5321 with the extensions of `server_profile.EXTENSIONS`. A client that breaks one gets the
reply that the RFC names, and a `Violation` is recorded. A command that failed for a reason the client could not know
yet is no violation: after a group that was pipelined legally, RCPT without a sender or DATA without a recipient is only
refused.

The octets may be split anywhere: the actions, joined, are the same. One rule depends on the splits: whether a client
waited for a reply is seen only from what was read together with the command.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Literal, TypeAlias, assert_never

from attrs import field

from trio_worker.capture.actions import Close, ServerAction, StartTls
from trio_worker.capture.arguments import is_host_name
from trio_worker.capture.buffer import MAX_INPUT_LINE_OCTETS, ReceiveBuffer, Truncated
from trio_worker.capture.chaos import Chaos
from trio_worker.capture.content import stuffing_flaws, unstuff
from trio_worker.capture.login import Login
from trio_worker.capture.responder import Responder
from trio_worker.capture.server_profile import ServerProfile, ServerReply, ehlo_reply, offered_now
from trio_worker.capture.spool import Spool
from trio_worker.capture.transaction import NO_ROOM, TOO_BIG, Chunk, MailTransaction
from trio_worker.records import define

Expecting: TypeAlias = Literal["command", "answer", "content", "chunk"]

# Limit of a command line with its CRLF (RFC 5321 section 4.5.3.1.4), and what each extension adds to MAIL
# (RFC 1870 section 3, RFC 6152 section 2, RFC 6531 section 3.4, RFC 4954 section 3).
MAX_COMMAND_OCTETS = 512
MAIL_ALLOWANCES = {"SIZE": 26, "8BITMIME": 17, "SMTPUTF8": 10, "AUTH": 500}

# Commands that must be the last of a pipelined group: RFC 2920 section 3.1, and those of extensions that do not allow
# more. BDAT may be anywhere in a group; STARTTLS and QUIT have rules for the input after them.
LAST_IN_GROUP = frozenset({"EHLO", "HELO", "DATA", "VRFY", "EXPN", "HELP", "NOOP", "AUTH"})
ALLOWED_BEFORE_EHLO = frozenset({"EHLO", "HELO", "NOOP", "RSET", "QUIT", "VRFY", "EXPN", "HELP", "STARTTLS"})
VERBS = LAST_IN_GROUP | {"STARTTLS", "MAIL", "RCPT", "BDAT", "RSET", "QUIT"}
COMMANDS_LOGGED = 200

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BDAT = re.compile(rb"([0-9]{1,18})( LAST)?", re.IGNORECASE)


@define
class ServerSession:
    """The server's side of one connection.

    Call `open` once, then `receive` for all input, and `tls_started` after a `StartTls` action and its handshake. Who
    gave it the ``spool`` clears that in the end.
    ``commands`` are the latest verbs, for tests and displays.
    """

    profile: ServerProfile
    chaos: Chaos
    connection_id: int = 0
    tls: bool = False
    spool: Spool = field(factory=Spool)
    commands: deque[str] = field(factory=lambda: deque(maxlen=COMMANDS_LOGGED), init=False)
    _responder: Responder = field(init=False)
    _transaction: MailTransaction = field(init=False)
    _login: Login = field(init=False)
    _buffer: ReceiveBuffer = field(init=False)
    _expecting: Expecting = field(default="command", init=False)
    _chunk: Chunk = field(factory=lambda: Chunk(0, is_last=False), init=False)
    _is_greeted: bool = field(default=False, init=False)
    _is_unwelcome: bool = field(default=False, init=False)
    _has_quit: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._buffer = ReceiveBuffer(spool=self.spool)
        self._responder = Responder(self.chaos, self.connection_id)
        self._begin_again(kept=0)

    def open(self) -> list[ServerAction]:
        """Greet the client; return what to do, in order."""
        if not self._responder.inject_fault_at("every") and not self._responder.inject_fault_at("connect"):
            self._responder.send(f"220 {self.profile.hostname} ESMTP mail catcher\r\n".encode())
        else:
            self._is_unwelcome = True
        return self._responder.take()

    def receive(self, received: bytes) -> list[ServerAction]:
        """Take octets from the client; return what to do, in order."""
        if self._has_quit and received:
            self._has_quit = False
            self._responder.record_violation("RFC 5321 4.1.1.10", "input after QUIT")
        if not self._responder.has_ended:
            self._buffer.octets += received
        while not self._responder.has_ended and self._advance():
            pass
        if self._responder.has_ended:
            self._buffer.octets.clear()
            self.spool.clear()
        return self._responder.take()

    def tls_started(self) -> None:
        """Start again with TLS; forget what came before it (RFC 3207 section 4.2)."""
        self.tls = True
        self._is_greeted = False
        self._responder.with_enhanced = False
        self._begin_again(kept=self._transaction.kept)

    def _begin_again(self, *, kept: int) -> None:
        self._transaction = MailTransaction(self._responder, self.profile, tls=self.tls, kept=kept, chunks=self.spool)
        self._login = Login(self._responder, self.profile, self._transaction)

    def _advance(self) -> bool:
        """Process one line, message or chunk; return False if more octets are needed."""
        match self._expecting:
            case "command" | "answer":
                return self._take_line()
            case "content":
                return self._take_content()
            case "chunk":
                return self._take_chunk()
            case _:
                assert_never(self._expecting)

    def _take_line(self) -> bool:
        line = self._buffer.take_line()
        if line is None:
            return False
        if isinstance(line, Truncated):
            self._expect_command()
            self._refuse_long_line()
        elif not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            self._expect_command()
            reply = ServerReply(500, "5.5.2", "Lines end in CRLF")
            self._responder.refuse(reply, "RFC 5321 2.3.8", "a bare CR or LF in a command")
        elif self._expecting == "answer":
            self._take_answer(line[:-2])
        else:
            self._take_command(line)
        return True

    def _refuse_long_line(self) -> None:
        self._responder.refuse(
            ServerReply(500, "5.5.2", "Line too long"), "RFC 5321 4.5.3.1.4", "a command line over its limit"
        )

    def _take_answer(self, line: bytes) -> None:
        self._expecting = "command"
        if self._buffer.octets:
            self._end_out_of_sync("an answer of AUTH")
        elif not self._responder.inject_fault_at("every"):
            self._login.take_answer(line)
            self._expect_answer()

    def _expect_command(self) -> None:
        self._login.exchange = None
        self._expecting = "command"

    def _expect_answer(self) -> None:
        self._expecting = "answer" if self._login.is_under_way else "command"

    def _take_command(self, line: bytes) -> None:
        first, _, argument = line[:-2].partition(b" ")
        verb = first.upper().decode("ascii", "replace")
        self.commands.append(verb if verb in VERBS else "?")
        if self._is_malformed(line, verb):
            return
        if self._is_unwelcome and verb != "QUIT":
            self._responder.reply(ServerReply(503, "5.5.1", "No service here"))  # RFC 5321 section 3.1
        elif self._buffer.octets and not self._may_be_followed(verb, argument):
            self._end_out_of_sync(verb)
        elif verb != "BDAT" and self._responder.inject_fault_at("every"):
            pass
        elif verb not in VERBS:
            reply = ServerReply(500, "5.5.1", "Command not recognised")
            self._responder.refuse(reply, "RFC 5321 4.1.1", "an unknown command")
        elif not self._is_greeted and verb not in ALLOWED_BEFORE_EHLO:
            self._responder.refuse(ServerReply(503, "5.5.1", "EHLO first"), "RFC 5321 4.1.4", f"{verb} before EHLO")
        else:
            self._dispatch(verb, argument)

    def _is_malformed(self, line: bytes, verb: str) -> bool:
        if len(line) > self._max_line_octets(verb):
            self._refuse_long_line()
            return True
        if _CONTROL.search(line[:-2]) or not (line.isascii() or verb in {"MAIL", "RCPT"}):
            reply = ServerReply(500, "5.5.2", "Character not allowed in a command")
            self._responder.refuse(reply, "RFC 5321 4.1.2", "a character that is not allowed in a command")
            return True
        return False

    def _max_line_octets(self, verb: str) -> int:
        if verb == "AUTH":
            return MAX_INPUT_LINE_OCTETS
        if verb != "MAIL":
            return MAX_COMMAND_OCTETS
        offered = self._transaction.offered
        return MAX_COMMAND_OCTETS + sum(octets for extension, octets in MAIL_ALLOWANCES.items() if extension in offered)

    def _may_be_followed(self, verb: str, argument: bytes) -> bool:
        """Whether the client may send more before the reply to this command."""
        if verb in {"BDAT", "STARTTLS", "QUIT"}:
            return True
        if "PIPELINING" not in self._transaction.offered:
            return False
        if verb == "AUTH":
            # RFC 4954 section 3: more may follow if the mechanism needs only one message.
            return argument.upper().startswith(b"PLAIN ")
        return verb not in LAST_IN_GROUP

    def _end_out_of_sync(self, after: str) -> None:
        self._responder.record_violation("RFC 2920 3.1", f"input after {after}, before its reply")
        self._responder.reply(ServerReply(554, "5.5.0", "Out of step: input before the reply it must wait for"))
        self._responder.end(Close())

    def _dispatch(self, verb: str, argument: bytes) -> None:
        handlers = {
            "EHLO": self._ehlo,
            "HELO": self._helo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._transaction.mail,
            "RCPT": self._transaction.rcpt,
            "DATA": self._data,
            "BDAT": self._bdat,
            "RSET": self._rset,
            "NOOP": self._noop,
            "HELP": self._help,
            "VRFY": self._vrfy,
            "EXPN": self._vrfy,
            "QUIT": self._quit,
        }
        handlers[verb](argument)

    def _ehlo(self, argument: bytes) -> None:
        self._greet(argument, offered_now(self.profile, tls=self.tls))

    def _helo(self, argument: bytes) -> None:
        self._greet(argument, frozenset())

    def _greet(self, argument: bytes, offered: frozenset[str]) -> None:
        if not is_host_name(argument):
            reply = ServerReply(501, "5.5.4", "Syntax: EHLO domain or address literal")
            self._responder.refuse(reply, "RFC 5321 4.1.1.1", "EHLO without a domain or address literal")
            return
        if self._responder.inject_fault_at("ehlo"):
            return
        self._is_greeted = True
        self._transaction.reset()
        self._transaction.offered = offered
        self._responder.with_enhanced = "ENHANCEDSTATUSCODES" in offered
        self._responder.send(ehlo_reply(self.profile, offered))

    def _starttls(self, argument: bytes) -> None:
        if self._buffer.octets:
            self._buffer.octets.clear()
            self._responder.record_violation("RFC 3207 4", "input in clear after STARTTLS, discarded")
        if "STARTTLS" not in self._transaction.offered:
            reply = ServerReply(503, "5.5.1", "STARTTLS is not offered now")
            self._responder.refuse(reply, "RFC 3207 4", "STARTTLS that was not offered")
        elif argument:
            self._responder.refuse(ServerReply(501, "5.5.4", "No parameters"), "RFC 3207 4", "STARTTLS with parameters")
        elif not self._responder.inject_fault_at("starttls"):
            self._responder.reply(ServerReply(220, "2.0.0", "Ready to start TLS"))
            self._responder.add(StartTls())

    def _auth(self, argument: bytes) -> None:
        self._login.start(argument)
        self._expect_answer()

    def _rset(self, argument: bytes) -> None:
        if self._has_no_argument("RSET", argument) and not self._responder.inject_fault_at("rset"):
            self._transaction.reset()
            self._responder.reply(ServerReply(250, "2.0.0", "Ok"))

    def _noop(self, _argument: bytes) -> None:
        self._responder.reply(ServerReply(250, "2.0.0", "Ok"))

    def _help(self, _argument: bytes) -> None:
        self._responder.reply(ServerReply(214, "2.0.0", "RFC 5321"))

    def _vrfy(self, argument: bytes) -> None:
        if argument:
            self._responder.reply(ServerReply(252, "2.0.0", "Send some mail, it will be kept"))
        else:
            self._responder.refuse(
                ServerReply(501, "5.5.4", "Syntax: VRFY string"), "RFC 5321 4.1.1.6", "VRFY without a string"
            )

    def _quit(self, argument: bytes) -> None:
        if not self._has_no_argument("QUIT", argument):
            return
        if self._buffer.octets:
            self._responder.record_violation("RFC 5321 4.1.1.10", "input after QUIT")
        else:
            self._has_quit = True
        if not self._responder.inject_fault_at("quit"):
            self._responder.reply(ServerReply(221, "2.0.0", "Bye"))
        if not self._responder.has_ended:
            self._responder.end(Close())

    def _has_no_argument(self, verb: str, argument: bytes) -> bool:
        if argument:
            self._responder.refuse(
                ServerReply(501, "5.5.4", "No parameters"), "RFC 5321 4.1.1", f"{verb} with parameters"
            )
        return not argument

    def _data(self, argument: bytes) -> None:
        if self._has_no_argument("DATA", argument) and self._transaction.data():
            self._expecting = "content"

    def _take_content(self) -> bool:
        if not self._buffer.octets:
            return False
        self._transaction.begin_body()
        transferred = (
            None if self._responder.has_ended else self._buffer.take_content(self._transaction.size_limit_bytes)
        )
        if transferred is None:
            return False
        self._expecting = "command"
        if self._buffer.octets and "PIPELINING" not in self._transaction.offered:
            self._end_out_of_sync("the final dot")
        elif self._responder.inject_fault_at("every"):
            self._transaction.reset()
        elif transferred is Truncated.NO_ROOM:
            self._responder.reply(NO_ROOM)
            self._transaction.reset()
        elif isinstance(transferred, Truncated):
            self._responder.refuse(TOO_BIG, "RFC 1870 6.1", "content over the announced limit")
            self._transaction.reset()
        else:
            self._transaction.finish(unstuff(transferred), stuffing_flaws(transferred), used_bdat=False)
        return True

    def _bdat(self, argument: bytes) -> None:
        """Handle BDAT. If its octets cannot be told apart from commands, the connection must be closed."""
        found = _BDAT.fullmatch(argument)
        if "CHUNKING" not in self._transaction.offered:
            self._responder.refuse(
                ServerReply(502, "5.5.1", "BDAT is not offered"), "RFC 3030 2", "BDAT that was not offered"
            )
            self._responder.end(Close())
        elif found is None:
            self._responder.refuse(
                ServerReply(501, "5.5.4", "Syntax: BDAT octets [LAST]"), "RFC 3030 2", "malformed BDAT"
            )
            self._responder.end(Close())
        else:
            self._chunk = self._transaction.begin_chunk(int(found[1]), is_last=found[2] is not None)
            self._expecting = "chunk"

    def _take_chunk(self) -> bool:
        chunk = self._chunk
        if chunk.octets_due and not self._buffer.octets:
            return False
        if chunk.octets_due and chunk.refusal is None:
            self._transaction.begin_body()
        taken = self._buffer.take_octets(chunk.octets_due)
        chunk.octets_due -= len(taken)
        if chunk.refusal is None and not self._transaction.chunks.append(taken):
            chunk.refusal = NO_ROOM
        if chunk.octets_due or self._responder.has_ended:
            return False
        self._expecting = "command"
        if self._buffer.octets and "PIPELINING" not in self._transaction.offered:
            self._end_out_of_sync("the octets of BDAT")
        else:
            self._transaction.end_chunk(chunk, is_answered=self._responder.inject_fault_at("every"))
        return True
