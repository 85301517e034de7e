"""Pure. Parses the arguments of MAIL and RCPT, strictly by the grammar of RFC 5321 section 4.1.2."""

from __future__ import annotations

import re
from functools import cache

from trio_worker.capture.server_profile import ServerReply
from trio_worker.records import frozen

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_QUOTED = r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"'
_ALNUM = r"A-Za-z0-9\u0080-\U0010ffff"
_LABEL = rf"[{_ALNUM}](?:[{_ALNUM}\-]*[{_ALNUM}])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]+\]"
_MAILBOX = rf"(?P<local>{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})"

_FROM = rf"(?i:FROM):<(?P<address>(?:{_MAILBOX})?)>(?P<rest>(?: .*)?)"
_TO = rf"(?i:TO):<(?P<address>{_MAILBOX}|(?i:postmaster))>(?P<rest>(?: .*)?)"
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_NAME = re.compile(rf"{_DOMAIN}|{_LITERAL}", re.ASCII)


@cache
def _path(pattern: str) -> re.Pattern[str]:
    """Compile a pattern at its first use: with all of Unicode that takes as long as a tenth of the start."""
    return re.compile(pattern, re.DOTALL)


# RFC 5321 section 4.5.3.1, paragraphs 1 to 3, in octets.
MAX_LOCAL_PART_OCTETS = 64
MAX_DOMAIN_OCTETS = 255
MAX_PATH_OCTETS = 256

# The known parameters of MAIL, each with its extension.
_EXTENSION_OF = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "AUTH": "AUTH"}
_VALUES = {
    "SIZE": re.compile(r"[0-9]{1,20}"),  # RFC 1870 section 4
    "BODY": re.compile(r"7BIT|8BITMIME", re.IGNORECASE),  # RFC 6152 section 2; BINARYMIME is not offered
    "SMTPUTF8": re.compile(r""),  # RFC 6531 section 3.4: no value
    "AUTH": re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"),  # RFC 4954 section 5: xtext
}
_SECTIONS = {"SIZE": "RFC 1870 4", "BODY": "RFC 6152 2", "SMTPUTF8": "RFC 6531 3.4", "AUTH": "RFC 4954 5"}


@frozen
class MailArguments:
    """The arguments of MAIL or RCPT: the address (empty: null sender) and the parameters, keys in capitals."""

    address: str
    parameters: dict[str, str]


@frozen
class RefusedArgument:
    """The reply to a wrong argument, and the rule that it breaks."""

    reply: ServerReply
    rule: str
    reason: str


def is_host_name(name: bytes) -> bool:
    """Whether this is a valid argument of EHLO: a domain or an address literal (RFC 5321 section 4.1.1.1)."""
    return name.isascii() and _NAME.fullmatch(name.decode("ascii")) is not None


def read_mail(argument: bytes, offered: frozenset[str]) -> MailArguments | RefusedArgument:
    """Parse the argument of MAIL; ``offered`` are the extensions in force."""
    text = _text(argument)
    found = _path(_FROM).fullmatch(text) if text is not None else None
    if found is None:
        return RefusedArgument(
            ServerReply(501, "5.1.7", "Syntax: MAIL FROM:<address>"), "RFC 5321 4.1.1.2", "malformed MAIL"
        )
    parameters = _parameters(found["rest"])
    if isinstance(parameters, RefusedArgument):
        return parameters
    wrong = _wrong_parameter(parameters, offered) or _too_long(found, "5.1.7")
    if wrong is not None:
        return wrong
    if not found["address"].isascii() and "SMTPUTF8" not in parameters:
        return _NOT_ASCII
    return MailArguments(found["address"], parameters)


def read_rcpt(argument: bytes, *, utf8: bool) -> MailArguments | RefusedArgument:
    """Parse the argument of RCPT; ``utf8``: whether MAIL had the parameter SMTPUTF8."""
    text = _text(argument)
    found = _path(_TO).fullmatch(text) if text is not None else None
    if found is None:
        return RefusedArgument(
            ServerReply(501, "5.1.3", "Syntax: RCPT TO:<address>"), "RFC 5321 4.1.1.3", "malformed RCPT"
        )
    if found["rest"]:
        return RefusedArgument(
            ServerReply(555, "5.5.4", "No parameters of RCPT are known here"),
            "RFC 5321 4.1.1.11",
            "RCPT with a parameter that was not offered",
        )
    wrong = _too_long(found, "5.1.3")
    if wrong is not None:
        return wrong
    if not found["address"].isascii() and not utf8:
        return _NOT_ASCII
    return MailArguments(found["address"], {})


_NOT_ASCII = RefusedArgument(
    ServerReply(553, "5.6.7", "Address needs SMTPUTF8"),
    "RFC 6531 3.4",
    "an address that is not ASCII, without SMTPUTF8 on MAIL",
)


def _text(argument: bytes) -> str | None:
    try:
        return argument.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _too_long(found: re.Match[str], enhanced: str) -> RefusedArgument | None:
    local, domain = found["local"] or "", found["domain"] or ""
    if (
        len(local.encode()) <= MAX_LOCAL_PART_OCTETS
        and len(domain.encode()) <= MAX_DOMAIN_OCTETS
        and len(found["address"].encode()) + 2 <= MAX_PATH_OCTETS
    ):
        return None
    return RefusedArgument(
        ServerReply(501, enhanced, "Address too long"), "RFC 5321 4.5.3.1", "an address over its length limit"
    )


def _parameters(rest: str) -> dict[str, str] | RefusedArgument:
    parameters: dict[str, str] = {}
    for word in rest.split(" ")[1:]:
        found = _PARAMETER.fullmatch(word)
        if found is None or found[1].upper() in parameters:
            return RefusedArgument(
                ServerReply(501, "5.5.4", "Malformed or repeated parameter"),
                "RFC 5321 4.1.2",
                "a malformed or repeated parameter",
            )
        parameters[found[1].upper()] = found[2] or ""
    return parameters


def _wrong_parameter(parameters: dict[str, str], offered: frozenset[str]) -> RefusedArgument | None:
    for keyword, value in parameters.items():
        if _EXTENSION_OF.get(keyword) not in offered:
            return RefusedArgument(
                ServerReply(555, "5.5.4", f"Parameter {keyword[:20]} is not offered"),
                "RFC 5321 4.1.1.11",
                f"MAIL with {keyword[:20]}, which was not offered",
            )
        if _VALUES[keyword].fullmatch(value) is None:
            return RefusedArgument(
                ServerReply(501, "5.5.4", f"Bad value of {keyword}"),
                _SECTIONS[keyword],
                f"a bad value of {keyword}",
            )
    return None
