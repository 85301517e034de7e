"""A mail server of others that a test has started, and the mails that it keeps."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

_START_SECONDS = 60.0


@frozen
class Kept:
    """One mail as a server handed it on: the recipient, and the message with CRLF line ends."""

    recipient: str
    octets: bytes


@frozen
class Running:
    """One running server, how a client gets in, and what it kept so far."""

    port: int
    kept: Callable[[], list[Kept]]
    log: Callable[[], str]
    tls: str = "none"
    ca_file: str = ""
    username: str = ""
    password: str = ""


def kept_in(folder: Path) -> list[Kept]:
    """Return the mails in a folder of files, each with the recipient in its first line and the message behind it."""
    return [_read_kept(path) for path in folder.glob("*.mail")]


def _read_kept(path: Path) -> Kept:
    recipient, _, octets = path.read_bytes().partition(b"\n")
    return Kept(recipient.decode(), with_crlf(octets))


def with_crlf(octets: bytes) -> bytes:
    """Return a message as it travelled; some servers keep it with the line ends of this machine."""
    return octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running_process(
    command: list[str], port: int, log: Path, environment: dict[str, str] | None = None
) -> Iterator[Callable[[], str]]:
    """Run a server until it greets on a port, and end it with the block; its output is in the log.

    Its standard input is a pipe that closes when the tests end, however they end: a server that reads it ends itself.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    assert process.stdin is not None
    try:
        _await_greeting(process, port, log)
        yield lambda: log.read_text("utf-8", "replace")
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def _await_greeting(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                if client.recv(3) == b"220":
                    client.sendall(b"QUIT\r\n")
                    return
        except OSError:
            # Nobody tells when a port is open.
            time.sleep(0.05)
    pytest.fail(f"the server does not greet: {log.read_text('utf-8', 'replace')[-2000:]}")
