"""Trio. Opens a session with a relay that is ready for MAIL: connect, TLS, EHLO, login.

trio resolves the name and connects; aiosmtplib does the handshake over that socket. Every failure is a `Trouble` that
says at which step and why, in words that an operator understands.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias, assert_never

import aiosmtplib
import trio
from attrs import evolve, field

from trio_worker.bridge import call_abortable
from trio_worker.records import define, frozen
from trio_worker.secret_mask import NO_SECRETS, LoginMask, SecretMask
from trio_worker.smtp.capabilities import Capabilities, read_ehlo
from trio_worker.smtp.ehlo_name import ehlo_name
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.login import LOGGED_IN, LoginDialogue, login_dialogue, plain_dialogue
from trio_worker.smtp.outcome import Trouble
from trio_worker.smtp.relay import Relay
from trio_worker.smtp.reply import Reply, Stage, reply_from
from trio_worker.smtp.reply_text import printable_line

# Only the first of these that the relay offers is tried: a second failed AUTH in one session looks like an attack.
# CRAM-MD5 does not send the password, so only it is allowed without TLS.
_MECHANISMS_WITH_TLS = ("PLAIN", "LOGIN", "CRAM-MD5")
_MECHANISMS_IN_CLEAR = ("CRAM-MD5",)
_MECHANISM_WORDS = frozenset(name.encode() for name in _MECHANISMS_WITH_TLS)
_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@frozen
class Session:
    """An open session; the caller owns the transport: it sets its protocol, and aborts it in the end."""

    transport: asyncio.Transport
    capabilities: Capabilities
    tls: str
    seconds: float
    certificate_ends_at: float | None = None  # epoch seconds; None without TLS
    secrets: SecretMask = NO_SECRETS  # to be masked in everything that the relay says


# Called after each step, with what it brought as text for a screen.
OnStep: TypeAlias = Callable[[Stage, str], object]


async def open_session(relay: Relay, on_step: OnStep = lambda _stage, _says: None) -> Session | Trouble:
    """Open a session; a cancel or the timeout leaves nothing open."""
    began = time.perf_counter()
    handshake = _Handshake(relay, on_step)
    try:
        with trio.fail_after(relay.timeouts.connect_seconds):
            connected = await _connect(relay.options.host, relay.options.port)
            if isinstance(connected, Trouble):
                return connected
            handshake.sock = connected
            on_step(Stage.CONNECT, _peer(connected))
            handshake.local_name = await ehlo_name(relay.options.ehlo_name, connected)
            return await handshake.run(began)
    except trio.TooSlowError:
        what = f"not open within {relay.timeouts.connect_seconds:g} s"
        if handshake.stage is Stage.GREETING and relay.options.tls != "implicit":
            what = f"{what}: no greeting; a port that expects TLS at once, as 465 does, needs smtp.tls = implicit"
        return Trouble(FailureKind.TIMEOUT, handshake.stage, what)
    finally:
        if not handshake.is_open:
            handshake.abort()


def certificate_ends_at(transport: asyncio.Transport) -> float | None:
    """Return when the relay's certificate expires, in epoch seconds; None without TLS."""
    session = transport.get_extra_info("ssl_object")
    certificate = session.getpeercert() if session is not None else None
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else None


def _tls_text(transport: object) -> str:
    if not isinstance(transport, asyncio.Transport):
        return ""
    ends_at = certificate_ends_at(transport)
    if ends_at is None:
        return ""
    day = time.strftime("%Y-%m-%d", time.gmtime(ends_at))
    version = transport.get_extra_info("ssl_object").version()
    return f"{version}, certificate until {day} ({(ends_at - time.time()) / 86400:.0f} days)"


async def _connect(host: str, port: int) -> socket.socket | Trouble:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except socket.gaierror as error:
        return Trouble(FailureKind.RESOLVE, Stage.CONNECT, printable_line(f"{host}: {error.strerror}"))
    except OSError as error:
        return _trouble_of_os(error)
    except UnicodeError:  # from the codec for international names: a label is empty or too long
        return Trouble(FailureKind.RESOLVE, Stage.CONNECT, printable_line(f"{host}: is not a host name"))
    # asyncio gets the file descriptor; the trio stream must not close it.
    return socket.socket(fileno=stream.socket.detach())


def _peer(connected: socket.socket) -> str:
    """Return the relay's address; empty if the connection is closed already."""
    try:
        return str(connected.getpeername()[0])
    except OSError:
        return ""


