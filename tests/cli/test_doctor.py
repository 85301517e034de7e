"""``doctor`` as it is sent along with a report: versions, origins, the relay and Redis, and nothing that is secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from proving_ground import Valkey
from tests.support.commands import Ask
from tests.support.jobs import job_bytes
from tests.support.limited_relay import InAll, open_limited_relay
from tests.support.paths import ROOT
from tests.support.workers import WorkerMaker
from trio_worker.capture.chaos import InjectedFaults, parse_faults
from trio_worker.capture.server import open_catcher
from trio_worker.cli.command_line import app

SECRETS = ("hunter2", "ann.secret@example.org", "correct-horse")


async def doctor(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command on worker.toml."""
    command = [sys.executable, "-m", "trio_worker", "doctor", "--config", "worker.toml", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with trio.fail_after(60):
        return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=environment)


async def test_a_report_names_versions_and_origins_and_no_secret(
    work_folder: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, variables and secret files by name; a relay that repeats an address is masked."""
    (work_folder / "secret").write_text(f"{SECRETS[0]}\n")
    (work_folder / "secret").chmod(0o600)
    parsed = parse_faults(f"auth=535-5.7.8-{SECRETS[1]}_is_locked")
    assert isinstance(parsed, InjectedFaults)
    async with open_catcher(faults=parsed, credentials=("mailer", "else"), mechanisms=("CRAM-MD5",)) as relay:
        config = work_folder / "worker.toml"
        config.write_text(
            f'[redis]\nurl = "{valkey_url.replace("://", f"://:{SECRETS[2]}@")}"\n'
            f'[smtp]\nport = {relay.port}\ntls = "none"\nusername = "mailer"\npassword_file = "secret"\n'
        )
        monkeypatch.setenv("TRIO_WORKER__NUMBER_WORKERS", "20")
        # This Valkey needs no password: a password gives an error, which is printed masked.
        done = await doctor("--json")

    findings = {each["what"]: each for each in json.loads(done.stdout) if each["sign"] != "warn"}
    assert done.returncode == 77
    assert "trio-worker " in findings["versions"]["says"]
    assert "Python 3." in findings["versions"]["says"]
    assert "worker.toml" in findings["configuration"]["says"]
    assert "TRIO_WORKER__NUMBER_WORKERS" in findings["configuration"]["says"]
    assert "secrets: smtp.password" in findings["configuration"]["says"]
    assert "535 5.7.8" in findings["relay"]["says"]
    for secret in SECRETS:
        assert secret not in (done.stdout + done.stderr).decode()


async def test_a_report_names_the_server(work_folder: Path, valkey_url: str) -> None:
    """Its kind and its version."""
    async with open_catcher() as relay:
        (work_folder / "worker.toml").write_text(
            f'[redis]\nurl = "{valkey_url}"\n[smtp]\nport = {relay.port}\ntls = "none"\n'
        )
        done = await doctor()

    assert done.returncode == 0
    assert "answers, valkey " in done.stdout.decode()


async def test_a_type_of_which_no_mail_can_be_made_is_told(work_folder: Path, valkey_url: str) -> None:
    """By its template and the reason, as `config check` does: each of its jobs would die."""
    folder = work_folder / "templates" / "Own"
    folder.mkdir(parents=True)
    (folder / "fields.toml").write_text('says = "Is short."\n[fields.to]\nkind = "recipient"\nsample = "a@b"\n')
    (folder / "subject.j2").write_text("Order\nshipped\n")
    (folder / "text.j2").write_text("Hello.\n")
    (work_folder / "worker.toml").write_text(
        f'[mail]\ntemplate_dirs = ["templates"]\n[redis]\nurl = "{valkey_url}"\n[smtp]\nport = 9\ntls = "none"\n'
    )

    done = await doctor()

    assert done.returncode == 78
    assert "fail templates      Own/subject.j2: contains a control character, or is more than one line" in (
        done.stdout.decode()
    )


def test_doctor_says_of_each_part_whether_it_will_do(
    work_folder: Path, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A relay that is not there fails it with 69; Redis, templates and journal are fine."""
    config = work_folder / "worker.toml"
    config.write_text(f'profile = "dev"\n[redis]\nurl = "{valkey_url}"\n[smtp]\nport = 1\ntls = "none"\n')

    assert app(["doctor", "--config", str(config)]) == 69
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if not line.startswith("warn")}
    assert [name for name, line in lines.items() if line.startswith("fail")] == ["relay"]
    assert set(lines) == {"versions", "configuration", "templates", "journal", "redis", "relay"}
    assert app(["doctor", "--config", str(config), "--json"]) == 69
    assert {each["sign"] for each in json.loads(capsys.readouterr().out)} >= {"ok", "fail"}


