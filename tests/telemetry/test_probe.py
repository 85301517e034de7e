"""The probe of a container: its request to a worker, its output, and its few imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from tests.support.processes import Programs, patience, push
from trio_worker.capture.catcher import Catcher
from trio_worker.cli.command_line import app
from trio_worker.cli.health import health
from trio_worker.queue.options import QueueOptions
from trio_worker.redis.client import RedisClient
from trio_worker.settings.reader import Settings, read_settings
from trio_worker.telemetry import probe


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
    """All arguments that it reads itself; the library reads the others."""
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
        assert len(probe.written_addresses(str(journal))) == 2
        assert await asked("ready", "--wait", "20s", *words, folder=programs.folder) == 0
        workers[0].signal(15)
        assert await workers[0].end() == 0
        assert await asked("live", *words, folder=programs.folder) == 0
        workers[1].signal(15)
        assert await workers[1].end() == 0
        assert await asked("live", *words, folder=programs.folder) == 69


async def test_a_shell_without_the_variables_of_a_service_finds_its_worker(
    programs: Programs, real_redis: RedisClient, relay: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has its address from a variable, as under systemd; the shell knows only where its journal is."""
    listen = f"unix:{programs.folder}/w.sock"
    with patience(), monkeypatch.context() as service:
        service.setenv("TRIO_WORKER__METRICS__LISTEN", "127.0.0.1:0,unix:w.sock")
        worker = await programs.start("run", "--no-dashboard")
    words = ("--config", str(programs.config))
    with patience():
        await worker.until_printed("metrics and health on")
        assert await asked("ready", "--wait", "20s", *words, folder=programs.folder) == 0
        monkeypatch.setattr(probe, "_STATE_FOLDER", str(programs.folder / "lib"))
        (programs.folder / "lib" / "trio-worker").mkdir(parents=True)
        (programs.folder / "lib" / "trio-worker" / "journal").symlink_to(programs.folder / "var" / "journal")
        assert probe.addresses_of("", "elsewhere") == [listen]
        worker.signal(15)
        assert await worker.end() == 0
        assert await asked("live", *words, folder=programs.folder) == 78


@pytest.mark.parametrize("status", [200, 503])
def test_each_worker_has_a_line(
    status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers of two workers are two lines, and an answer of two lines is one."""
    monkeypatch.setattr(probe, "addresses_of", lambda *_: ["one", "two\nlines"])
    monkeypatch.setattr(probe, "ask", lambda address, _: (status, f"I am {address}"))

    probe.ask_workers("live", "0s", "127.0.0.1:0", "")
    printed = capsys.readouterr()
    assert (printed.out or printed.err).splitlines() == ["I am one", "I am two\\nlines"]


def test_without_any_address_the_probe_says_what_would_name_one(
    work_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """78: nobody can be asked; with --wait it is looked for again until 75."""
    monkeypatch.setattr(probe, "_STATE_FOLDER", str(work_folder))

    assert probe.ask_workers("live", "0s", "", "") == 78
    complained = capsys.readouterr().err
    assert "no worker has written its address in var/journal; --address names one" in complained
    assert f"TRIO_WORKER_CONFIG is not set, and there is no {work_folder}/conf/dev.toml" in complained
    assert probe.ask_workers("live", "1s", "", "") == 75
    (work_folder / "worker.toml").write_text("")
    probe.ask_workers("live", "0s", "", "worker.toml")
    assert "metrics.listen is not set in worker.toml, and no worker" in capsys.readouterr().err
