"""The HTTP server of metrics and health: real sockets, hostile clients, addresses that are taken; and the probe."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.processes import Programs, patience, push
from tests.support.snapshot import busy, draining, fresh, without_redis, without_relay
from trio_worker.capture.catcher import Catcher
from trio_worker.cli import app
from trio_worker.cli.health import health
from trio_worker.queue.broker import QueueOptions
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings, read_settings
from trio_worker.telemetry import http_server as web
from trio_worker.telemetry import probe
from trio_worker.telemetry.alerts import readiness
from trio_worker.telemetry.http_server import (
    ListenTakenError,
    Pages,
    page_of_json,
    page_of_text,
    serve_pages,
    split_address,
    tell_address,
)
from trio_worker.telemetry.snapshot import Snapshot

PAGES: Pages = {
    "/livez": lambda: page_of_text(200, "ok\n"),
    "/readyz": lambda: page_of_json(503, {"ready": False}),
}


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Where two pages are served."""
    async with serve_pages("127.0.0.1:0", PAGES) as address:
        yield address


async def connect(address: str) -> trio.SocketStream:
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def exchange(address: str, sent: bytes) -> bytes:
    """Send bytes and return all that comes back before the server closes."""
    async with await connect(address) as stream:
        await stream.send_all(sent)
        return b"".join([chunk async for chunk in stream])


