"""Pure. The server's side of AUTH PLAIN, LOGIN and CRAM-MD5."""

from __future__ import annotations

import base64
import binascii
import hmac

from attrs import evolve

from trio_worker.records import frozen


@frozen
class SaslExchange:
    """The state of a login: its mechanism, the challenge of CRAM-MD5, and the user that LOGIN has sent."""

    mechanism: str
    credentials: tuple[str, str]
    challenge: bytes
    user: str | None = None


@frozen
class SendChallenge:
    """Send this challenge and go on with this exchange."""

    challenge: bytes
    exchange: SaslExchange


@frozen
class CredentialsChecked:
    """The client has sent its credentials; ``accepted``: whether they are right."""

    user: str
    accepted: bool


@frozen
class MalformedResponse:
    """The client's response does not fit the mechanism."""

    reason: str


def begin(exchange: SaslExchange, initial: bytes | None) -> SendChallenge | CredentialsChecked | MalformedResponse:
    """Begin with the initial response of AUTH, in base64, or None if there was none (RFC 4954 section 4)."""
    if initial is None:
        opening = {"PLAIN": b"", "LOGIN": b"Username:", "CRAM-MD5": exchange.challenge}
        return SendChallenge(opening[exchange.mechanism], exchange)
    if exchange.mechanism == "CRAM-MD5":
        return MalformedResponse("an initial response to CRAM-MD5, where the server speaks first")
    return answer(exchange, b"" if initial == b"=" else initial)


def answer(exchange: SaslExchange, response: bytes) -> SendChallenge | CredentialsChecked | MalformedResponse:
    """Take the client's response, in base64."""
    try:
        text = base64.b64decode(response, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return MalformedResponse("an answer that is not base64 of UTF-8")
    match exchange.mechanism:
        case "PLAIN":
            return _plain(exchange, text)
        case "CRAM-MD5":
            return _cram_md5(exchange, text)
        case _ if exchange.user is None:
            return SendChallenge(b"Password:", evolve(exchange, user=text))
        case _:
            return CredentialsChecked(exchange.user, (exchange.user, text) == exchange.credentials)


def _plain(exchange: SaslExchange, text: str) -> CredentialsChecked | MalformedResponse:
    """RFC 4616 section 2: an optional identity, NUL, the user, NUL, the password."""
    parts = text.split("\0")
    if len(parts) != 3:
        return MalformedResponse("a PLAIN message without exactly two NULs")
    return CredentialsChecked(parts[1], (parts[1], parts[2]) == exchange.credentials)


def _cram_md5(exchange: SaslExchange, text: str) -> CredentialsChecked:
    """RFC 2195 section 2: the user, a space, the keyed digest of the challenge in lower-case hexadecimal."""
    user, _, digest = text.rpartition(" ")
    expected_user, password = exchange.credentials
    expected = hmac.new(password.encode(), exchange.challenge, "md5").hexdigest()
    return CredentialsChecked(user, user == expected_user and hmac.compare_digest(digest.encode(), expected.encode()))