def _trouble_of_os(error: OSError) -> Trouble:
    for each in _causes(error):
        if each.errno in _OUT_OF_DESCRIPTORS:
            return Trouble(FailureKind.LOCAL, Stage.CONNECT, f"this machine: {each.strerror}")
    reasons = dict.fromkeys(each.strerror for each in _causes(error) if each.strerror)
    return Trouble(FailureKind.CONNECT, Stage.CONNECT, printable_line(", ".join(reasons) or str(error)))


def _causes(error: BaseException | None) -> list[OSError]:
    """Return the system errors inside trio's exception for all connection attempts."""
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [cause for each in error.exceptions for cause in _causes(each)]
    below = _causes(error.__cause__)
    return below or ([error] if isinstance(error, OSError) else [])


# Replies to a command that is not known, or not implemented (RFC 5321, 4.2.4).
_EHLO_IS_UNKNOWN = frozenset({500, 502})
# OpenSSL's words for an answer that is no TLS record, such as a greeting.
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


class _Client(aiosmtplib.SMTP):
    """A client that tells what a login sends: a relay may say it again."""

    note_sent: Callable[[bytes], object] | None = None

    async def execute_command(self, *args: bytes, **settings: Any) -> aiosmtplib.SMTPResponse:
        if self.note_sent is not None and args[-1] not in _MECHANISM_WORDS:
            self.note_sent(args[-1])
        return await super().execute_command(*args, **settings)


async def _say(smtp: _Client, dialogue: LoginDialogue) -> None:
    """Log in by a dialogue; raises aiosmtplib.SMTPAuthenticationError for a relay that refuses."""
    reply = await smtp.execute_command(*next(dialogue))
    while (words := _next_words(dialogue, reply.code)) is not None:
        reply = await smtp.execute_command(*words)
    if reply.code != LOGGED_IN:
        raise aiosmtplib.SMTPAuthenticationError(reply.code, reply.message)


def _next_words(dialogue: LoginDialogue, code: int) -> tuple[bytes, ...] | None:
    try:
        return dialogue.send(code)
    except StopIteration:
        return None


