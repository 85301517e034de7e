"""Edge. Who may do what at an embedded server, and questions to it over the unix socket in its folder. Blocks.

Only this user can enter the folder, so whatever answers on the socket is our server.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from typing import IO, TYPE_CHECKING

from trio_worker.own_files import UntrustedPathError
from trio_worker.records import frozen
from trio_worker.redis.embedded_folder import OWNER, Folder, read_password

if TYPE_CHECKING:
    from collections.abc import Sequence

# Timeout of one reply. A server that runs a long script replies late.
ANSWER_SECONDS = 1.0
LONGEST_REPLY_BYTES = 65536
# What the default user may do, on the lists of the queue. It needs no password: producers have none.
_PRODUCERS_MAY = "+ping +rpush +lpush +llen"
# Characters that have a meaning in the pattern of a key.
_IN_PATTERNS = re.compile(r"[\\*?\[\]]")


@frozen
class Running:
    """The server of the folder runs and answers."""

    port: int
    pid: int
    version: str
    is_loading: bool


@frozen
class Mute:
    """Something has the socket of the folder, and does not answer as its server does."""

    reason: str


@frozen
class NotRunning:
    """Nothing listens on the socket of the folder."""


def probe(folder: Folder) -> Running | Mute | NotRunning:
    """Ask the server in a folder who it is. Whatever answers on the socket there is ours, since only we can enter.

    Raises `UntrustedPathError` if the file of the password is not ours.
    """
    try:
        ping, setting, info = ask_server(folder, ("PING",), ("CONFIG", "GET", "port"), ("INFO", "server"))
        port = int(setting.removeprefix("port\n"))
    except (ConnectionRefusedError, FileNotFoundError):
        return NotRunning()
    except UntrustedPathError:
        raise  # waiting does not make the folder ours
    except (OSError, ValueError) as error:
        return Mute(str(error))
    facts = dict(line.partition(":")[::2] for line in info.splitlines())
    name = "valkey" if "valkey_version" in facts else "redis"
    version = f"{name.title()} {facts.get(f'{name}_version', '')}".strip()
    return Running(port, int(facts.get("process_id", 0)), version, is_loading=ping.startswith("-LOADING"))


def ask_server(folder: Folder, *commands: Sequence[str]) -> list[str]:
    """Return the replies to commands, sent by `OWNER` over the socket; a server that loads its data answers them too.

    Raises OSError if nothing answers, ValueError if it is no server or refuses the password.
    """
    login = ("AUTH", OWNER, read_password(folder))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(folder.socket)
        connection.sendall(b"".join(map(_packed, (login, *commands))))
        with connection.makefile("rb") as replies:
            logged_in = _read_reply(replies)
            if logged_in != "+OK":
                raise ValueError(logged_in)
            return [_read_reply(replies) for _ in commands]


def _packed(words: Sequence[str]) -> bytes:
    encoded = [os.fsencode(word) for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _read_reply(replies: IO[bytes]) -> str:
    """Read one RESP2 reply as text: errors keep their ``-``, two strings become two lines; else ValueError."""
    line = _read_line(replies)
    if line.startswith(("+", "-")):
        return line
    if line == "*2":
        return f"{_read_string(replies, _read_line(replies))}\n{_read_string(replies, _read_line(replies))}"
    return _read_string(replies, line)


def _read_line(replies: IO[bytes]) -> str:
    return os.fsdecode(replies.readline(LONGEST_REPLY_BYTES)).rstrip("\r\n")


def _read_string(replies: IO[bytes], header: str) -> str:
    length = int(header.removeprefix("$"))
    if not header.startswith("$") or not 0 <= length <= LONGEST_REPLY_BYTES:
        raise ValueError(header)
    return os.fsdecode(replies.read(length + len("\r\n"))[:length])


def users_text(password: str, lists: Sequence[str]) -> bytes:
    """Return the lines of the server's settings that say who may do what."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    keys = " ".join(map(_key_pattern, lists))
    return (
        f"user default reset on nopass -@all {_PRODUCERS_MAY} {keys}\nuser {OWNER} reset on #{digest} ~* &* +@all\n"
    ).encode()


def _key_pattern(name: str) -> str:
    return "~" + _IN_PATTERNS.sub(r"\\\g<0>", name)


def open_lists(folder: Folder, lists: Sequence[str]) -> None:
    """Let the default user push to these lists too, on a server that runs already."""
    ask_server(folder, *(("ACL", "SETUSER", "default", _key_pattern(name)) for name in lists))
