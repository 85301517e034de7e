"""Pure. The client's side of AUTH PLAIN and LOGIN (RFC 4954): which words to send after which reply code."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Generator
from typing import TypeAlias

# Yields the words of a command, or a lone response; is sent the code of the reply. The last reply is the outcome.
LoginDialogue: TypeAlias = Generator[tuple[bytes, ...], int, None]

LOGGED_IN = 235
_GO_ON = 334
# Replies to a command that is not understood (RFC 5321, 4.2.2): the relay has not looked at the login, so it may be
# given in another form. Any other refusal ends the dialogue: a second failed login in one session looks like an attack.
_NOT_UNDERSTOOD = frozenset({500, 501, 504})


def plain_dialogue(username: str, password: str) -> LoginDialogue:
    """Send the login with the command (RFC 4616), or, to a relay that does not understand this, when it asks.

    A relay that asks although it has the login gets it again.
    """
    response = b64encode(f"\0{username}\0{password}".encode())
    code = yield b"AUTH", b"PLAIN", response
    if code in _NOT_UNDERSTOOD:
        code = yield b"AUTH", b"PLAIN"
    if code == _GO_ON:
        yield (response,)


def login_dialogue(username: str, password: str) -> LoginDialogue:
    """Let the relay ask for user name and password: no standard says that the name may come with the command."""
    code = yield b"AUTH", b"LOGIN"
    for answer in (username, password):
        if code != _GO_ON:
            return
        code = yield (b64encode(answer.encode()),)
