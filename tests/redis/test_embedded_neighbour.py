"""The embedded server beside another user of the machine, who may push jobs and count them, and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.neighbour import NEIGHBOUR, as_neighbour, needs_a_neighbour
from trio_worker.redis import embedded
from trio_worker.redis.embedded import ANY_PORT, EmbeddedAddress, EmbeddedServer, acquire_embedded, release_embedded
from trio_worker.redis.embedded_folder import ServerFile, write_server_file

WAIT_SECONDS = 60.0
# Another user may not be able to use the interpreter of these tests; this one belongs to the system.
PYTHON = Path("/usr/bin/python3")
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="needs a Python that every user can run")

# What a neighbour can find out: the replies to its commands on the port, and what the folder lets it have.
NEIGHBOUR_TRIES = """
import json, socket, sys
port, folder, *commands = sys.argv[1:]
found = {}
for command in commands:
    with socket.create_connection(("127.0.0.1", int(port)), 30) as link:
        link.sendall(command.encode() + b"\\r\\n")
        found[command] = link.recv(4096).decode().strip()
for path in ("password", "server.json", "appendonlydir"):
    try:
        open(f"{folder}/{path}")
    except OSError as error:
        found[path] = type(error).__name__
try:
    socket.socket(socket.AF_UNIX).connect(f"{folder}/valkey.sock")
except OSError as error:
    found["socket"] = type(error).__name__
print(json.dumps(found))
"""

# Another user's program that says what a server of the folder would say, and keeps what it is sent.
IMPOSTOR = """
import json, os, socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    server.settimeout(0.2)
    heard = b""
    while os.getppid() == int(sys.argv[1]):
        try:
            link, _ = server.accept()
        except TimeoutError:
            continue
        link.settimeout(0.2)
        link.sendall(b"+OK\\r\\n+PONG\\r\\n" * 9)
        try:
            heard += link.recv(65536)
        except TimeoutError:
            pass
        print(json.dumps(heard.decode()), flush=True)
"""


@pytest.fixture
def server(shared_folder: Path) -> Iterator[EmbeddedServer]:
    """A server that a worker of the list jobs has started, in a folder to which everybody can come."""
    hold = acquire_embedded(EmbeddedAddress(shared_folder / "valkey", ANY_PORT), lists=["jobs"])
    yield hold.server
    release_embedded(hold)


def replies(port: int, *commands: str) -> list[str]:
    """Send commands over one connection of a producer."""
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as link:
        found = []
        for command in commands:
            link.sendall(command.encode() + b"\r\n")
            found.append(link.recv(65536).decode().strip())
        return found


def test_a_producer_needs_no_login_to_push_and_count(server: EmbeddedServer) -> None:
    """What the load test of another worker does works as it is written."""
    assert replies(server.port, "PING", "RPUSH jobs one", "LPUSH jobs two", "LLEN jobs") == ["+PONG", ":1", ":2", ":2"]


@needs_a_neighbour
def test_a_neighbour_may_push_and_count_and_no_more(server: EmbeddedServer) -> None:
    """No job is read or taken, no setting is changed, no file of the folder is open."""
    refused = [
        "LRANGE jobs 0 -1", "LPOP jobs", "DEL jobs", "RPUSH other one", "LLEN other", "KEYS *", "GET x", "FLUSHALL",
        "CONFIG GET dir", "CONFIG SET appendonly no", "CONFIG SET maxmemory 1", "REPLICAOF 127.0.0.1 1", "MONITOR",
        "EVAL return 0", "SCRIPT LOAD return", "INFO", "CLIENT LIST", "SHUTDOWN", "DEBUG SLEEP 0", "ACL LIST",
        "SUBSCRIBE x", "MULTI", "SELECT 1", "SAVE", "BGREWRITEAOF", "MODULE LIST", "SYNC", "HELLO 3 AUTH owner x",
        "AUTH owner x", "AUTH x", "LATENCY RESET", "SLOWLOG GET", "FAILOVER", "CLUSTER INFO", "WAIT 0 0",
    ]  # fmt: skip
    folder = str(server.directory)
    tried = as_neighbour(
        [str(PYTHON), "-c", NEIGHBOUR_TRIES, str(server.port), folder, "RPUSH jobs one", *refused], "/"
    )
    found = json.loads(tried.stdout)

    assert found.pop("RPUSH jobs one") == ":1"
    assert [found.pop(path) for path in ("password", "server.json", "appendonlydir")] == ["PermissionError"] * 3
    assert found.pop("socket") == "PermissionError"
    assert sorted(found) == sorted(refused)
    for command, reply in found.items():
        assert reply.startswith(
            ("-NOPERM", "-WRONGPASS", "-ERR AUTH", "-ERR unknown", "-ERR DEBUG command not allowed")
        ), (command, reply)
    assert replies(server.port, "LLEN jobs") == [":1"]


@contextmanager
def impostor() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run another user's program that has a port before our server, and plays it."""
    with subprocess.Popen(
        [str(PYTHON), "-c", IMPOSTOR, str(os.getpid())],
        cwd="/", user=NEIGHBOUR, group=NEIGHBOUR, extra_groups=[], stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
        process.kill()


@needs_a_neighbour
def test_who_has_the_port_first_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the usual port nor at the one of the record: our server is asked over the socket of the folder."""
    with impostor() as (port, process):
        monkeypatch.setattr(embedded, "USUAL_PORTS", [port])
        address = EmbeddedAddress(tmp_path / "valkey")
        first = acquire_embedded(address, lists=["jobs"])
        write_server_file(first.folder, ServerFile(port, process.pid))
        second = acquire_embedded(address, lists=["jobs"])
        ports = first.server.port, second.server.port
        for hold in (first, second):
            release_embedded(hold)
        replies(port, "over")
        assert process.stdout is not None
        heard = json.loads(process.stdout.readline())

    assert ports[0] == ports[1] != port
    assert heard == "over\r\n"


@pytest.mark.parametrize("name", ["jobs*", "j?bs", "jobs[12]", "jobs\\", "jobs~x", "Jöbs", "jobs%R~x"])
def test_a_queue_s_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    """Producers may push to the list of that name, and to no other that the name would match as a pattern."""
    hold = acquire_embedded(EmbeddedAddress(tmp_path / "valkey", ANY_PORT), lists=["other"])
    joined = acquire_embedded(EmbeddedAddress(tmp_path / "valkey"), lists=[name])
    release_embedded(hold)
    with socket.create_connection(("127.0.0.1", joined.server.port), WAIT_SECONDS) as link:
        found = []
        for each in (name, "other", "jobs1", "jobs12", "x"):
            key = each.encode()
            link.sendall(b"*3\r\n$5\r\nRPUSH\r\n$%d\r\n%s\r\n$1\r\nx\r\n" % (len(key), key))
            found.append(link.recv(4096).decode()[:2])
    release_embedded(joined)

    assert found == [":1", ":1", "-N", "-N", "-N"]


def test_the_password_stays_and_is_no_argument_of_a_program(server: EmbeddedServer) -> None:
    """The arguments of a program can be read by every user; a client that knows the password need not learn another."""
    arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes() + Path(f"/proc/{server.pid}/environ").read_bytes()
    again = acquire_embedded(EmbeddedAddress(server.directory))
    release_embedded(again)

    assert server.password.encode() not in arguments
    assert again.server.password == server.password
    assert oct((server.directory / "password").stat().st_mode & 0o777) == "0o600"
    assert replies(server.port, f"AUTH owner {server.password}", "CONFIG GET dir")[0] == "+OK"
