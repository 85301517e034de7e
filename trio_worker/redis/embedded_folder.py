"""Edge. The files in the folder of an embedded server: who may use it, where it listens, what proves that it is ours.

The folder is this user's alone (0700), so whatever answers on the socket in it is our server. ``password`` is that of
the user `OWNER`, who may do everything; it is needed on the TCP port, where anybody on the machine can connect.
``server.json`` has port and pid. It is written before the server is started, so that it is there even if the starting
process is killed; a clean stop removes it. It is a hint and no proof.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

from attrs import asdict, field

from trio_worker.own_files import (
    PRIVATE_FOLDER,
    UntrustedPathError,
    check_own_folder,
    make_own_folder,
    open_own_file,
    read_own_file,
    replace_own_file,
)
from trio_worker.records import frozen

OWNER = "owner"
SOCKET_FILE = "valkey.sock"
PASSWORD_FILE = "password"  # noqa: S105  the name of a file
PID_FILE = "valkey.pid"
LOG_FILE = "valkey.log"
START_LOCK = "start.lock"
USERS_LOCK = "users.lock"
_SERVER_FILE = "server.json"
# Longest address of a unix socket: 108 bytes on Linux and 104 on macOS, with the NUL at the end.
_SOCKET_PATH_BYTES = 103
_PASSWORD_BYTES = 32


class SocketPathTooLong(OSError):  # noqa: N818  the name says what is wrong, its parent says Error
    """The path of a unix socket does not fit into its address."""


@frozen
class ServerFile:
    """The content of ``server.json``: pid 0 before the process exists; ``since``: start or takeover (RFC 3339)."""

    port: int
    pid: int
    since: str = field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@frozen
class Folder:
    """The open folder of a server; ``path`` is absolute, ``descriptor`` stays open until `close`."""

    path: Path
    descriptor: int

    @property
    def socket(self) -> str:
        """The address of the server's socket; a long one goes through the open folder, which Linux allows."""
        plain = str(self.path / SOCKET_FILE)
        if len(os.fsencode(plain)) <= _SOCKET_PATH_BYTES:
            return plain
        if sys.platform != "linux":
            raise SocketPathTooLong(0, f"its path is too long for a unix socket ({_SOCKET_PATH_BYTES} bytes)", plain)
        return f"/proc/self/fd/{self.descriptor}/{SOCKET_FILE}"

    def close(self) -> None:
        os.close(self.descriptor)


def make_folder(path: Path) -> Folder:
    """Make the folder, or check that it is this user's alone, and open it; it is closed to all others.

    Raises `UntrustedPathError` or another OSError.
    """
    make_own_folder(path)
    return open_folder(path)


def open_folder(path: Path) -> Folder:
    """Open a folder that exists; raises as `make_folder` does, and FileNotFoundError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _close_to_others(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return Folder(path, descriptor)


def _close_to_others(path: Path, descriptor: int) -> None:
    check_own_folder(path)
    status = os.fstat(descriptor)
    if not os.path.samestat(status, path.stat()):
        raise UntrustedPathError(path, "was exchanged for another one")
    if status.st_mode & 0o077:
        os.fchmod(descriptor, PRIVATE_FOLDER)


def open_lock(folder: Folder, name: str) -> int:
    """Open one of the lock files, and make it if it is missing."""
    return open_own_file(Path(name), os.O_RDWR | os.O_CREAT, folder=folder.descriptor)


def read_password(folder: Folder) -> str:
    """Return the password of `OWNER`, empty if there is none yet."""
    try:
        return read_own_file(folder.path / PASSWORD_FILE).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def make_password(folder: Folder) -> str:
    """Return the password of `OWNER`; it is made for the first server of a folder. Needs ``start.lock``."""
    password = read_password(folder)
    if not password:
        password = secrets.token_hex(_PASSWORD_BYTES)
        replace_own_file(folder.path / PASSWORD_FILE, f"{password}\n".encode())
    return password


def read_server_file(folder: Folder) -> ServerFile | None:
    """Return the content of ``server.json``; None if it is missing or is none."""
    try:
        document = json.loads(read_own_file(folder.path / _SERVER_FILE))
        return ServerFile(int(document["port"]), int(document["pid"]), str(document["since"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_server_file(folder: Folder, server_file: ServerFile) -> None:
    """Replace ``server.json`` atomically, since readers take no lock."""
    replace_own_file(folder.path / _SERVER_FILE, f"{json.dumps(asdict(server_file))}\n".encode())


def remove_server_file(folder: Folder) -> None:
    """Remove ``server.json``, because no server runs."""
    (folder.path / _SERVER_FILE).unlink(missing_ok=True)
