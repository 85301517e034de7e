"""Pure. Why a connection to the relay ended, or why none could be opened, in one word."""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """Why a connection ended, or why none could be opened."""

    CLOSING = "closing"  # the relay said 421, or refused RSET
    EOF = "eof"  # the relay closed without a reply
    RESET = "reset"  # the network or the kernel broke the connection
    TIMEOUT = "timeout"  # a timeout of ours passed
    GARBLED = "garbled"  # replies that fit no command of ours
    AHEAD = "ahead"  # the relay dropped what was written before its answer to an earlier mail
    CANCELLED = "cancelled"  # we ended it: a drain, or the end of its grace
    RESOLVE = "resolve"  # the relay's name has no address
    CONNECT = "connect"  # nothing listens there, or there is no route
    TLS = "tls"  # no TLS: not offered, refused, or a bad certificate
    GREETING = "greeting"  # the relay greeted with a refusal
    LOGIN = "login"  # the relay refused the login
    EXTENSION = "extension"  # the relay does not offer what every mail of ours needs
    LOCAL = "local"  # our own machine: out of file descriptors
    SESSION = "session"  # the relay refused the session at MAIL
    US = "us"  # the relay refused our sender, host name, address, login or reputation on an open session
    STANDING = "standing"  # a quota of our account is used up, or the account is suspended or in a sandbox
    RATE = "rate"  # more mails in a time than the relay takes
    CONCURRENCY = "concurrency"  # more connections at once than the relay takes
    GUARD = "guard"  # every mail gets the same refusal, for which there is no name
