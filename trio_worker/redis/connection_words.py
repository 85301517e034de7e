"""Pure. Why a connection to Redis failed, in an operator's words instead of those of Python, OpenSSL and redis-py."""

from __future__ import annotations

import os
import re

CLOSED = "the connection was closed by Redis, or by a proxy before it"
_RESET = f"{CLOSED} (a port that expects rediss:// does this to redis://)"

# What OpenSSL says of an alert that Redis sent: what Redis has against the certificate of this client, or its lack.
_ALERTS = (
    ("CERTIFICATE_REQUIRED", "Redis asks for a certificate of this client: set redis.cert_file and redis.key_file"),
    ("ALERT_UNKNOWN_CA", "Redis does not know the authority that signed redis.cert_file"),
    ("ALERT_CERTIFICATE_EXPIRED", "Redis says that redis.cert_file has expired"),
    ("ALERT_CERTIFICATE_REVOKED", "Redis says that redis.cert_file was revoked"),
    ("ALERT_BAD_CERTIFICATE", "Redis does not accept redis.cert_file"),
    ("ALERT_CERTIFICATE_UNKNOWN", "Redis does not accept redis.cert_file"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "Redis does not accept redis.cert_file: it is not for a client"),
    # Of a server with TLS 1.2; a certificate is the usual reason.
    ("ALERT_HANDSHAKE_FAILURE", "Redis refuses the TLS handshake: it may ask for a certificate (redis.cert_file)"),
    ("ALERT_PROTOCOL_VERSION", "Redis and this machine have no version of TLS in common"),
    ("WRONG_VERSION_NUMBER", "what answers there does not speak TLS: redis.url says rediss://, is it redis://?"),
    ("RECORD_LAYER_FAILURE", "what answers there does not speak TLS: redis.url says rediss://, is it redis://?"),
)
_ALERT = re.compile(r"\[SSL: \w*?(" + "|".join(word for word, _ in _ALERTS) + r")\]")
_WORDS = dict(_ALERTS)
_NOT_TRUSTED = re.compile(r"certificate verify failed: (.*?)\.?(?: \(_ssl\.c:\d+\))?\.?$")
_ANOTHER_NAME = re.compile(r"mismatch|not valid for", re.IGNORECASE)
# redis-py: "Error 111 connecting to localhost:6379. Connection refused." The number can be a word.
_CONNECTING = re.compile(r"^Error (?P<number>\S+) connecting to (?P<place>\S+)\. (?P<reason>.*?)\.?$", re.DOTALL)
# redis-py: "Error while reading from localhost:6379 : (104, 'Connection reset by peer')", and the same of writing.
_TALKING = re.compile(
    r"^Error (?:\S+ )?while (?:reading from|writing to) (?:\S+ :|[^.]*\.) (?P<reason>.*?)\.?$", re.DOTALL
)
_NUMBERED = re.compile(r"^(?:\[Errno -?\d+\] |\(-?\d+, ['\"])(?P<reason>.*?)(?:['\"]\))?$", re.DOTALL)
_ENDED = (
    "Connection closed by server",
    "Connection lost",
    "Broken pipe",
    "EOF occurred in violation of protocol",
    "unexpected eof while reading",
)
_REFUSED_CALL = "Connect call failed"  # asyncio, instead of what the system says
_ODD_TYPE = re.compile(r"^Protocol error, got .* as reply type byte")


def connection_words(text: str) -> str:
    """Return why a connection failed; ``text`` is that of an exception, and is returned where no words are known."""
    alert = _ALERT.search(text)
    if alert:
        return _WORDS[alert[1]]
    distrust = _NOT_TRUSTED.search(text)
    if distrust:
        return _distrusted(distrust[1])
    if _ODD_TYPE.match(text):
        return f"what answers there does not speak the protocol of Redis ({text})"
    connecting = _CONNECTING.match(text)
    if text.startswith("Timeout connecting to server"):
        return "nothing answered in time while a connection was opened"
    if connecting:
        return f"cannot connect to {connecting['place']}: {_reason(connecting['reason'], connecting['number'])}"
    talking = _TALKING.match(text)
    return _ended(_reason(talking["reason"] if talking else text, ""))


def _reason(text: str, number: str) -> str:
    if text.startswith(_REFUSED_CALL) and number.isdecimal():
        return os.strerror(int(number))
    numbered = _NUMBERED.match(text)
    return numbered["reason"] if numbered else text


def _ended(reason: str) -> str:
    if reason.startswith("Connection reset by peer"):
        return _RESET
    if "handshake operation timed out" in reason:
        return "the TLS handshake timed out: what answers there may not speak TLS (redis.url says rediss://)"
    return CLOSED if any(words in reason for words in _ENDED) else reason


def _distrusted(reason: str) -> str:
    if _ANOTHER_NAME.search(reason):
        return f"the certificate of Redis is for another host name than that in redis.url ({reason})"
    if "expired" in reason or "not yet valid" in reason:
        return f"the certificate of Redis is not valid now ({reason})"
    return f"the certificate of Redis is not trusted ({reason}): set redis.ca_file to its authority"