async def test_pages_are_served_with_their_status(address: str) -> None:
    """One request, one answer, and the connection is over."""
    live = await exchange(address, b"GET /livez?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    ready = await exchange(address, b"GET /readyz HTTP/1.0\r\n\r\n")

    assert live.startswith(b"HTTP/1.1 200 ")
    assert live.endswith(b"\r\n\r\nok\n")
    assert ready.startswith(b"HTTP/1.1 503 ")
    assert json.loads(ready.partition(b"\r\n\r\n")[2]) == {"ready": False}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"DELETE /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"413"),
        (b"HELO there\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_what_is_no_good_request_gets_its_status(address: str, sent: bytes, status: bytes) -> None:
    """A clear refusal, and the server goes on."""
    assert (await exchange(address, sent)).split(b" ")[1] == status
    assert b"200" in await exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_head_has_no_body(address: str) -> None:
    """Its length is told all the same."""
    answer = await exchange(address, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")

    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_client_that_leaves_harms_nobody(address: str) -> None:
    """Nothing sent, half a request, a reset: each is the end of that connection only."""
    for sent in (b"", b"GET /li"):
        stream = await connect(address)
        await stream.send_all(sent)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(stream)

    assert b"ok" in await exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_slow_clients_are_few_and_have_little_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many connections a further one is closed at once; the time of the others runs out."""
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.3)
    slow = [await connect(address) for _ in range(web.MOST_CONNECTIONS)]
    for stream in slow:
        await stream.send_all(b"GET /livez HTTP/1.1\r\n")
    refused = await connect(address)
    with trio.fail_after(60):
        assert await refused.receive_some() == b""
        for stream in slow:
            assert await stream.receive_some() == b""
            await stream.aclose()
    await refused.aclose()

    assert b"ok" in await exchange(address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_taken_address_says_what_to_do(address: str, tmp_path: Path) -> None:
    """A second worker of a host is told of port 0 and unix sockets."""
    with pytest.raises(ListenTakenError, match="port 0 or a unix socket"):
        async with serve_pages(address, PAGES):
            pass
    listen = f"unix:{tmp_path}/w.sock"
    async with serve_pages(listen, PAGES):
        with pytest.raises(ListenTakenError):
            async with serve_pages(listen, PAGES):
                pass


async def test_unix_socket_that_was_left_behind_is_taken_over(tmp_path: Path) -> None:
    """After a crash the file is still there, and nobody answers at it; at the end it is gone."""
    path = tmp_path / "folder" / "w.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serve_pages(f"unix:{path}", PAGES) as address:
        assert await trio.to_thread.run_sync(probe.ask, address, "/livez") == (200, "ok")
    assert not path.exists()


async def test_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    """What is no socket is somebody's."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        async with serve_pages(f"unix:{path}", PAGES):
            pass
    assert path.read_text() == "mine"


@given(st.text(max_size=30))
def test_any_address_is_understood_or_refused(listen: str) -> None:
    """Whatever stands in the configuration, the answer is an address or a ValueError."""
    try:
        address = split_address(listen)
    except ValueError:
        return
    assert isinstance(address, Path) or 0 <= address[1] <= 65_535


@pytest.mark.parametrize(
    ("snapshot", "answered_seconds", "is_ready", "degraded"),
    [
        (busy(), 0.1, True, False),
        (busy(), 5.1, False, False),
        (without_relay(), 0.1, True, True),
        (without_redis(), 0.1, False, True),
        (draining(), 0.1, False, True),
        (fresh(), math.inf, False, False),
    ],
)
def test_ready_is_about_this_worker_and_redis(
    snapshot: Snapshot,
    answered_seconds: float,
    is_ready: bool,  # noqa: FBT001
    degraded: bool,  # noqa: FBT001
) -> None:
    """A relay in trouble leaves a worker ready: no restart mends it; a drain and a lost Redis do not."""
    found, document = readiness(snapshot, answered_seconds)

    assert (found, document["degraded"]) == (is_ready, degraded)


async def test_probes_of_a_running_worker(programs: Programs, real_redis: RedisClient, relay: Catcher) -> None:
    """Ready once it runs, until the drain begins; metrics until it is over."""
    listen = f"unix:{programs.folder}/w.sock"
    env_words = ("--address", listen)
    with programs.config.open("a") as config:
        config.write(f'[metrics]\nlisten = "{listen}"\n')
    relay.faults = relay.faults
    with patience():
        worker = await programs.start("run", "--no-dashboard")
        assert await asked("ready", "--wait", "20s", *env_words) == 0
        assert await asked("live", "--config", str(programs.config)) == 0
        _, said = await trio.to_thread.run_sync(probe.ask, listen, "/readyz")
        assert json.loads(said)["worker"].endswith(f":{worker.process.pid}")
        await push(real_redis, 3)
        await relay.wait_for_mails(3)
        status, text = await trio.to_thread.run_sync(probe.ask, listen, "/metrics")
        assert status == 200
        assert 'trio_worker_jobs_claimed_total{queue="jobs",source="fresh"} 3.0' in text
        assert "user1" not in text
        worker.signal(15)
        assert await worker.end() == 0
        assert await asked("live", *env_words) == 69
        assert await asked("ready", "--wait", "1s", *env_words) == 75


async def asked(*words: str, folder: Path = ROOT / "tests") -> int:
    """Ask as a container's probe does, and return its exit code."""
    command = [sys.executable, "-m", "trio_worker", "health", *words]
    done = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True, cwd=folder)
    assert done.returncode is not None
    return done.returncode


@pytest.mark.parametrize("words", [[], ["live"], ["ready"]])
def test_probe_imports_almost_nothing(words: list[str], tmp_path: Path) -> None:
    """It runs every second on every host: neither trio nor rich, attrs, cattrs or the command line is loaded."""
    code = (
        f"import sys; sys.argv = ['trio-worker', 'health', *{words}, '--address', 'unix:none']\n"
        "from trio_worker.__main__ import main\n"
        "try: main()\n"
        "finally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert done.returncode == 69
    assert not loaded & {"trio", "rich", "attr", "attrs", "cattrs", "cyclopts", "argparse", "redis", "asyncio"}


@given(
    st.lists(st.sampled_from(["live", "ready", "--wait", "--address", "--config", "--wai", "30s", "unix:a", "", "-h"]))
)
def test_probe_reads_plain_words_as_the_library_does(words: list[str]) -> None:
    """Whatever it takes by itself; the rest is the library's."""
    plainly = probe.read_plainly(words)

    if plainly is not None:
        command, bound, _ = app.parse_args(["health", *words], exit_on_error=False, print_error=False)
        bound.apply_defaults()
        assert (command, bound.arguments) == (health, plainly)


def test_probe_without_a_word_asks_whether_the_worker_is_ready() -> None:
    """As the pages write it; options may follow."""
    assert probe.read_plainly([]) == {"what": "ready", "wait": "0s", "address": "", "config": ""}
    assert probe.read_plainly(["--wait", "2m"]) == {"what": "ready", "wait": "2m", "address": "", "config": ""}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "Usage: trio-worker health"),
        (["live", "-h"], 0, "│ --wait DURATION "),
        (["alive"], 2, "live"),
        (["live", "--wiat", "3s"], 2, "Did you mean --wait?"),
    ],
)
def test_probe_explains_itself_as_the_other_commands_do(words: list[str], code: int, said: str) -> None:
    """Help, and what is said of a wrong word, are the command line's."""
    command = [sys.executable, "-m", "trio_worker", "health", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["live"], 78),
        ([], 78),
        (["live", "--wait", "soon", "--address", "unix:none"], 2),
        (["live", "--address", "nonsense"], 69),
        (["live", "--address", "127.0.0.1:99999"], 69),
        (["live", "--address", "127.0.0.1:0"], 69),
        (["live", "--config", "broken.toml"], 78),
        (["live", "--config", "binary.toml"], 78),
        (["live", "--config", "absent.toml"], 78),
        (["live", "--config", "odd.toml"], 78),
    ],
)
def test_probe_says_what_is_wrong(
    words: list[str], code: int, work_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nowhere to ask, no span of time, no address: each with its code and a sentence."""
    monkeypatch.delenv("TRIO_WORKER__METRICS__LISTEN", raising=False)
    monkeypatch.delenv("TRIO_WORKER_CONFIG", raising=False)
    (work_folder / "broken.toml").write_text("[metrics\n")
    (work_folder / "binary.toml").write_bytes(b"\xff\xfe")
    (work_folder / "odd.toml").write_text("metrics = 7\n")

    asked = probe.read_plainly(words)
    assert asked is not None
    assert probe.ask_workers(**asked) == code
    assert capsys.readouterr().err


def test_probe_reads_what_the_worker_reads(work_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable wins, an empty one too; then the file that is named, else conf/dev.toml."""
    for name in ("TRIO_WORKER__METRICS__LISTEN", "TRIO_WORKER_CONFIG", "TRIO_WORKER__QUEUE__JOURNAL_DIR"):
        monkeypatch.delenv(name, raising=False)
    (work_folder / "conf").mkdir()
    (work_folder / "conf" / "dev.toml").write_text('[metrics]\nlisten = "unix:dev"\n')
    (work_folder / "own.toml").write_text('[metrics]\nlisten = "unix:own"\n[queue]\njournal_dir = "kept"\n')

    assert probe._configured("") == ("unix:dev", "var/journal")
    monkeypatch.setenv("TRIO_WORKER_CONFIG", "own.toml")
    assert probe._configured("") == ("unix:own", "kept")
    monkeypatch.setenv("TRIO_WORKER__METRICS__LISTEN", "")
    monkeypatch.setenv("TRIO_WORKER__QUEUE__JOURNAL_DIR", "other")
    assert probe._configured("") == ("", "other")


def test_default_journal_folder_is_that_of_the_worker() -> None:
    """The probe cannot import the settings, so it repeats one of them."""
    assert QueueOptions().journal_dir == probe._JOURNAL_FOLDER


def test_address_is_told_while_it_is_served_and_those_of_the_dead_are_swept(tmp_path: Path) -> None:
    """One file for each process; what is no such file is left alone."""
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
    left = Path(probe.address_path(str(tmp_path), int(gone)))
    left.write_text("127.0.0.1:1\n")
    others = [tmp_path / name for name in ("metrics-.address", "worker.journal", "notes")]
    for other in others[1:]:
        other.write_text("mine")
    with tell_address(tmp_path, "127.0.0.1:4711"):
        assert [told for told in probe.told_addresses(str(tmp_path)).values() if told] == ["127.0.0.1:4711"]
        assert not left.exists()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "worker.journal"]


async def test_probe_finds_workers_with_ports_of_their_own(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """Two workers of one configuration, both with port 0: both are asked, and one that is gone is not."""
    with programs.config.open("a") as config:
        config.write('[metrics]\nlisten = "127.0.0.1:0"\n')
    folder = read_settings(programs.config, {})
    assert isinstance(folder, Settings)
    journal = programs.folder / folder.queue.journal_dir
    words = ("--config", str(programs.config))
    with patience():
        workers = [await programs.start("run", "--no-dashboard") for _ in range(2)]
        for worker in workers:
            await worker.until_printed("metrics and health on 127.0.0.1:")
        assert len(probe.told_addresses(str(journal))) == 2
        assert await asked("ready", "--wait", "20s", *words, folder=programs.folder) == 0
        workers[0].signal(15)
        assert await workers[0].end() == 0
        assert await asked("live", *words, folder=programs.folder) == 0
        workers[1].signal(15)
        assert await workers[1].end() == 0
        assert await asked("live", *words, folder=programs.folder) == 69