@define
class _Handshake:
    """The steps that open one session; ``stage`` is the current one, for the `Trouble` that may come."""

    relay: Relay
    on_step: OnStep
    sock: socket.socket | None = None
    stage: Stage = Stage.CONNECT
    smtp: _Client | None = None
    is_open: bool = False
    local_name: str = "localhost"  # ours in EHLO
    login: LoginMask = field(init=False)

    def __attrs_post_init__(self) -> None:
        options = self.relay.options
        self.login = LoginMask((options.password,))

    def abort(self) -> None:
        """Abort the session at any step; calls that wait for it fail."""
        transport = self.smtp.transport if self.smtp is not None else None
        if isinstance(transport, asyncio.Transport):
            transport.abort()
        if self.sock is not None:
            # During a TLS handshake there is no transport yet; shutting down the socket ends that too.
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            if transport is None:
                self.sock.close()

    async def run(self, began: float) -> Session | Trouble:
        """Do the handshake; returns `Trouble` for everything that the relay or the network does wrong."""
        try:
            capabilities = await call_abortable(self._shut_down, self._shake_hands)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            return self._trouble(error)
        if isinstance(capabilities, Trouble):
            return capabilities
        return self._hand_over(capabilities, began)

    def _shut_down(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    async def _shake_hands(self) -> Capabilities | Trouble:
        options = self.relay.options
        implicit = options.tls == "implicit"
        smtp = self.smtp = _Client(timeout=None, start_tls=False)
        self.stage = Stage.GREETING
        greeting = await smtp.connect(
            sock=self.sock,
            hostname=options.host,
            local_hostname=self.local_name,
            use_tls=implicit,
            tls_context=self.relay.tls,
        )
        reply = str(self._reply(greeting.code, greeting.message))
        self.on_step(Stage.GREETING, f"{_tls_text(smtp.transport)}; {reply}" if implicit else reply)
        capabilities = await self._greet(smtp)
        if options.tls == "starttls":
            self.stage = Stage.STARTTLS
            if not capabilities.starttls:
                return Trouble(
                    FailureKind.TLS, Stage.STARTTLS, "the relay does not offer STARTTLS, which tls = starttls needs"
                )
            await smtp.starttls(tls_context=self.relay.tls, server_hostname=options.host)
            self.on_step(Stage.STARTTLS, _tls_text(smtp.transport))
            capabilities = await self._greet(smtp)
        if self.relay.needs_smtputf8 and not capabilities.smtputf8:
            what = "our sender is not ASCII before the @, and the relay does not offer SMTPUTF8"
            return Trouble(FailureKind.EXTENSION, Stage.EHLO, what)
        if options.username:
            self.stage = Stage.AUTH
            return await self._log_in(smtp, capabilities)
        return capabilities

    async def _greet(self, smtp: aiosmtplib.SMTP) -> Capabilities:
        """Say EHLO, or HELO to a relay that does not know EHLO (RFC 5321, 3.2): such a relay has no extensions."""
        self.stage = Stage.EHLO
        try:
            reply = await smtp.ehlo()
        except aiosmtplib.SMTPHeloError as error:
            if error.code not in _EHLO_IS_UNKNOWN:
                raise
            await smtp.helo()
            return read_ehlo("")
        capabilities = read_ehlo(reply.message, self.relay.options.ignore_ehlo)
        keywords = tuple(map(self._line, capabilities.keywords))
        self.on_step(Stage.EHLO, self._line(" ".join(keywords)))
        return evolve(capabilities, keywords=keywords)

    async def _log_in(self, smtp: _Client, capabilities: Capabilities) -> Capabilities | Trouble:
        options = self.relay.options
        usable = _MECHANISMS_IN_CLEAR if options.tls == "none" else _MECHANISMS_WITH_TLS
        mechanism = next((each for each in usable if each in capabilities.auth), None)
        smtp.note_sent = self.login.note_sent
        match mechanism:
            case "PLAIN":
                await _say(smtp, plain_dialogue(options.username, options.password))
            case "LOGIN":
                await _say(smtp, login_dialogue(options.username, options.password))
            case "CRAM-MD5":
                await smtp.auth_crammd5(options.username, options.password)
            case None:
                offered = " ".join(sorted(capabilities.auth)) or "none"
                what = f"no common login mechanism: offered {offered}, usable {' '.join(usable)}"
                return Trouble(FailureKind.LOGIN, Stage.AUTH, self._line(what))
            case _:
                assert_never(mechanism)  # type: ignore[arg-type]  # the tuples above have no other name
        self.on_step(Stage.AUTH, self._line(f"{mechanism} as {options.username}"))
        return capabilities

    def _hand_over(self, capabilities: Capabilities, began: float) -> Session | Trouble:
        smtp = self.smtp
        transport = smtp.transport if smtp is not None else None
        if smtp is None or not isinstance(transport, asyncio.Transport) or transport.is_closing():
            return Trouble(FailureKind.EOF, self.stage, "the relay closed the connection after the handshake")
        if len(getattr(smtp.protocol, "_buffer", b"")):
            return Trouble(FailureKind.GARBLED, self.stage, "the relay sent replies that no command asked for")
        self.is_open = True
        # Otherwise aiosmtplib would close the connection when its client object is deleted.
        smtp.transport = smtp.protocol = None
        cipher = transport.get_extra_info("ssl_object")
        tls = cipher.version() if cipher is not None else ""
        seconds = time.perf_counter() - began
        return Session(transport, capabilities, tls or "", seconds, certificate_ends_at(transport), self.login.mask)

    def _trouble(self, error: Exception) -> Trouble:
        at_tls = Stage.CONNECT if self.relay.options.tls == "implicit" else Stage.STARTTLS
        certificate = next((each for each in _chain(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
        if certificate is not None:
            what = f"the relay's certificate is not trusted: {certificate.verify_message or certificate}"
            return Trouble(FailureKind.TLS, at_tls, self._line(what))
        tls_error = next((each for each in _chain(error) if isinstance(each, ssl.SSLError)), None)
        if tls_error is not None and tls_error.reason in _NOT_TLS and self.relay.options.tls == "implicit":
            what = "no TLS session: the relay answered without TLS; this port may need smtp.tls = starttls"
            return Trouble(FailureKind.TLS, at_tls, what)
        if tls_error is not None:
            return Trouble(FailureKind.TLS, at_tls, self._line(f"no TLS session: {error}"))
        if isinstance(error, aiosmtplib.SMTPResponseException) and error.code > 0:
            reply = self._reply(error.code, error.message)
            hows = {Stage.AUTH: FailureKind.LOGIN, Stage.STARTTLS: FailureKind.TLS}
            return Trouble(hows.get(self.stage, FailureKind.GREETING), self.stage, "refused", reply)
        if isinstance(error, aiosmtplib.SMTPServerDisconnected | aiosmtplib.SMTPConnectError | ConnectionError):
            return Trouble(FailureKind.EOF, self.stage, "the relay closed the connection")
        return Trouble(FailureKind.GARBLED, self.stage, self._line(str(error)))

    def _reply(self, code: int, text: str) -> Reply:
        return reply_from(code, self.login.mask.masked(text), self.stage)

    def _line(self, text: str) -> str:
        """Return what the relay said, fit to be shown: on one line, and without our secrets."""
        return printable_line(self.login.mask.masked(text))


def _chain(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
