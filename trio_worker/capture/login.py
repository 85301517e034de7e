"""Pure. The AUTH command of one connection, from its first line to its final reply."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, assert_never

from trio_worker.capture.actions import LoginTried
from trio_worker.capture.sasl import CredentialsChecked, MalformedResponse, SaslExchange, SendChallenge, answer, begin
from trio_worker.capture.server_profile import ServerProfile, ServerReply, offered_now
from trio_worker.records import define

if TYPE_CHECKING:
    from trio_worker.capture.responder import Responder
    from trio_worker.capture.transaction import MailTransaction

_AUTH = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: ([!-~]+))?")


@define
class Login:
    """Handles AUTH and the lines after it; tells the transaction which user has logged in."""

    responder: Responder
    profile: ServerProfile
    transaction: MailTransaction
    exchange: SaslExchange | None = None
    asked: int = 0

    @property
    def is_under_way(self) -> bool:
        """Whether the next line answers a challenge."""
        return self.exchange is not None

    def start(self, argument: bytes) -> None:
        """Handle AUTH."""
        found = _AUTH.fullmatch(argument)
        mechanism = found[1].decode().upper() if found is not None else ""
        if "AUTH" not in self.transaction.offered or self.profile.credentials is None:
            self._refuse()
        elif self.transaction.user is not None or self.transaction.sender is not None:
            self.responder.refuse(
                ServerReply(503, "5.5.1", "Not now"), "RFC 4954 4", "AUTH after a login or in a transaction"
            )
        elif found is None:
            self.responder.refuse(ServerReply(501, "5.5.4", "Syntax: AUTH mechanism"), "RFC 4954 4", "malformed AUTH")
        elif mechanism not in self.profile.mechanisms:
            reply = ServerReply(504, "5.5.4", "Mechanism not offered")
            self.responder.refuse(reply, "RFC 4954 4", "AUTH with a mechanism that was not offered")
        else:
            self.asked += 1
            challenge = f"<{self.responder.connection_id}.{self.asked}@{self.profile.hostname}>".encode()
            self._go_on(begin(SaslExchange(mechanism, self.profile.credentials, challenge), found[2]))

    def take_answer(self, line: bytes) -> None:
        """Handle the line that answers the challenge; a lone ``*`` cancels the login (RFC 4954 section 4)."""
        exchange, self.exchange = self.exchange, None
        if exchange is None or line == b"*":
            self.responder.reply(ServerReply(501, "5.7.0", "Login cancelled"))
        else:
            self._go_on(answer(exchange, line))

    def _refuse(self) -> None:
        if "AUTH" in offered_now(self.profile, tls=True) and not self.transaction.tls:
            reply = ServerReply(538, "5.7.11", "Encryption required for a login")
            self.responder.refuse(reply, "RFC 4954 4", "AUTH in clear, where that is not allowed")
        else:
            self.responder.refuse(
                ServerReply(502, "5.5.1", "AUTH is not offered"), "RFC 4954 4", "AUTH that was not offered"
            )

    def _go_on(self, step: SendChallenge | CredentialsChecked | MalformedResponse) -> None:
        match step:
            case SendChallenge(challenge, exchange):
                self.exchange = exchange
                self.responder.reply(ServerReply(334, "", base64.b64encode(challenge).decode()))
            case MalformedResponse(what):
                self.responder.refuse(ServerReply(501, "5.5.2", "Cannot read that"), "RFC 4954 4", what)
            case CredentialsChecked(user, is_true):
                self._decide(user, is_true=is_true)
            case _:
                assert_never(step)

    def _decide(self, user: str, *, is_true: bool) -> None:
        late_seconds, fault = self.responder.next_fault("auth")
        self.responder.add(LoginTried(user, is_true and fault is None))
        self.responder.delay(late_seconds)
        if fault is not None:
            self.responder.apply_fault(fault)
        elif is_true:
            self.transaction.user = user
            self.responder.reply(ServerReply(235, "2.7.0", "Welcome"))
        else:
            self.responder.reply(ServerReply(535, "5.7.8", "Wrong user or password"))
