"""Pure. Profile of the server that the catcher plays: extensions, limits, the reply to EHLO; and replies as such."""

from __future__ import annotations

from trio_worker.records import frozen

EXTENSIONS = frozenset(
    {"PIPELINING", "CHUNKING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH"},
)
MECHANISMS = ("CRAM-MD5", "LOGIN", "PLAIN")


@frozen
class ServerReply:
    """One reply of one line. ``enhanced`` may be empty: 3yz replies, for example, have none (RFC 2034 section 4)."""

    code: int
    enhanced: str
    text: str

    def encode(self, *, with_enhanced: bool) -> bytes:
        """Return the octets of the reply."""
        status = f"{self.enhanced} " if self.enhanced and with_enhanced else ""
        return f"{self.code} {status}{self.text}\r\n".encode()


@frozen
class ServerProfile:
    """The capabilities and rules of the relay that the catcher plays.

    ``extensions``: the EHLO keywords that it offers; STARTTLS only with ``has_tls``, AUTH only with ``credentials``
    (user, password), and without TLS only with ``auth_in_clear``. ``size_limit_bytes``: 0 for no limit.
    ``accepts_data_without_recipients``: reply 354 to DATA although all recipients were refused, as RFC 2920 section 3.1
    permits; the mail is then refused after its dot.
    """

    hostname: str = "localhost"
    extensions: frozenset[str] = EXTENSIONS
    size_limit_bytes: int = 10 * 1024 * 1024
    has_tls: bool = False
    credentials: tuple[str, str] | None = None
    mechanisms: tuple[str, ...] = MECHANISMS
    require_auth: bool = False
    auth_in_clear: bool = True
    accepts_data_without_recipients: bool = False


def offered_now(profile: ServerProfile, *, tls: bool) -> frozenset[str]:
    """Return the extensions that are offered on a connection with or without TLS."""
    offered = profile.extensions
    if tls or not profile.has_tls:
        offered -= {"STARTTLS"}
    if profile.credentials is None or not (tls or profile.auth_in_clear):
        offered -= {"AUTH"}
    return offered


def ehlo_reply(profile: ServerProfile, offered: frozenset[str]) -> bytes:
    """Return the whole reply to EHLO, with a line for each extension."""
    values = {"SIZE": str(profile.size_limit_bytes), "AUTH": " ".join(profile.mechanisms)}
    lines = [profile.hostname, *(f"{keyword} {values.get(keyword, '')}".rstrip() for keyword in sorted(offered))]
    return "".join(f"250{'-' if line is not lines[-1] else ' '}{line}\r\n" for line in lines).encode()