def test_doctor_fails_on_what_breaks_a_promise(work_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal that cannot be read, a template that does not compile: with 78, all of them named."""
    (work_folder / "journal").mkdir()
    (work_folder / "journal" / "1-a.journal").write_text("nonsense\n")
    (work_folder / "types" / "Bad").mkdir(parents=True)
    config = work_folder / "worker.toml"
    config.write_text(
        'profile = "dev"\n[queue]\njournal_dir = "journal"\n[redis]\nurl = "embedded:valkey"\n'
        '[smtp]\ntls = "none"\nport = 1025\n[capture]\nlisten = "127.0.0.1:1025"\n[mail]\ntemplate_dirs = ["types"]\n'
    )

    assert app(["doctor", "--config", str(config)]) == 78
    failed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert set(failed) == {"templates", "journal"}


async def test_a_relay_that_refuses_all_mail_is_told_by_the_workers(
    work_folder: Path, valkey_url: str, workers: WorkerMaker
) -> None:
    """It accepts the session, so that alone would look well."""
    async with open_limited_relay(InAll(0, "FINAL", "550 5.4.5 Daily user sending limit exceeded")) as relay:
        config = work_folder / "worker.toml"
        config.write_text(f'[redis]\nurl = "{valkey_url}"\n[smtp]\nport = {relay.port}\ntls = "none"\n')
        reporter = workers.make(workers.options(relay.port), is_burst=False)
        await workers.push(job_bytes())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reporter.run)
            with trio.fail_after(60):
                await workers.wait_until(lambda: reporter.worker.relay_trouble is not None)
                while not (done := await doctor("--json")).returncode:
                    await trio.lowlevel.checkpoint()  # until its next heartbeat
            reporter.worker.drain("seen")

    findings = {each["what"]: each for each in json.loads(done.stdout) if each["sign"] != "warn"}
    assert done.returncode == 69
    assert findings["relay"]["sign"] == "ok"
    assert "takes no more mail of our account with 550 5.4.5" in findings["workers"]["says"]


REFUSALS = [
    (("~jobs", "~{jobs}:*", "+@all", "-hincrby"), 78, "no permission for HINCRBY"),
    (("~jobs", "+@all"), 78, "no permission for a key"),
    (("~jobs", "~{jobs}:*", "+@all", "-@scripting"), 78, "no permission for EVALSHA"),
    (("~jobs", "~{jobs}:*", "+@all", "-exists"), 0, "no permission for EXISTS"),
    (("~jobs", "~{jobs}:*", "+@all", "-blmove"), 0, "no permission for BLMOVE"),
    (("~jobs", "~{jobs}:*", "+@all", "-info"), 0, "no permission for INFO"),
]


@pytest.mark.parametrize(("rules", "code", "words"), REFUSALS)
def test_doctor_tries_what_a_worker_needs_of_redis(
    rules: tuple[str, ...],
    code: int,
    words: str,
    work_folder: Path,
    valkey_url: str,
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It fails where a worker could do nothing, and warns where it does without; nothing is left of what it tried."""
    ask(lambda client: client.command("ACL", "SETUSER", "mailer", "reset", "on", ">secret", *rules))
    config = work_folder / "worker.toml"
    login = 'username = "mailer"\npassword = "secret"\n'
    config.write_text(f'[redis]\nurl = "{valkey_url}"\n{login}[smtp]\nport = 1\ntls = "none"\n')

    app(["doctor", "--config", str(config), "--json"])

    findings = [each for each in json.loads(capsys.readouterr().out) if each["what"] == "redis"]
    said = {each["says"]: each["code"] for each in findings}
    assert [found for says, found in said.items() if words in says] == [code]
    assert max(said.values()) == code
    assert ask(lambda client: client.command("KEYS", "*")) == []
    ask(lambda client: client.command("ACL", "DELUSER", "mailer"))


def test_nothing_is_concluded_from_the_silence_of_workers_where_redis_refuses_writes(
    work_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too few replicas, a full disk: workers cannot report, and `status`, `why` and `doctor` say so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = Valkey(tmp_path / "valkey", taken.getsockname()[1])
    server.start()
    try:
        with server.client() as client:
            client.rpush("jobs", job_bytes(0))
            client.config_set("min-replicas-to-write", 1)
        config = work_folder / "worker.toml"
        url = f'url = "redis://127.0.0.1:{server.port}"'
        config.write_text(f'[redis]\n{url}\n[smtp]\nport = 1\ntls = "none"\n')
        assert app(["status", "--exit-code", "--config", str(config)]) == 69
        status = " ".join(capsys.readouterr().out.split())
        assert app(["why", "--config", str(config)]) == 0
        why = capsys.readouterr().out
        assert app(["worker", "list", "--config", str(config)]) == 3
        workers = capsys.readouterr().err
        app(["doctor", "--config", str(config)])
        doctor = capsys.readouterr().out
    finally:
        server.kill()

    assert "no worker is heard" not in status
    assert "not known whether one runs: NOREPLICAS" in status
    assert "Limited by: Redis refuses what workers write" in why
    assert "No worker is heard" not in why
    assert "not known whether one runs: NOREPLICAS" in workers
    assert "fail redis" in doctor
    assert "NOREPLICAS" in doctor
